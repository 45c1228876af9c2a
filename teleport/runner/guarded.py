"""The QEMUs that a guardian holds: starts them, finds those of a guardian that died, and keeps their RAM.

`run/qemu.json` names them before they execute, so that none is ever forgotten.
"""

import contextlib
import json
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from teleport.errors import StateError
from teleport.host.fd_messages import Message, close_all
from teleport.host.process import ProcessWatch, boot_id, same_process, start_ticks
from teleport.model import QemuProcess

RAM = "ram"  # the descriptor that the guardian keeps a copy of
STATE_FILE = "qemu.json"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # those that a guardian handles, and QEMU must not inherit so


@dataclass
class HeldQemu:
    """One of them, with what QEMU and the guardian hold of it."""

    process: QemuProcess
    watch: ProcessWatch
    is_child: bool
    fd_numbers: Mapping[str, int]  # as QEMU knows them
    ram_fd: int | None
    status: int | None = None  # wait status, once it is reaped

    @property
    def alive(self) -> bool:
        """Whether this very process lives."""
        return same_process(self.process)

    def reap(self) -> None:
        """Takes its wait status, once it is dead."""
        if self.is_child and self.status is None:
            pid, status = os.waitpid(self.process.pid, os.WNOHANG)
            self.status = status if pid else None


class HeldQemus:
    """One guardian's, oldest first."""

    def __init__(self, run_folder: Path) -> None:
        self._state_file = run_folder / STATE_FILE
        self._held: dict[int, HeldQemu] = {}

    def __iter__(self) -> Iterator[HeldQemu]:
        return iter(tuple(self._held.values()))

    def __len__(self) -> int:
        return len(self._held)

    def live(self) -> list[HeldQemu]:
        """Those that live now."""
        return [qemu for qemu in self._held.values() if qemu.alive]

    def adopt(self) -> None:
        """Finds the QEMUs of a guardian that died."""
        for entry in read_json(self._state_file).get("qemus", []):
            process = QemuProcess(**{**entry["process"], "argv": tuple(entry["process"]["argv"])})
            if start_ticks(process.pid) != process.start_ticks:
                continue
            ram_fd = _reopen_ram(process.pid, entry["fds"].get(RAM))
            self._held[process.pid] = HeldQemu(
                process, ProcessWatch(process), is_child=False, fd_numbers=entry["fds"], ram_fd=ram_fd
            )

    def write_state(self) -> None:
        """`run/qemu.json`, replaced whole. It need not survive the host, only us."""
        entries = [{"process": asdict(qemu.process), "fds": dict(qemu.fd_numbers)} for qemu in self._held.values()]
        write_json(self._state_file, {"qemus": entries})

    def spawn(self, request: Message, fds: list[int]) -> Message:
        """Starts a QEMU in its own session with exactly these descriptors; it executes once the state file names it."""
        numbers = dict(zip(request["fds"], fds, strict=True))
        argv = [_with_numbers(argument, numbers) for argument in request["argv"]]
        stderr_fd = os.open(request["stderr"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        go_read, go_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(go_write)
            _become(argv, fds, stderr_fd=stderr_fd, go_fd=go_read)
        os.close(go_read)
        os.close(stderr_fd)
        try:
            process = QemuProcess(
                pid=pid,
                start_ticks=start_ticks(pid) or 0,
                label=request["label"],
                ram_bytes=request["ram_bytes"],
                argv=tuple(argv),
            )
            ram_fd = numbers.get(RAM)
            self._held[pid] = HeldQemu(process, ProcessWatch(process), is_child=True, fd_numbers=numbers, ram_fd=ram_fd)
            self.write_state()
            os.write(go_write, b"g")
        finally:
            os.close(go_write)  # without the byte the child leaves
        close_all([fd for fd in fds if fd != ram_fd])
        return {"process": asdict(process)}

    def forget(self, pid: int) -> None:
        """Lets go of a dead one and its RAM. Raises KeyError, StateError while it lives."""
        qemu = self._held[pid]
        if qemu.alive:
            raise StateError(
                f"QEMU {qemu.process.label} (pid {qemu.process.pid})", "still lives", "end it before it is forgotten"
            )
        qemu.reap()
        del self._held[pid]
        close_all([] if qemu.ram_fd is None else [qemu.ram_fd])
        self.write_state()

    def described(self) -> tuple[Message, list[int]]:
        """All of them as an answer, and their RAM's descriptors."""
        return {"qemus": [_described(qemu) for qemu in self]}, [qemu.ram_fd for qemu in self if qemu.ram_fd is not None]


def _described(qemu: HeldQemu) -> Message:
    qemu.reap()
    return {"process": asdict(qemu.process), "alive": qemu.alive, "status": qemu.status, "has_ram": qemu.ram_fd is not None}


def _with_numbers(argument: str, numbers: Mapping[str, int]) -> str:
    for name, number in numbers.items():
        argument = argument.replace(f"{{fd:{name}}}", str(number))
    return argument


def _become(argv: list[str], fds: Sequence[int], *, stderr_fd: int, go_fd: int) -> NoReturn:
    """The child's side of the fork: waits for the word, and becomes QEMU."""
    try:
        if os.read(go_fd, 1) != b"g":
            os._exit(127)
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (*SIGNALS, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, wanted in ((null, 0), (stderr_fd, 1), (stderr_fd, 2)):
            os.dup2(source, wanted)
        for fd in [int(name) for name in os.listdir("/proc/self/fd")]:  # noqa: PTH208 - numbers, not paths
            if fd in fds:
                os.set_inheritable(fd, True)
            elif fd > 2:
                with contextlib.suppress(OSError):  # the listing's own
                    os.close(fd)
        os.execvp(argv[0], argv)  # noqa: S606 - an argument list of ours
    except BaseException as error:  # the parent's code must never go on in the child
        os.write(2, f"cannot start {argv[:1]}: {error}\n".encode())
    finally:
        os._exit(127)


def _reopen_ram(pid: int, number: int | None) -> int | None:
    path = Path(f"/proc/{pid}/fd/{number}")
    with contextlib.suppress(OSError):  # it died meanwhile
        if number is not None and str(path.readlink()).startswith("/memfd:"):
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    return None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replaces the file whole, for this boot."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(json.dumps({**content, "boot_id": boot_id()}))
    fresh.rename(path)


def read_json(path: Path) -> dict[str, Any]:
    """What an earlier guardian of this boot wrote; {} when there is nothing whole."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if content.pop("boot_id", "") == boot_id() else {}
