"""Processes of this machine, found again by pid and start time, watched by pidfd; its free memory; its QEMU and accelerator.

Only the standard library is imported: the guardian uses this module too.
"""

import asyncio
import contextlib
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Literal

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


QEMU = "qemu-system-x86_64"
OLDEST_QEMU = (10, 0)
_INSTALL = "install QEMU 10.0 or newer (Debian 13: apt install qemu-system-x86 qemu-utils; Debian 12: the same with -t bookworm-backports)"
_PROBE_SECONDS = 5.0
_PROBE_EXIT = 33  # isa-debug-exit ends QEMU with 2 * value + 1
# The firmware of the probe, for 0xffff0000: lgdt; protected mode; PML4 0x1000, PDPT 0x2000, PDs 0x3000 (0-2 MiB) and 0x4000 (the
# firmware's 2 MiB) in RAM; PAE, EFER.LME, paging; in 64-bit mode a quadword to RAM and back; mov al, 0x10; out 0xf4, al; GDT, GDTR.
_PROBE_CODE = bytes.fromhex(
    "fa2e660f0116c8000f20c00c010f22c066ea1800ffff080066b810008ed88ed0c7050010000003200000c7050020000003300000"
    "c7051820000003400000c7050030000083000000c705f84f00008300e0ffb8001000000f22d80f20e00c200f22e0b9800000c00f"
    "3280cc010f300f20c00d000000800f22c0ea8000ffff180048b8f0debc9a785634124889042500500000483b0425005000007504"
    "b010e6f4f48db426000000000000000000000000ffff0000009bcf00ffff00000093cf00ffff0000009baf001f00a800ffff"
)
_PROBE_RESET = bytes.fromhex("e90d00")  # at 0xfffffff0: jmp near to 0xffff0000


def find_qemu() -> tuple[str, tuple[int, int, int]]:
    """Path and version of the QEMU on PATH (`TELEPORT_QEMU` names another). Raises HypervisorError: missing, or older than 10.0."""
    wanted = os.environ.get("TELEPORT_QEMU", QEMU)
    path = shutil.which(wanted)
    if path is None:
        raise HypervisorError("QEMU", f"{wanted} is not installed", _INSTALL)
    status = Path(path).stat()
    version = _qemu_version(path, (status.st_ino, status.st_mtime_ns))
    if version < OLDEST_QEMU:
        raise HypervisorError(
            "QEMU",
            f"{path} is version {'.'.join(map(str, version))}: before 9.0 a moving guest loses memory pages under TCG",
            _INSTALL,
        )
    return path, version


@functools.lru_cache(maxsize=4)
def _qemu_version(path: str, _identity: tuple[int, int]) -> tuple[int, int, int]:
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HypervisorError("QEMU", f"{path} --version: {error}", _INSTALL) from error
    match = re.search(r"version (\d+)\.(\d+)\.(\d+)", answer.stdout)
    if match is None:
        raise HypervisorError("QEMU", f"{path} --version says {(answer.stdout or answer.stderr).strip()[:200]!r}", _INSTALL)
    return int(match[1]), int(match[2]), int(match[3])


def usable_accelerator(choice: str, *, cache: Path | None = None) -> Literal["kvm", "tcg"]:
    """ "kvm" or "tcg" for "auto", "kvm" or "tcg"; blocks for up to some seconds. Raises HypervisorError when kvm does not work.

    /dev/kvm may open and guests hang all the same (seen, on a host whose KVM lacks SSE3 and more): so a firmware that goes up to
    64-bit paging must really run, on the plain CPU model in full. What it said is kept in the folder `cache` until the next boot.
    """
    if choice == "tcg":
        return "tcg"
    problem = _kvm_problem(cache)
    if problem and choice == "kvm":
        raise HypervisorError("accelerator kvm", problem, "modifyvm NAME --accelerator tcg, or TELEPORT_ACCELERATOR=tcg")
    return "tcg" if problem else "kvm"


def boot_id() -> str:
    """The kernel's name for this boot of the host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _kvm_problem(cache: Path | None) -> str:
    """Why KVM is of no use here; "" when it works."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "/dev/kvm is not there, or not for this user"
    path, _ = find_qemu()
    known = cache / "kvm-probe.json" if cache else None
    if known is not None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # not looked yet
            content = json.loads(known.read_text())
            if (content["boot_id"], content["qemu"]) == (boot_id(), path):
                return str(content["problem"])
    problem = run_probe(path, "kvm")
    if known is not None:
        with contextlib.suppress(OSError):  # looked at anew the next time
            fresh = known.with_name(f".{known.name}.{os.getpid()}")
            fresh.write_text(json.dumps({"boot_id": boot_id(), "qemu": path, "problem": problem}))
            fresh.rename(known)
    return problem


def run_probe(qemu: str, accelerator: str) -> str:
    """Runs a small firmware under `accelerator`; "" when it ran, else why not. Takes at most some seconds."""
    with tempfile.NamedTemporaryFile(prefix="teleport-probe-") as firmware:
        image = bytearray(64 * 1024)
        image[: len(_PROBE_CODE)] = _PROBE_CODE
        image[0xFFF0 : 0xFFF0 + len(_PROBE_RESET)] = _PROBE_RESET
        firmware.write(image)
        firmware.flush()
        machine = [
            "-machine",
            f"pc,accel={accelerator}",
            "-cpu",
            "qemu64,enforce",
            "-m",
            "16",
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
        ]
        end = ["-bios", firmware.name, "-device", "isa-debug-exit,iobase=0xf4,iosize=1"]
        process = subprocess.Popen(
            [qemu, *machine, *end], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            words = " / ".join(process.communicate(timeout=_PROBE_SECONDS)[1].decode(errors="replace").split("\n")).strip(" /")
        except subprocess.TimeoutExpired:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the kernel: it is left behind
                process.communicate(timeout=2)
            return f"a guest of a few instructions hung for {_PROBE_SECONDS:g} s"
        return "" if process.returncode == _PROBE_EXIT else (words or f"QEMU ended with {process.returncode}")
