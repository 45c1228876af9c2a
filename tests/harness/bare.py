"""Bare QEMUs for tests and benches: what stock QEMU does, without a line of ours in between."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.harness.guest import GuestImage, Load
from tests.harness.session import new_folder
from tests.harness.ticker import SocketServer


class QmpError(Exception):
    """QEMU refused a command."""


class BareQemu:
    """One stock QEMU booting the test guest, its ttyS1 on a unix socket (or in `serial_file`).

    A context manager that leaves nothing behind.
    `incoming` starts it as a migration target; `prefault` touches all of its RAM first, as ours does (cold pages cost as much as
    the copy).
    """

    def __init__(
        self,
        image: GuestImage,
        *,
        name: str = "bare",
        machine: str = "pc",
        memory_mb: int = 256,
        load: Load | None = None,
        extra: Sequence[str] = (),
        incoming: bool = False,
        prefault: bool = False,
        serial_file: Path | None = None,
    ) -> None:
        self.name = name
        self.folder = new_folder("bare-")
        self.serial = self.folder / "ttyS1"
        self.console_log = self.folder / "console.log"
        socket_backend = f"socket,id=c1,path={self.serial},server=on,wait=off"
        prealloc = ",prealloc=on" if prefault else ""
        self.argv = [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-vga", "none", "-no-reboot",
            "-machine", f"{machine},accel={os.environ.get('TELEPORT_ACCELERATOR', 'tcg')},memory-backend=ram0",
            "-object", f"memory-backend-ram,id=ram0,size={memory_mb}M{prealloc}", "-m", f"{memory_mb}M",
            "-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", (load or Load()).command_line(),
            "-chardev", f"file,id=c0,path={self.console_log}", "-serial", "chardev:c0",
            "-chardev", f"file,id=c1,path={serial_file},append=on" if serial_file else socket_backend, "-serial", "chardev:c1",
            "-qmp", f"unix:{self.folder / 'qmp'},server=on,wait=off",
            *(["-incoming", "defer"] if incoming else []), *extra,
        ]  # fmt: skip

    def __enter__(self) -> Self:
        self._errors = (self.folder / "stderr").open("wb")
        self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=self._errors, stderr=self._errors)
        try:
            self._connect()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        with contextlib.suppress(AttributeError):
            self._stream.close()
            self._socket.close()
        self._errors.close()
        shutil.rmtree(self.folder)

    @property
    def endpoint(self) -> SocketServer:
        """A new endpoint for this guest's ttyS1."""
        return SocketServer(self.serial, self.name)

    @property
    def errors(self) -> str:
        """QEMU's own words."""
        return (self.folder / "stderr").read_text(errors="replace")

    def qmp(self, command: str, **arguments: Any) -> Any:
        """One QMP command's `return`; underscores in names become dashes."""
        message = {"execute": command, "arguments": {key.replace("_", "-"): value for key, value in arguments.items()}}
        self._socket.sendall(json.dumps(message).encode() + b"\n")
        while True:
            answer = self._read()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise QmpError(f"{self.name}: {command}: {answer['error']['desc']}")

    def _connect(self) -> None:
        deadline = time.monotonic() + 20
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        while True:
            try:
                self._socket.connect(str(self.folder / "qmp"))
                break
            except (FileNotFoundError, ConnectionRefusedError) as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{self.name}: QEMU did not start: {self.errors}") from error
                time.sleep(0.01)
        self._stream = self._socket.makefile("rb")
        self._read()
        self.qmp("qmp_capabilities")

    def _read(self) -> dict[str, Any]:
        line = self._stream.readline()
        if not line:
            raise RuntimeError(f"{self.name}: QEMU is gone: {self.errors}")
        message: dict[str, Any] = json.loads(line)
        return message
