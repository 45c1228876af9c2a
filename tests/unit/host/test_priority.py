"""A thread goes first and back, in real time for a while; a process that is gone is no error."""

import asyncio
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from teleport.host import priority
from teleport.host.priority import (
    FIRST_NICE,
    hurry,
    hurry_streams,
    put_back,
    put_first,
    streams_take_turns,
    take_turns,
    threads_named,
)

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may put a thread first")


@pytest.fixture
def sleeper() -> Iterator[threading.Thread]:
    """A thread that waits until the test is over."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    yield thread
    done.set()
    thread.join()


@only_root
def test_one_thread_goes_first_and_back(sleeper: threading.Thread) -> None:
    number = sleeper.native_id
    assert number
    before = os.getpriority(os.PRIO_PROCESS, 0)
    put_first(number)
    assert os.getpriority(os.PRIO_PROCESS, number) == FIRST_NICE
    assert os.getpriority(os.PRIO_PROCESS, threading.main_thread().native_id or 0) == before
    put_back(number)
    assert os.getpriority(os.PRIO_PROCESS, number) == os.getpriority(os.PRIO_PROCESS, os.getppid())


def test_threads_are_found_by_their_name() -> None:
    name = Path("/proc/self/comm").read_text().strip()
    assert threading.main_thread().native_id in threads_named(os.getpid(), name[:4])
    assert threads_named(os.getpid(), "no such") == ()


def test_a_process_that_is_gone_is_no_error() -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait()
    assert threads_named(child.pid, "") == ()
    put_first(child.pid)
    put_back(child.pid)
    take_turns(child.pid)


def _policy(thread_id: int) -> int:
    return os.sched_getscheduler(thread_id) & ~os.SCHED_RESET_ON_FORK


@only_root
def test_a_hurried_thread_takes_turns_again_by_itself(sleeper: threading.Thread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priority, "REALTIME_SECONDS", 0.05)
    number = sleeper.native_id
    assert number

    async def run() -> None:
        hurry((number,))
        assert _policy(number) == os.SCHED_RR
        async with asyncio.timeout(10):
            while _policy(number) != os.SCHED_OTHER:  # noqa: ASYNC110 (the kernel tells nobody of it)
                await asyncio.sleep(0.01)

    asyncio.run(run())
    assert os.getpriority(os.PRIO_PROCESS, number) == FIRST_NICE  # still first, by its nice value
    put_back(number)
    assert os.getpriority(os.PRIO_PROCESS, number) == os.getpriority(os.PRIO_PROCESS, os.getppid())


@only_root
def test_a_hurried_thread_goes_back_at_once(sleeper: threading.Thread) -> None:
    number = sleeper.native_id
    assert number

    async def run() -> None:
        hurry((number,))
        put_back(number)
        assert _policy(number) == os.SCHED_OTHER

    asyncio.run(run())


@only_root
def test_what_a_host_runs_real_time_otherwise_stays_so(sleeper: threading.Thread) -> None:
    number = sleeper.native_id
    assert number
    os.sched_setscheduler(number, os.SCHED_RR, os.sched_param(20))
    take_turns(number)
    assert _policy(number) == os.SCHED_RR


@only_root
def test_streams_hurry_but_neither_the_loop_nor_what_begins_processes(sleeper: threading.Thread) -> None:
    stream = sleeper.native_id
    assert stream

    async def run() -> None:
        worker = await asyncio.to_thread(threading.get_native_id)
        hurry_streams()
        assert _policy(stream) == os.SCHED_RR
        assert _policy(0) == _policy(worker) == os.SCHED_OTHER
        streams_take_turns()
        assert _policy(stream) == os.SCHED_OTHER

    asyncio.run(run())


@only_root
def test_what_a_hurried_thread_begins_does_not_hurry() -> None:
    """QEMU's main thread begins workers while it loads; they stay when it takes its turn again."""
    go, found = threading.Event(), []

    def begin() -> None:
        go.wait()
        child = threading.Thread(
            target=lambda: found.append((_policy(0), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
        )
        child.start()
        child.join()

    thread = threading.Thread(target=begin)
    thread.start()
    assert thread.native_id

    async def run() -> None:
        hurry((thread.native_id or 0,))

    asyncio.run(run())
    go.set()
    thread.join()
    assert found == [(os.SCHED_OTHER, 0)]
