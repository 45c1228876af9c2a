import asyncio
import os
import subprocess
import sys

import pytest

from teleport.host.bounded import in_thread
from teleport.host.process import ProcessWatch, available_memory_bytes, open_pidfd, same_process, start_ticks
from teleport.model import QemuProcess


def sleeper() -> tuple[subprocess.Popen[bytes], QemuProcess]:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    ticks = start_ticks(child.pid)
    assert ticks is not None
    return child, QemuProcess(pid=child.pid, start_ticks=ticks, label="sleeper")


def test_a_process_is_found_again_and_a_zombie_is_dead() -> None:
    child, process = sleeper()
    try:
        assert same_process(process)
        assert not same_process(QemuProcess(pid=process.pid, start_ticks=process.start_ticks + 1, label=""))
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, not reaped
        assert not same_process(process)
        assert open_pidfd(process) is None
    finally:
        child.kill()
        child.wait()
    assert start_ticks(child.pid) is None


def test_a_command_with_spaces_and_parentheses_in_its_name() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "open('/proc/self/comm','w').write('a) S (b'); input()"], stdin=subprocess.PIPE
    )
    try:
        assert start_ticks(child.pid) is not None
    finally:
        child.communicate(b"\n", timeout=30)


def test_watch_sees_a_death_and_kill_waits_for_it() -> None:
    async def scenario() -> None:
        child, process = sleeper()
        watch = ProcessWatch(process)
        assert watch.alive
        await asyncio.gather(watch.kill(), watch.wait(), watch.wait())
        assert not watch.alive
        child.wait()
        late = ProcessWatch(process)
        assert not late.alive
        await late.wait()
        await late.kill()

    asyncio.run(scenario())


def test_memory_is_counted() -> None:
    assert 1 << 20 < available_memory_bytes() < 1 << 50


def test_a_thread_that_hangs_is_abandoned() -> None:
    read_end, write_end = os.pipe()

    async def scenario() -> None:
        assert await in_thread(lambda: 42, timeout_seconds=30) == 42
        with pytest.raises(ZeroDivisionError):
            await in_thread(lambda: 1 // 0, timeout_seconds=30)
        with pytest.raises(TimeoutError):
            await in_thread(lambda: os.read(read_end, 1), timeout_seconds=0.05)

    asyncio.run(scenario())
    os.write(write_end, b"x")  # the abandoned thread ends after its loop did
    os.close(write_end)
