"""Processes of this machine, found again by pid and start time, watched by pidfd; its free memory.

Only the standard library is imported: the guardian uses this module too.
"""

import asyncio
import os
import signal
from pathlib import Path

from teleport.errors import HypervisorError
from teleport.model import QemuProcess

_STAT_STATE, _STAT_START = 0, 19  # fields 3 and 22 of /proc/PID/stat, counted after the command's closing parenthesis


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def start_ticks(pid: int) -> int | None:
    """When `pid` started, in clock ticks since boot (proc(5), field 22); None when it is gone or a zombie."""
    fields = _stat(pid)
    if fields is None or fields[_STAT_STATE] in "ZX":
        return None
    return int(fields[_STAT_START])


def same_process(process: QemuProcess) -> bool:
    """Whether this very process still lives (its pid may have gone to another since)."""
    return start_ticks(process.pid) == process.start_ticks


def open_pidfd(process: QemuProcess) -> int | None:
    """A pidfd of this very process, or None when it is gone. The caller closes it."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    if not same_process(process):  # looked at after the open: from here on the pidfd cannot become somebody else's
        os.close(pidfd)
        return None
    return pidfd


class ProcessWatch:
    """Sees the death of one process, a child or not, as soon as it happens. To be used within one event loop."""

    def __init__(self, process: QemuProcess) -> None:
        self._process = process
        self._dead = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._pidfd = open_pidfd(process)
        if self._pidfd is None:
            self._dead.set()
        else:
            self._loop.add_reader(self._pidfd, self._on_death)

    @property
    def alive(self) -> bool:
        """Whether it lived when the event loop last looked."""
        return not self._dead.is_set()

    @property
    def pidfd(self) -> int | None:
        """The pidfd while it lives and the watch is open; owned by this watch."""
        return self._pidfd

    async def wait(self) -> None:
        """Returns when the process is gone: its memory is unmapped and its files are closed."""
        await self._dead.wait()

    async def kill(self) -> None:
        """SIGKILL, and returns when it is gone. Raises HypervisorError when we may not."""
        if self._pidfd is not None:
            await kill_by_pidfd(self._pidfd, what=f"process {self._process.pid}", gone=self._dead)

    def close(self) -> None:
        """Ends the watch; the process lives on."""
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    def _on_death(self) -> None:
        self._dead.set()
        self.close()


async def kill_by_pidfd(pidfd: int, *, what: str, gone: asyncio.Event | None = None) -> None:
    """SIGKILL through a pidfd that stays the caller's, and waits for the death (through `gone` when the pidfd is watched already).

    Raises HypervisorError when this process may not kill that one.
    """
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    except OSError as error:
        raise HypervisorError(
            f"killing {what}", error.strerror or str(error), "end it by hand before the guest runs elsewhere"
        ) from error
    if gone is not None:
        await gone.wait()
        return
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    watched = os.dup(pidfd)  # an event loop has one reader a descriptor, and others may wait for this death too
    loop.add_reader(watched, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(watched)
        os.close(watched)


async def kill_process(*, pid: int, start_ticks: int) -> None:
    """SIGKILL to this very process, and returns when it is gone (it may be already). Raises HypervisorError when we may not."""
    pidfd = open_pidfd(QemuProcess(pid=pid, start_ticks=start_ticks, label=""))
    if pidfd is None:
        return
    try:
        await kill_by_pidfd(pidfd, what=f"process {pid}")
    finally:
        os.close(pidfd)


def available_memory_bytes() -> int:
    """What a new guest may take: the kernel's MemAvailable, or what the memory cgroups above us leave, whichever is less."""
    available = 0
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            available = int(rest.split()[0]) * 1024
    return max(0, min([available, *_cgroup_rooms()]))


def _cgroup_rooms() -> list[int]:
    """Bytes left below each limit of cgroup v2 and v1; file pages that can be dropped count as free."""
    rooms: list[int] = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            mount, limit_name, usage_name = Path("/sys/fs/cgroup"), "memory.max", "memory.current"
            inactive = "inactive_file"
        elif "memory" in controllers.split(","):
            mount, limit_name, usage_name = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"
            inactive = "total_inactive_file"
        else:
            continue
        here = mount / group.lstrip("/")
        for folder in (here, *here.parents):
            if not folder.is_relative_to(mount):
                break
            try:
                limit = (folder / limit_name).read_text().strip()
                used = int((folder / usage_name).read_text())
                statistics = dict(row.split() for row in (folder / "memory.stat").read_text().splitlines())
            except OSError:
                continue
            if limit != "max":
                rooms.append(int(limit) - used + int(statistics.get(inactive, 0)))
    return rooms
