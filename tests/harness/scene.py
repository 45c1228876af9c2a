"""Two hosts, one guest that runs on one of them, and someone who listens: the stage on which teleports are tested.

A scene goes on from test to test (booting a guest takes seconds); what a test leaves out of order makes the next one begin anew.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from teleport.host.priority import threads_named
from tests.harness.guest import GuestConsole, Load
from tests.harness.home import Home
from tests.harness.host import Host
from tests.harness.proof import only_process
from tests.harness.session import new_folder

LOAD = Load(resident_mb=8, rewrite_mb=8, dirty_mb_s=4, disk=True)
MEMORY_MB = 160


class Scene:
    """`here` is where the guest runs, `there` where it goes next; `swap` after a move. A context manager that leaves nothing.

    `one_home`: both VMs in one state folder. `cd` is in a drive of both machines. `faults` arms fault points of a host's runners, also
    of those that run already.
    """

    def __init__(
        self,
        *,
        one_home: bool = False,
        load: Load = LOAD,
        memory_mb: int = MEMORY_MB,
        options: tuple[str, ...] = (),
        cd: Path | None = None,
    ) -> None:
        self.folder = new_folder("tp-scene-")
        self.disk = self.folder / "disk.qcow2"
        homes = [Home("s")]
        homes.append(homes[0] if one_home else Home("t"))
        self.homes = tuple(dict.fromkeys(homes))
        for home in self.homes:
            home.environment["TELEPORT_FAULTS"] = f"@{home.folder / 'faults'}"
        self.here, self.there = (Host(name, home) for name, home in zip("ST", homes, strict=True))
        self.console = GuestConsole(self.here.endpoint, self.there.endpoint)
        self.spoilt = False
        self._load, self._memory_mb, self._options = load, memory_mb, options
        self._cd = cd
        self._listening: set[str] = set()
        self._marks = 0

    def __enter__(self) -> Self:
        try:
            for host in (self.here, self.there):
                host.define(load=self._load, memory_mb=self._memory_mb, disk=self.disk, options=self._options)
                if self._cd:
                    host.run("storagectl", host.name, "--name", "IDE", "--add", "ide")
                    place = ("--storagectl", "IDE", "--port", 1, "--device", 0, "--type", "dvddrive")
                    host.run("storageattach", host.name, *place, "--medium", self._cd)
            self.console.__enter__()
            self.here.start()
            self.console.wait_ready(400)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(RuntimeError):  # never started
            self.console.__exit__(kind, error, trace)
        failures = []
        for home in self.homes:
            try:
                home.end()
            except AssertionError as left:
                failures.append(left)
        shutil.rmtree(self.folder)
        assert not failures, failures

    # ------------------------------------------------------------------ moving
    def wait_there(self) -> int:
        """Lets `there` wait for a teleport; the port."""
        if self.there.name not in self._listening:
            self.there.run("modifyvm", self.there.name, "--teleporter", "on", "--teleporterport", 0)
            self._listening.add(self.there.name)
        said = self.there.run("startvm", self.there.name, "--type", "headless").out
        return int(said.rstrip().rstrip(".").rsplit(" ", 1)[1])

    def forget_teleporter(self, host: Host) -> None:
        """The test switched this host's teleporter off: `wait_there` has to switch it on again."""
        self._listening.discard(host.name)

    def swap(self) -> None:
        """After a move."""
        self.here, self.there = self.there, self.here

    def move(self, *options: str, host: str = "localhost") -> dict[str, Any]:
        """There: waits, moves, and swaps. The outcome."""
        outcome = self.here.teleport(self.wait_there(), *options, host=host)
        self.swap()
        return outcome

    def begin(self, port: int, *options: str) -> "Teleporting":
        """A teleport that the test watches."""
        return Teleporting(self.here, port, *options)

    def runs_only_here(self, *, since_seconds: float) -> None:
        """The guest runs at `here` and nowhere else, and always was one guest: by its ticks, by /proc, by showvminfo."""
        last = self.console.last_tick
        tick = self.console.wait_for_tick(30, endpoint=self.here.name, after_counter=last.counter if last else -1, count=20)
        assert self.console.last_tick
        assert tick.endpoint == self.here.name
        assert self.console.active == self.here.name
        continuity = self.console.continuity(since_seconds)
        assert continuity.is_whole, str(continuity)
        assert not self.console.corruption
        assert self.here.state == "running"

    def only_process_here(self) -> int:
        """The pid of the one QEMU."""
        return only_process(self.there, self.here)

    def nobody_hurries(self) -> None:
        """The guest's QEMU takes its turns like anybody, and no agent has real-time turns any more."""
        qemu = self.only_process_here()
        for pid in (qemu, *self.agents(self.here), *self.agents(self.there)):
            for thread_id in threads_named(pid, ""):
                with contextlib.suppress(ProcessLookupError):
                    assert os.sched_getscheduler(thread_id) & ~os.SCHED_RESET_ON_FORK == os.SCHED_OTHER
                    assert pid != qemu or os.getpriority(os.PRIO_PROCESS, thread_id) == os.getpriority(os.PRIO_PROCESS, 0)

    # ------------------------------------------------------------------ faults
    def arm(self, host: Host, text: str) -> None:
        """Sets the fault points of all processes of this host, at once."""
        file = host.home.folder / "faults"
        fresh = file.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(file)

    def hold(self, host: Host, point: str) -> "Held":
        """The next process of `host` that comes to this point stops there until it is released."""
        self._marks += 1
        return Held(self, host, point, self.folder / f"mark{self._marks}")

    # ------------------------------------------------------------------ processes
    @staticmethod
    def agents(host: Host) -> list[int]:
        """The agents' pids."""
        return [pid for pid, command in host.home.processes().items() if command.split()[1:3] == ["-m", "teleport.runner"]]

    @staticmethod
    def guardians(host: Host) -> list[int]:
        """The guardians' pids."""
        return [
            pid for pid, command in host.home.processes().items() if command.split()[1:3] == ["-m", "teleport.runner.guardian"]
        ]


class Held:
    """A process that stops at a fault point. Released at the latest when the block ends; the point is disarmed then."""

    def __init__(self, scene: Scene, host: Host, point: str, mark: Path) -> None:
        self._scene, self._host, self._mark = scene, host, mark
        self._scene.arm(host, f"{point}=wait:{mark}")
        self.point = point

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def reached(self, timeout_seconds: float = 60) -> None:
        """Returns once a process stands there."""
        until(self._mark.exists, f"nobody came to {self.point}", timeout_seconds)

    def release(self) -> None:
        """Lets it go on, and nobody stops there any more."""
        self._scene.arm(self._host, "")
        self.go()

    def go(self) -> None:
        """Lets it go on; the fault points are as the test has set them meanwhile."""
        self._mark.unlink(missing_ok=True)


class Teleporting:
    """`controlvm NAME teleport --json` at work; its events are read as they come."""

    def __init__(self, host: Host, port: int, *options: str) -> None:
        self.events: list[dict[str, Any]] = []
        self._errors = ""
        self._more = threading.Condition()
        words = ["controlvm", host.name, "teleport", "--host", "localhost", "--port", str(port), "--json", *options]
        self.process: subprocess.Popen[str] = host.home.start(*words)
        self._readers = [threading.Thread(target=work, daemon=True) for work in (self._read, self._read_errors)]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join(10)
        for stream in (self.process.stdout, self.process.stderr):
            if stream:
                stream.close()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            with self._more:
                self.events.append(json.loads(line))
                self._more.notify_all()
        with self._more:
            self._more.notify_all()

    def _read_errors(self) -> None:
        assert self.process.stderr
        self._errors = self.process.stderr.read()

    def wait_for(self, seen: Callable[[dict[str, Any]], bool], timeout_seconds: float = 60) -> dict[str, Any]:
        """The first event that `seen` accepts. AssertionError with all events when none comes."""
        deadline = time.monotonic() + timeout_seconds
        with self._more:
            while True:
                for event in self.events:
                    if seen(event):
                        return event
                left = deadline - time.monotonic()
                assert left > 0, f"no such event: {self.events}"
                self._more.wait(min(left, 0.5))

    def copying(self) -> None:
        """Returns once bytes of the guest's memory travel."""
        self.wait_for(lambda event: event.get("stage") == "copying" and event["sent_bytes"] > 0)

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def end(self, timeout_seconds: float = 90) -> int:
        """The exit code."""
        code = self.process.wait(timeout_seconds)
        for reader in self._readers:
            reader.join(10)
        return code

    @property
    def error(self) -> str:
        """What it said on stderr, once it has ended."""
        return self._errors

    @property
    def outcome(self) -> dict[str, Any]:
        """Its outcome event."""
        return next(event for event in reversed(self.events) if event["event"] == "outcome")


class Stage:
    """Keeps a scene for several tests, and makes a new one where the last test left something out of order."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._scene: Scene | None = None

    def scene(self) -> Scene:
        """A scene whose guest runs at `here`, with nothing at `there`."""
        if self._scene and self._scene.spoilt:
            self.close()
        if self._scene is None:
            self._scene = Scene(**self._options).__enter__()
        self._scene.spoilt = True  # until the test has ended well
        return self._scene

    def done(self) -> None:
        """The test passed and the guest runs; a VM that still waits is powered off."""
        assert self._scene
        scene = self._scene
        for host in (scene.here, scene.there):
            scene.arm(host, "")
        if scene.guardians(scene.there) and len(scene.homes) == 2:
            scene.there.run("controlvm", scene.there.name, "poweroff", check=False)
        scene.spoilt = scene.console.active != scene.here.name or bool(len(scene.homes) == 2 and scene.there.home.processes())

    def close(self) -> None:
        """Ends it."""
        if self._scene:
            scene, self._scene = self._scene, None
            scene.__exit__(None, None, None)


def until(true: Callable[[], object], otherwise: str, timeout_seconds: float = 30) -> None:
    """Looks until it is true. AssertionError `otherwise`."""
    deadline = time.monotonic() + timeout_seconds
    while not true():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)


def kill_hard(pid: int) -> None:
    """kill -9 of a process that this test's home started."""
    os.kill(pid, signal.SIGKILL)
