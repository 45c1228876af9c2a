"""Which threads go first while a guest's memory moves: those that move it, before vCPUs that keep all cores busy.

Only where this process may (root, or CAP_SYS_NICE), and only felt where cores are short: there a load is over sooner for a guest that
runs a little slower meanwhile (2 cores, a busy vCPU, 1 GiB: see the README's figures).

Six threads in a row pass a stream on from QEMU to QEMU. A nice value gives them more of a core, but each still waits for a vCPU's turn
to end when it wakes up, and the next one with it: real-time turns (SCHED_RR) end that wait, and took a third off a teleport here. They
would also starve whatever else a host does, so they last for `REALTIME_SECONDS` at most; what moves for longer goes on by its nice
value. (The kernel keeps a twentieth of each core for the others even then: sched(7), "Limiting the CPU usage of real-time".)
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterable
from pathlib import Path

FIRST_NICE = -10
REALTIME_SECONDS = 10.0
_REALTIME = os.sched_param(1)  # the least of them: whatever a host runs real-time goes before us


def put_first(thread_id: int) -> None:
    """This thread (of a process: its main one) goes before others, by its nice value."""
    with contextlib.suppress(OSError):  # gone, or not allowed: then it is slower
        os.setpriority(os.PRIO_PROCESS, thread_id, FIRST_NICE)


def put_back(thread_id: int) -> None:
    """It takes its turn again: as our guardian, whose child it is as we are, and which never put itself first."""
    take_turns(thread_id)
    with contextlib.suppress(OSError):
        if os.getpriority(os.PRIO_PROCESS, thread_id) == FIRST_NICE:
            os.setpriority(os.PRIO_PROCESS, thread_id, os.getpriority(os.PRIO_PROCESS, os.getppid()))


def hurry(thread_ids: Iterable[int], *, inherited: bool = False) -> None:
    """These threads go before others, in real time for the next `REALTIME_SECONDS`. Called in an event loop, which ends that.

    `inherited`: so do threads that they begin meanwhile (and processes); otherwise those begin like anybody's.
    """
    hurried = tuple(thread_ids)
    policy = os.SCHED_RR if inherited else os.SCHED_RR | os.SCHED_RESET_ON_FORK
    for thread_id in hurried:
        put_first(thread_id)
        with contextlib.suppress(OSError):
            os.sched_setscheduler(thread_id, policy, _REALTIME)
    asyncio.get_running_loop().call_later(REALTIME_SECONDS, _take_turns_all, hurried)


def hurry_streams() -> None:
    """Hurries the threads of this process that carry streams, and what they begin: gRPC's own and those that it calls us in.

    Not the event loop's thread nor its workers, which begin processes.
    """
    hurry(_stream_threads(), inherited=True)


def streams_take_turns() -> None:
    """Ends what `hurry_streams` began, for what its threads began too."""
    _take_turns_all(_stream_threads())


def take_turns(thread_id: int) -> None:
    """Ends a thread's real-time turns; its nice value stays. Nothing for a thread that has none."""
    with contextlib.suppress(OSError):
        policy = os.sched_getscheduler(thread_id)
        if policy & ~os.SCHED_RESET_ON_FORK == os.SCHED_RR and os.sched_getparam(thread_id) == _REALTIME:
            os.sched_setscheduler(thread_id, os.SCHED_OTHER | (policy & os.SCHED_RESET_ON_FORK), os.sched_param(0))


def threads_named(pid: int, prefix: str) -> tuple[int, ...]:
    """The ids of a process's threads whose name (proc(5), comm) begins so; none when it is gone."""
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # this thread has just ended
                if (task / "comm").read_text().startswith(prefix):
                    found.append(int(task.name))
    return tuple(found)


def _take_turns_all(thread_ids: Iterable[int]) -> None:
    for thread_id in thread_ids:
        take_turns(thread_id)


def _stream_threads() -> tuple[int, ...]:
    loops = {
        thread.native_id
        for thread in threading.enumerate()
        if thread is threading.main_thread() or thread.name.startswith("asyncio")
    }
    return tuple(number for number in threads_named(os.getpid(), "") if number not in loops)
