"""Which threads go first while a guest's memory moves: those that move it, before vCPUs that keep all cores busy.

Only where this process may (root, or CAP_SYS_NICE), and only felt where cores are short: there a load is over sooner for a guest that
runs a little slower meanwhile (2 cores, a busy vCPU, 1 GiB: see the README's figures).
"""

import contextlib
import os
from pathlib import Path

FIRST_NICE = -10


def put_first(thread_id: int) -> None:
    """This thread (of a process: its main one) goes before others."""
    _set(thread_id, FIRST_NICE)


def put_back(thread_id: int) -> None:
    """It takes its turn again: as our guardian, whose child it is as we are, and which never put itself first."""
    with contextlib.suppress(OSError):
        if os.getpriority(os.PRIO_PROCESS, thread_id) == FIRST_NICE:
            _set(thread_id, os.getpriority(os.PRIO_PROCESS, os.getppid()))


def threads_named(pid: int, prefix: str) -> tuple[int, ...]:
    """The ids of a process's threads whose name (proc(5), comm) begins so; none when it is gone."""
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # this thread has just ended
                if (task / "comm").read_text().startswith(prefix):
                    found.append(int(task.name))
    return tuple(found)


def _set(thread_id: int, nice: int) -> None:
    with contextlib.suppress(OSError):  # gone, or not allowed: then it is slower
        os.setpriority(os.PRIO_PROCESS, thread_id, nice)
