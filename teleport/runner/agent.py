"""The agent of one VM: what it holds while the VM is there. How it begins is in `beginning`, what people ask of it in `control`.

What is remembered where: the definition in its file; who owns the guest in the owner record; epochs in the journal; what this
runner runs in `run/vm.json` (for a successor of this agent); how the VM ended in `state.json` beside the definition.
"""

import asyncio
import contextlib
import json
import logging
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from teleport.errors import BusyError, GuestLostError, HypervisorError, StateError, TeleportError
from teleport.host.guest import QemuGoneError, QmpGuest
from teleport.host.process import usable_accelerator
from teleport.machines.definition import Definition
from teleport.machines.store import VmPaths
from teleport.machines.text import parse_definition
from teleport.model import GuestIdentity, Outcome, OutcomeKind, Progress, VmState
from teleport.runner.arrival import Arrived
from teleport.runner.display import Display
from teleport.runner.epochs import prune
from teleport.runner.forwards import open_forwarded_ports
from teleport.runner.guardian_client import GuardianClient
from teleport.runner.launch import Launched, Launcher
from teleport.runner.memory import Doing, Memory, Remembered
from teleport.runner.ownership import Record, record_at, set_free
from teleport.runner.source import SourceTeleport
from teleport.runner.state import StateFile
from teleport.runner.target import WaitingTarget
from teleport.runner.usb import RemoteUsb
from teleport.runner.vm import RunningVm, TeleportOrder
from teleport.wire.control_server import Event
from teleport.wire.transfer_server import TransferServer

log = logging.getLogger(__name__)

MAIN = "main"
News = asyncio.Queue[Event | None]
_LINGER_SECONDS = 60.0  # how long a port stays open for a source that has not closed the session
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
        self.memory = Memory(runtime)
        self.state = StateFile(options.paths.folder / "state.json")
        self.display = Display(definition, options.paths, home=options.home, enabled=options.display, say=self.say)
        self.usb = RemoteUsb(definition, self.display, say=self.say, may_change=lambda: self.is_idle)
        self.waiting: WaitingTarget | None = None
        self.teleport: SourceTeleport | None = None
        self.departing: asyncio.Task[None] | None = None  # it, to its very end
        self.vm: RunningVm | None = None
        self.guardian = guardian
        self._over: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.server: TransferServer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._listeners: set[News] = set()
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

    async def wait_for_guest(self) -> None:
        """Opens the teleporter's port. Raises BusyError, UsageError."""
        self.waiting = WaitingTarget(
            self.launcher,
            self.display,
            renew=self._renew,
            arrived=self._on_arrival,
            changed=self._on_session,
            addresses=lambda: self.server.addresses if self.server else (),
        )
        self.server = await self._open_port(self.waiting)
        self.spawn(self.waiting.watch_silence())
        self.state.set(VmState.TELEPORTING_IN, f"waits at port {self.server.port}", teleporterport=self.server.port)
        self.say(f"waiting for a teleport at port {self.server.port}")

    def _renew(self) -> Record:
        """The definition as it is now (a waiting VM's may change), and the owner record that follows from it."""
        path = self.options.paths.definition
        self.definition = self.launcher.definition = parse_definition(path.read_bytes(), path)
        self.record = record_at(self.launcher.record_folder, self.launcher.owner(""))
        self.display.renew(self.definition)
        self.usb.renew(self.definition)
        return self.record

    async def _open_port(self, waiting: WaitingTarget) -> TransferServer:
        """The definition's port; for 0 the one that a predecessor had, where its source still looks for it, else a free one."""
        teleporter = self.definition.teleporter
        known = self.runtime / "teleporter.port"
        predecessors = int(known.read_text()) if not teleporter.port and known.exists() else 0
        for port in dict.fromkeys((predecessors or teleporter.port, teleporter.port)):
            server = TransferServer(waiting, address=teleporter.address, port=port, insecure=self.options.insecure)
            try:
                await server.start()
            except BusyError:
                if port == teleporter.port:
                    raise
                continue
            known.write_text(str(server.port))
            return server
        raise AssertionError("the last port is the definition's, and it raises")

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
        self.launcher.let_network_go()
        for listener in self._listeners:
            listener.put_nowait(None)

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
        if self.teleport and not self._clean_shutdown:
            return  # the handover knows what that means
        if self.options.paths.saved.is_dir():
            self.memory.forget()
            self.end(VmState.SAVED)
        elif self._clean_shutdown:
            await self._set_free()
            self.memory.forget()
            by_us = self.shutdown_reason == "host-qmp-quit"
            self.end(VmState.POWEROFF, "powered off" if by_us else "the guest shut itself down")
        else:
            self.memory.forget()
            self.end(VmState.ABORTED, f"QEMU died: {words}", code=GuestLostError.exit_code)

    @property
    def _clean_shutdown(self) -> bool:
        return self.shutdown_reason in ("guest-shutdown", "host-qmp-quit", "host-ui", "guest-reset")

    async def _set_free(self) -> None:
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

    # ------------------------------------------------------------------ a guest that arrives
    def _on_session(self, text: str) -> None:
        self.say(text)

    async def _on_arrival(self, arrived: Arrived) -> None:
        self.runs(arrived.launched, arrived.guest, generation=arrived.generation, identity=arrived.identity)
        await self.display.arrived(self.launcher.screens(arrived.launched), arrived.display)  # viewers are waiting
        self.spawn(open_forwarded_ports(arrived.guest, lambda: self.definition, self.say))
        self.set_state(VmState.PAUSED if arrived.paused else VmState.RUNNING, "teleported here")
        self.say("the guest arrived")
        self.tell(Outcome(kind=OutcomeKind.MOVED, message="the guest arrived", target_qemu_pid=arrived.launched.process.pid))
        self.spawn(self._close_port_later())

    async def _close_port_later(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                if self.waiting:
                    await self.waiting.closed.wait()
        if self.server:
            await self.server.stop()
            self.server = None
        self.waiting = None

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

    # ------------------------------------------------------------------ teleporting
    async def begin_teleport(self, order: TeleportOrder) -> SourceTeleport:
        """Starts one. Raises StateError when nothing runs, BusyError when one is under way."""
        vm = self.running("teleport")
        if self.teleport:
            raise BusyError(
                "teleport", f"VM {self.definition.name!r} is already teleporting", "controlvm NAME teleport-cancel ends it"
            )
        self.require_idle("teleport")
        before = self.state.read()[0]
        if before not in (VmState.RUNNING, VmState.PAUSED):
            raise StateError("teleport", f"VM {self.definition.name!r} must be Running or Paused", f"it is {before.value}")
        self.teleport = SourceTeleport(vm, order, epoch=uuid.uuid4().hex, emit=self.say)
        self.state.set(VmState.TELEPORTING, f"to {order.host}:{order.port}")
        self.follow(self.teleport, self.teleport.run())
        return self.teleport

    def follow(self, teleport: SourceTeleport, work: Coroutine[Any, Any, Outcome]) -> None:
        """In the background, until nothing of it is left to decide."""
        self.departing = self.spawn(self._follow(teleport, work))

    async def _follow(self, teleport: SourceTeleport, work: Coroutine[Any, Any, Outcome]) -> None:
        """One teleport to its very end, also beyond the moment when a person was told that it is in doubt."""
        doubt = asyncio.ensure_future(self._show_early_word(teleport))
        try:
            outcome = await work
        except GuestLostError as error:
            self.say(str(error))
            self.memory.forget()
            if self._clean_shutdown:
                await self._set_free()
                self.end(VmState.POWEROFF, "the guest was shut down while it teleported")
            else:
                self.end(VmState.ABORTED, str(error), code=error.exit_code)
            return
        except TeleportError as error:
            self.say(f"not teleported: {error}")
            await self._back(error)
            return
        finally:
            doubt.cancel()
            self.teleport = None
        if outcome.kind is OutcomeKind.MOVED:
            self.memory.forget()
            where = f"{outcome.target_vm} at {outcome.target}"
            self.end(VmState.TELEPORTED, f"to {where}")
        else:
            await self._back(None)

    async def _back(self, error: TeleportError | None) -> None:
        if self.vm is None:
            return
        with contextlib.suppress(HypervisorError):
            self.state.set(await self.state_of(self.vm.guest), f"not teleported: {error}" if error else "")
        self.remember()

    async def _show_early_word(self, teleport: SourceTeleport) -> None:
        """What a person is told of a teleport that does not come to its end."""
        try:
            outcome = await asyncio.shield(teleport.outcome)
        except TeleportError as error:
            self.state.set(VmState.TELEPORTING, str(error))  # overwritten at once where it is the end
            return
        if outcome.kind is OutcomeKind.IN_DOUBT:
            self.state.set(VmState.IN_DOUBT, outcome.message)
            self.say(f"in doubt: {outcome.message}")

    # ------------------------------------------------------------------ telling those who watch
    def say(self, news: Progress | str) -> None:
        """Into the log, and to those who watch."""
        if isinstance(news, str):
            log.info("%s", news)
        self.tell(news)

    def tell(self, news: Event) -> None:
        """To those who watch."""
        for listener in self._listeners:
            listener.put_nowait(news)

    @contextlib.asynccontextmanager
    async def listen(self) -> AsyncIterator[News]:
        """A queue of everything that happens meanwhile; None comes when the VM is over."""
        queue: News = asyncio.Queue()
        self._listeners.add(queue)
        try:
            yield queue
        finally:
            self._listeners.discard(queue)
