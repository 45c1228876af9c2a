import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from teleport.errors import StorageError, UsageError
from teleport.host.faults import ENVIRONMENT, async_fault_point, fault_point, set_faults


@pytest.fixture(autouse=True)
def _no_faults() -> Iterator[None]:
    yield
    set_faults("")


def run(faults: str, code: str) -> int:
    program = f"from teleport.host.faults import fault_point\n{code}"
    return subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, ENVIRONMENT: faults}, timeout=30, check=False
    ).returncode


def test_unset_does_nothing() -> None:
    fault_point("anything")


def test_raise_carries_the_text() -> None:
    set_faults("a=raise:no space,b=raise")
    with pytest.raises(StorageError, match="no space"):
        fault_point("a")
    with pytest.raises(StorageError, match="fault point b"):
        fault_point("b")
    fault_point("c")


def test_one_passage_only() -> None:
    set_faults("a@2=raise")
    fault_point("a")
    with pytest.raises(StorageError):
        fault_point("a")
    fault_point("a")


@pytest.mark.parametrize("text", ["a", "a=", "a=explode", "a@x=kill", "=@=kill"])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="TELEPORT_FAULTS"):
        set_faults(text)


def test_kill_exit_and_delay_in_a_process_of_their_own() -> None:
    assert run("here=kill", "fault_point('here')") == -signal.SIGKILL
    assert run("here=exit:7", "fault_point('here')") == 7
    assert run("here=delay:0.01", "fault_point('here')") == 0


def test_stop_stops_until_continued() -> None:
    program = "from teleport.host.faults import fault_point\nfault_point('here')\nprint('went on', flush=True)"
    child = subprocess.Popen(
        [sys.executable, "-c", program], env={**os.environ, ENVIRONMENT: "here=stop"}, stdout=subprocess.PIPE
    )
    try:
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        child.send_signal(signal.SIGCONT)
        assert child.communicate(timeout=30)[0] == b"went on\n"
    finally:
        child.kill()
        child.wait()


def test_wait_lets_the_event_loop_run(tmp_path: Path) -> None:
    mark = tmp_path / "reached"

    async def scenario() -> None:
        set_faults(f"here=wait:{mark}")
        waiting = asyncio.ensure_future(async_fault_point("here"))
        while not mark.exists():  # noqa: ASYNC110 - a file, not an event
            await asyncio.sleep(0)
        assert not waiting.done()
        mark.unlink()
        await waiting

    asyncio.run(scenario())


def test_a_file_arms_and_disarms_a_process_that_runs(tmp_path: Path) -> None:
    file = tmp_path / "faults"
    set_faults(f"@{file}")
    fault_point("a")
    file.write_text("a@2=raise:now")
    fault_point("a")
    with pytest.raises(StorageError, match="now"):
        fault_point("a")
    file.write_text("")
    fault_point("a")
    file.unlink()
    fault_point("a")
