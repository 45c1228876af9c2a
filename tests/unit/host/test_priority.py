"""A thread goes first and back; a process that is gone is no error."""

import os
import subprocess
import threading
from pathlib import Path

import pytest

from teleport.host.priority import FIRST_NICE, put_back, put_first, threads_named


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may put a thread first")
def test_one_thread_goes_first_and_back() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        number = thread.native_id
        assert number
        before = os.getpriority(os.PRIO_PROCESS, 0)
        put_first(number)
        assert os.getpriority(os.PRIO_PROCESS, number) == FIRST_NICE
        assert os.getpriority(os.PRIO_PROCESS, threading.main_thread().native_id or 0) == before
        put_back(number)
        assert os.getpriority(os.PRIO_PROCESS, number) == os.getpriority(os.PRIO_PROCESS, os.getppid())
    finally:
        done.set()
        thread.join()


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
