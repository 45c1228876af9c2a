"""A TELEPORT_HOME of a test's own: commands run in it, and nothing of it outlives the test.

Two homes on one machine play two hosts. Everything that a home starts carries its path in the environment, and that is how it is
found again: no process is ended by its name.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tests.harness.commands import Commands
from tests.harness.guest import REPOSITORY
from tests.harness.session import new_folder

TELEPORT = REPOSITORY / ".venv/bin/teleport"


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str


def end_on_sigterm() -> None:
    """Makes a time-out's or a session's SIGTERM end this program as Ctrl-C does: through its `finally`, which ends its homes."""

    def leave(number: int, frame: object) -> None:
        del frame
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)


class CommandFailedError(Exception):
    """A command that was to succeed did not; says all that it said."""


class Home:
    """One state folder, as one host has it. `folder` is short: unix socket paths end at 107 characters.

    `enter` goes before each command, for a home in a namespace of its own. `commands`, where it is set, runs the others.
    """

    commands: ClassVar[Commands | None] = None

    def __init__(self, name: str = "h", *, enter: tuple[str, ...] = ()) -> None:
        self._enter = enter
        self.folder = new_folder(f"tp-{name}-")
        # The runtime folder goes into the home too, so that two homes share nothing and what is left over is seen.
        self.runtime = self.folder / "run"
        self.runtime.mkdir(mode=0o700)
        self.environment = {
            **os.environ,
            "TELEPORT_HOME": str(self.folder),
            "TELEPORT_ACCELERATOR": os.environ.get("TELEPORT_ACCELERATOR", "tcg"),
            "XDG_RUNTIME_DIR": str(self.runtime),
        }

    def teleport(
        self, *arguments: str | Path | int, check: bool = True, timeout_seconds: float = 120, program: str = "teleport"
    ) -> Ran:
        """Runs `teleport ARGUMENTS` in this home. CommandFailedError unless it ends with 0 (or `check` is off)."""
        argv = [*self._enter, str(TELEPORT.with_name(program)), *(str(each) for each in arguments)]
        with self._output() as (out, err):
            # Files, not pipes: a runner that keeps the command's output open must not keep us waiting for its end.
            if self.commands and program == "teleport" and not self._enter:
                code = self.commands.run(
                    argv[1:], environment=self.environment, out=out, err=err, timeout_seconds=timeout_seconds
                )
            else:
                code = subprocess.run(
                    argv,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    timeout=timeout_seconds,
                    check=False,
                ).returncode
            ran = Ran(code, self._said(out), self._said(err))
        if check and ran.code:
            raise CommandFailedError(f"{' '.join(argv)}\nended with {ran.code}\n{ran.out}\n{ran.err}\n{self.logs()}")
        return ran

    def start(self, *arguments: str | Path | int, program: str = "teleport") -> "subprocess.Popen[str]":
        """Starts a command that the test wants to interrupt or watch; its output comes through pipes."""
        argv = [*self._enter, str(TELEPORT.with_name(program)), *(str(each) for each in arguments)]
        return subprocess.Popen(
            argv, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def info(self, name: str) -> dict[str, str]:
        """`showvminfo NAME --machinereadable` as a dictionary, quotes taken off."""
        lines = self.teleport("showvminfo", name, "--machinereadable").out.splitlines()
        return {key.strip('"'): value.strip('"') for key, _, value in (line.partition("=") for line in lines if "=" in line)}

    def processes(self) -> dict[int, str]:
        """The processes of this home that live: pid → command line. Zombies don't count."""
        marks = (f"TELEPORT_HOME={self.folder}".encode(), str(self.folder).encode())
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):  # gone meanwhile, or not ours to read
                environment = (entry / "environ").read_bytes().split(b"\0")
                command_line = (entry / "cmdline").read_bytes()
                if marks[0] in environment or marks[1] in command_line:
                    found[int(entry.name)] = command_line.replace(b"\0", b" ").decode(errors="replace")
        return found

    def qemus(self) -> list[int]:
        """The pids of this home's QEMUs."""
        return [
            pid for pid, command in self.processes().items() if Path(command.split(" ", 1)[0]).name.startswith("qemu-system")
        ]

    def ports(self) -> set[int]:
        """The TCP ports that processes of this home listen on."""
        inodes = {inode for pid in self.processes() for inode in _socket_inodes(pid)}
        return {port for port, inode in _listening() if inode in inodes}

    def logs(self) -> str:
        """The ends of this home's log files, for a failed test's message."""
        parts = []
        for path in sorted(self.folder.rglob("*")):
            if path.suffix in (".log", ".stderr", ".err") or path.name == "stderr":
                with contextlib.suppress(OSError):
                    parts.append(f"--- {path.relative_to(self.folder)}\n{path.read_text(errors='replace')[-3000:]}")
        return "\n".join(parts)

    def leftovers(self, timeout_seconds: float = 10) -> list[str]:
        """What still lives once everything was powered off: processes, ports, runtime folders. Waits for those that are ending."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            left = [f"process {pid}: {command[:200]}" for pid, command in self.processes().items()]
            left += [f"port {port}" for port in self.ports()]
            left += [f"folder {path}" for path in self.runtime.glob("teleport/*")]
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.05)

    def end(self) -> None:
        """Ends all processes of this home and removes it. AssertionError when something of it cannot be ended."""
        deadline = time.monotonic() + 20
        ports = self.ports()
        # Again and again: a guardian that is killed after its agent may have started another one.
        while alive := self.processes():
            for pid in alive:
                with contextlib.suppress(ProcessLookupError):
                    descriptor = os.pidfd_open(pid)
                    try:
                        # The pid may be someone else's by now: look again while the descriptor holds it.
                        if pid in self.processes():
                            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                    finally:
                        os.close(descriptor)
            if time.monotonic() > deadline:
                raise AssertionError(f"processes that cannot be ended: {alive}")
            time.sleep(0.02)
        # A killed process is a zombie a moment before its sockets are closed.
        while (still := ports & {port for port, _ in _listening()}) and time.monotonic() < deadline:
            time.sleep(0.02)
        shutil.rmtree(self.folder)
        if still:
            raise AssertionError(f"ports of {self.folder} that are still listened on: {still}")

    @contextlib.contextmanager
    def _output(self) -> "Iterator[tuple[int, int]]":
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            yield out.fileno(), err.fileno()

    @staticmethod
    def _said(descriptor: int) -> str:
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")


def _socket_inodes(pid: int) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if match := re.fullmatch(r"socket:\[(\d+)\]", str(link.readlink())):
                    yield match[1]


def _listening() -> Iterator[tuple[int, str]]:
    """(port, inode) of each listening TCP socket of this network namespace: /proc/net/tcp, state 0A."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A":
                    yield int(fields[1].rpartition(":")[2], 16), fields[9]
