"""One host with one VM: a home, the VM's serial lines, and the commands of the manual. Two of them play a teleport."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.harness.guest import Load, guest_image
from tests.harness.home import CommandFailedError, Home, Ran
from tests.harness.ticker import SocketServer


def _silent(line: str) -> None:
    del line


class Host:
    """A home with the VM `name` in it. `announce` is told each command before it runs."""

    def __init__(self, name: str, home: Home, *, announce: Callable[[str], None] = _silent) -> None:
        self.name = name
        self.home = home
        self.serial = home.folder / f"{name}.ttyS1"
        self.console_log = home.folder / f"{name}.console.log"
        self._announce = announce

    @property
    def endpoint(self) -> SocketServer:
        """Where this host's guest speaks; its name is the VM's."""
        return SocketServer(self.serial, self.name)

    @property
    def state(self) -> str:
        """The VM's VMState."""
        return self.home.info(self.name)["VMState"]

    def run(self, *arguments: str | Path | int, check: bool = True, timeout_seconds: float = 180) -> Ran:
        """One `teleport` command of this host."""
        words = [str(each) for each in arguments]
        self._announce(f"{self.name}$ teleport {shlex.join(words)}")
        return self.home.teleport(*words, check=check, timeout_seconds=timeout_seconds)

    def define(self, *, load: Load, memory_mb: int = 256, disk: Path | None = None, options: tuple[str, ...] = ()) -> None:
        """Creates the VM: the test guest, virtio disk and NIC, console in a file, its line protocol on a unix socket.

        `disk` is made when it isn't there; `options` go to the last `modifyvm`.
        """
        image = guest_image()
        name = self.name
        self.run("createvm", "--name", name, "--ostype", "Linux26_64", "--register")
        self.run("modifyvm", name, "--memory", memory_mb, "--acpi", "on", "--nic1", "nat", "--nictype1", "virtio")
        self.run("modifyvm", name, "--kernel", image.kernel, "--initrd", image.initrd, "--append", load.command_line())
        console = ("--uart1", "0x3F8", 4, "--uartmode1", "file", self.console_log)
        self.run("modifyvm", name, *console, "--uart2", "0x2F8", 3, "--uartmode2", "server", self.serial, *options)
        if disk:
            self.attach(disk)

    def attach(self, disk: Path) -> None:
        """A virtio controller with this disk, which is made when it isn't there."""
        if not disk.exists():
            self.run("createhd", "--filename", disk, "--size", 64)
        self.run("storagectl", self.name, "--name", "Disks", "--add", "virtio")
        place = ("--storagectl", "Disks", "--port", 0, "--device", 0, "--type", "hdd")
        self.run("storageattach", self.name, *place, "--medium", disk)

    def start(self, *options: str) -> None:
        """Starts the VM; returns when it runs."""
        self.run("startvm", self.name, "--type", "headless", *options)

    def wait_for_teleport(self, *options: str) -> int:
        """Starts the VM as a target that waits, with these options of `startvm`; the port that it listens on."""
        self.run("modifyvm", self.name, "--teleporter", "on", "--teleporterport", 0)
        self.start(*options)
        return int(self.home.info(self.name)["teleporterport"])

    def teleport(self, port: int, *options: str, host: str = "localhost", timeout_seconds: float = 180) -> dict[str, Any]:
        """Teleports the VM to whoever waits on `port`, and returns the outcome of `--json`. CommandFailedError when it failed."""
        ran = self.run(
            "controlvm",
            self.name,
            "teleport",
            "--host",
            host,
            "--port",
            port,
            "--json",
            *options,
            timeout_seconds=timeout_seconds,
        )
        return outcome_of(ran)


def outcome_of(ran: Ran) -> dict[str, Any]:
    """The outcome among the events of `--json`, one a line. CommandFailedError when there is none."""
    for line in reversed(ran.out.splitlines()):
        event = json.loads(line)
        for candidate in (event.get("outcome"), event):
            if isinstance(candidate, dict) and "target_qemu_pid" in candidate:
                return candidate
    raise CommandFailedError(f"--json told no outcome:\n{ran.out}\n{ran.err}")
