"""The agent of one VM: what it holds while the VM is there.

How it begins is in `beginning`, what people ask of it in `control`; a guest comes in by `entrance` and leaves by `exit`.

What is remembered where: the definition in its file; who owns the guest in the owner record; epochs in the journal; what this
runner runs in `run/vm.json` (for a successor of this agent); how the VM ended in `state.json` beside the definition.
"""

import asyncio
import contextlib
import json
import logging
import os
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from teleport.errors import BusyError, GuestLostError, HypervisorError, StateError, TeleportError
from teleport.host.guest import QmpGuest
from teleport.host.monitors import QemuGoneError
from teleport.host.process import usable_accelerator
from teleport.machines.definition import Definition
from teleport.machines.store import VmPaths
from teleport.model import GuestIdentity, VmState
from teleport.runner.display import Display
from teleport.runner.epochs import prune
from teleport.runner.guardian_client import GuardianClient
from teleport.runner.launch import Launched, Launcher
from teleport.runner.memory import Doing, Memory, Remembered
from teleport.runner.news import News
from teleport.runner.ownership import Record, record_at, set_free
from teleport.runner.source import SourceTeleport
from teleport.runner.state import StateFile
from teleport.runner.target import WaitingTarget
from teleport.runner.usb import RemoteUsb
from teleport.runner.vm import RunningVm
from teleport.wire.transfer_server import TransferServer

log = logging.getLogger(__name__)

MAIN = "main"
_POWEROFF_SECONDS = 5.0


@dataclass(frozen=True)
class AgentOptions:
    """How the runner was started."""

    home: Path
    paths: VmPaths
    insecure: bool = False
    take_over: bool = False
    display: bool | None = None  # overrules the definition's --vrde


class Agent:
    """One VM's agent. `run` returns the runner's exit code when the VM is over."""

    def __init__(self, definition: Definition, options: AgentOptions, guardian: GuardianClient, *, runtime: Path) -> None:
        self.definition = definition
        self.options = options
        self.runtime = runtime
        self.news = News()
        self.say, self.tell = self.news.say, self.news.tell
        self.memory = Memory(runtime)
        self.state = StateFile(options.paths.folder / "state.json")
        self.display = Display(definition, options.paths, home=options.home, enabled=options.display, say=self.say)
        self.usb = RemoteUsb(definition, self.display, say=self.say, may_change=lambda: self.is_idle)
        self.waiting: WaitingTarget | None = None
        self.teleport: SourceTeleport | None = None
        self.departing: asyncio.Task[None] | None = None  # the same, to its very end
        self.vm: RunningVm | None = None
        self.guardian = guardian
        self._over: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.server: TransferServer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.shutdown_reason = ""
        self.saving: asyncio.Future[None] | None = None
        self.changing = ""  # the verb that is changing the running machine just now
        self.launcher: Launcher
        self.record: Record

    # ------------------------------------------------------------------ beginning and end
    async def run(self, begin: "Callable[[Agent], Awaitable[None]]") -> int:
        """Begins (`teleport.runner.beginning`), and returns the exit code when the VM is over."""
        accelerator = await asyncio.to_thread(usable_accelerator, self._wanted_accelerator(), cache=self.options.home)
        self.launcher = Launcher(
            self.definition,
            self.options.paths,
            self.guardian,
            home=self.options.home,
            runtime=self.runtime,
            accelerator=accelerator,
            say=self.say,
        )
        self.record = record_at(self.launcher.record_folder, self.launcher.owner(""))
        prune(self.options.paths.journal)
        await begin(self)
        await self.guardian.ready()
        try:
            code = await self._over
            await self.display.end("the VM is over")
            return code
        except TeleportError as error:
            await self.display.end(str(error))
            raise
        finally:
            await self._stop_everything()

    def _wanted_accelerator(self) -> str:
        own = self.definition.machine.accelerator
        return os.environ.get("TELEPORT_ACCELERATOR", "auto") if own == "auto" else own

    async def _stop_everything(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.server:
            await self.server.stop()
        if self.vm:
            await self.vm.guest.close()
        self.news.end()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Work that lives as long as the agent; its failure is the agent's."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task)
        return task

    def _on_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("agent: %s", error, exc_info=error)
            if not self._over.done():
                self._over.set_exception(error)

    def end(self, state: VmState, detail: str = "", *, code: int = 0) -> None:
        """The VM is over: `run` returns. The first word stands: QEMU's death is seen a moment later than the end that it was part of."""
        if self._over.done() and not self._over.exception():
            return
        self.state.beside = {}
        self.state.set(state, detail)
        self.say(f"VM {self.definition.name}: {state.value} {detail}".rstrip())
        if not self._over.done():
            self._over.set_result(code)

    # ------------------------------------------------------------------ a VM that runs
    def runs(self, launched: Launched, guest: QmpGuest, *, generation: int, identity: GuestIdentity) -> RunningVm:
        """This QEMU is the VM from now on: remembered, and watched."""
        self.vm = RunningVm(
            definition=self.definition,
            paths=self.options.paths,
            runtime=launched.folder,
            guest=guest,
            ram_fd=launched.ram_fd,
            identity=identity,
            record=self.record,
            generation=generation,
            me=self.launcher.owner(uuid.uuid4().hex),
            display=self.display,
            usb=self.usb,
        )
        self.remember()
        self.spawn(self._watch_events(guest))
        self.spawn(self._watch_death(guest))
        self.spawn(self.display.watch())
        self.spawn(self.usb.watch(guest))
        return self.vm

    def set_state(self, state: VmState, detail: str = "") -> None:
        """A state with where the display is, for whoever looks while no runner answers."""
        self.state.beside = self.display.properties()
        self.state.set(state, detail)

    async def state_of(self, guest: QmpGuest) -> VmState:
        """Running or paused, by QEMU's word."""
        return VmState.RUNNING if await guest.status() == "running" else VmState.PAUSED

    async def _watch_events(self, guest: QmpGuest) -> None:
        async for event in guest.events("SHUTDOWN", "RESET", "GUEST_PANICKED", "POWERDOWN"):
            name = str(event["event"])
            self.say(f"guest: {name.lower()} {json.dumps(dict(event.get('data', {})))}")
            if name == "SHUTDOWN":
                self.shutdown_reason = str(event["data"].get("reason", "guest-shutdown"))

    async def _watch_death(self, guest: QmpGuest) -> None:
        words = await guest.wait_dead()
        await asyncio.sleep(0.05)  # the last event is read just behind the death
        if self.teleport and not self.clean_shutdown:
            return  # the handover knows what that means
        if self.options.paths.saved.is_dir():
            self.memory.forget()
            self.end(VmState.SAVED)
        elif self.clean_shutdown:
            await self.set_free()
            self.memory.forget()
            by_us = self.shutdown_reason == "host-qmp-quit"
            self.end(VmState.POWEROFF, "powered off" if by_us else "the guest shut itself down")
        else:
            self.memory.forget()
            self.end(VmState.ABORTED, f"QEMU died: {words}", code=GuestLostError.exit_code)

    @property
    def clean_shutdown(self) -> bool:
        """The guest, or a person, has ended the machine on purpose."""
        return self.shutdown_reason in ("guest-shutdown", "host-qmp-quit", "host-ui", "guest-reset")

    async def set_free(self) -> None:
        """Nobody owns the guest any more: it ended cleanly."""
        if self.vm and self.vm.generation:
            await set_free(self.record, self.vm.generation)

    async def drop(self, launched: Launched | None, guest: QmpGuest | None) -> None:
        """Ends a QEMU that did not get as far as running its guest; its death means nothing."""
        watching = tuple(self._tasks)
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        self.vm = None
        self.memory.forget()
        if guest and launched:
            await guest.kill()
            await guest.close()
            await self.launcher.forget(launched)
        elif launched:
            await self.kill(launched)

    async def kill(self, launched: Launched) -> None:
        """Ends a QEMU that is not the VM's (any more)."""
        with contextlib.suppress(TeleportError):
            guest = await self.launcher.connect(launched)
            await guest.kill()
            await guest.close()
        await self.launcher.forget(launched)

    # ------------------------------------------------------------------ what the verbs need
    @property
    def teleporter_port(self) -> int:
        """The bound one; 0 when nothing waits."""
        return self.server.port if self.server else 0

    def running(self, what: str) -> RunningVm:
        """The VM. Raises StateError when nothing runs."""
        if self.vm is None:
            raise StateError(what, f"VM {self.definition.name!r} is not running")
        return self.vm

    @property
    def is_idle(self) -> bool:
        """Neither a teleport nor a save needs the guest as it is."""
        return self.teleport is None and (self.saving is None or self.saving.done())

    def require_idle(self, action: str) -> None:
        """Raises BusyError while a teleport or a save needs the guest as it is."""
        if self.teleport:
            raise BusyError(action, "a teleport is under way", "wait for its end, or controlvm NAME teleport-cancel")
        if self.saving and not self.saving.done():
            raise BusyError(action, "its state is being saved", "wait for its end")
        if self.changing:
            raise BusyError(action, f"the VM is being changed ({self.changing})", "try again when that is done")

    def changed(self, definition: Definition) -> None:
        """The definition of a VM that runs is another one now, and its machine with it."""
        self.definition = self.launcher.definition = definition
        if self.vm:
            self.vm.definition = definition

    async def power_off(self, vm: RunningVm) -> None:
        """Pulls the plug; `_watch_death` sees to the rest."""
        self.shutdown_reason = "host-qmp-quit"
        try:
            async with asyncio.timeout(_POWEROFF_SECONDS):
                with contextlib.suppress(QemuGoneError):
                    await vm.guest.execute("quit")
                await vm.guest.wait_dead()
        except (TimeoutError, HypervisorError):
            await vm.guest.kill()

    def remember(self, *, doing: Doing = "", runs: bool = True) -> None:
        """For a successor: what runs, and what is being done with it."""
        assert self.vm is not None
        self.memory.write(
            Remembered(
                label=self.vm.guest.process.label,
                generation=self.vm.generation,
                smbios_uuid=self.vm.identity.smbios_uuid,
                macs=self.vm.identity.macs,
                doing=doing,
                runs=runs,
            )
        )
