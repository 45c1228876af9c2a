"""The agent of one VM: from its start (or its predecessor's end) to its own, and what people ask of it meanwhile.

What is remembered where: the definition in its file; who owns the guest in the owner record; epochs in the journal; what this
runner runs in `run/vm.json` (for a successor of this agent); how the VM ended in `state.json` beside the definition.
"""

import asyncio
import contextlib
import json
import logging
import os
import shlex
import uuid
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from teleport import __version__
from teleport.errors import BusyError, GuestLostError, HypervisorError, InDoubtError, StateError, TeleportError, UsageError
from teleport.host.guest import QemuGoneError, QmpGuest
from teleport.host.process import usable_accelerator
from teleport.machines import saved_state
from teleport.machines.definition import Definition
from teleport.machines.saved_state import SavedFacts
from teleport.machines.snapshots import require_settled
from teleport.machines.store import VmPaths
from teleport.model import GuestIdentity, Outcome, OutcomeKind, Progress, VmState
from teleport.runner.arrival import Arrival, Arrived
from teleport.runner.epochs import EpochJournal, SourcePrepared, TargetPrepared, prune, unfinished
from teleport.runner.forwards import open_forwarded_ports
from teleport.runner.guardian_client import GuardianClient
from teleport.runner.launch import Launched, Launcher
from teleport.runner.ownership import Record, record_at, set_free, take_for_start
from teleport.runner.saving import check_fits, claim, go_on, load, resume_unsaved, save
from teleport.runner.source import SourceTeleport
from teleport.runner.state import StateFile
from teleport.runner.target import WaitingTarget
from teleport.runner.vm import RunningVm, TeleportOrder
from teleport.wire.control_server import Event, Status
from teleport.wire.transfer_server import TransferServer

log = logging.getLogger(__name__)

MAIN = "main"
News = asyncio.Queue[Event | None]
_LINGER_SECONDS = 60.0  # how long a port stays open for a source that has not closed the session
_POWEROFF_SECONDS = 5.0
_SAVING_ANSWER_SECONDS = 20.0  # well below what a command waits for an answer


@dataclass(frozen=True)
class AgentOptions:
    """How the runner was started."""

    home: Path
    paths: VmPaths
    insecure: bool = False
    take_over: bool = False


class Agent:
    """One VM's agent. `run` returns the runner's exit code when the VM is over."""

    def __init__(self, definition: Definition, options: AgentOptions, guardian: GuardianClient, *, runtime: Path) -> None:
        self.definition = definition
        self.options = options
        self.runtime = runtime
        self.state = StateFile(options.paths.folder / "state.json")
        self.waiting: WaitingTarget | None = None
        self.teleport: SourceTeleport | None = None
        self.vm: RunningVm | None = None
        self._guardian = guardian
        self._over: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._server: TransferServer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._listeners: set[News] = set()
        self._shutdown_reason = ""
        self._saving: asyncio.Future[None] | None = None
        self._launcher: Launcher
        self._record: Record

    # ------------------------------------------------------------------ beginning and end
    async def run(self) -> int:
        """Begins or takes up, and returns the exit code when the VM is over."""
        accelerator = await asyncio.to_thread(usable_accelerator, self._wanted_accelerator(), cache=self.options.home)
        self._launcher = Launcher(
            self.definition,
            self.options.paths,
            self._guardian,
            home=self.options.home,
            runtime=self.runtime,
            accelerator=accelerator,
        )
        self._record = record_at(self._launcher.record_folder, self._launcher.owner(""))
        prune(self.options.paths.journal)
        if not await self._take_up():
            await self._begin()
        await self._guardian.ready()
        try:
            return await self._over
        finally:
            await self._stop_everything()

    async def _begin(self) -> None:
        await asyncio.to_thread(require_settled, self.options.paths)
        saved = await asyncio.to_thread(saved_state.read, self.options.paths)
        if self.definition.teleporter.enabled:
            if saved:
                raise StateError(
                    "startvm",
                    f"VM {self.definition.name!r} has a saved state and cannot take in another guest",
                    f"teleport discardstate {shlex.quote(self.definition.name)} drops it, "
                    f"modifyvm {shlex.quote(self.definition.name)} --teleporter off goes on from it",
                )
            await self._wait_for_guest()
            return
        if saved:
            self.state.set(VmState.STARTING)
            await self._restore(saved)
            return
        epoch = uuid.uuid4().hex
        me = self._launcher.owner(epoch)
        generation = await take_for_start(self._record, me, take_over=self.options.take_over)
        self.state.set(VmState.STARTING)  # not before: a start that is refused leaves the VM as it was
        launched: Launched | None = None
        guest: QmpGuest | None = None
        try:
            launched = await self._launcher.start(label=MAIN)
            guest = await self._launcher.connect(launched)
            self._runs(launched, guest, generation=generation, identity=self._launcher.own_identity)
            await guest.cont()
        except TeleportError:
            await self._drop(launched, guest)
            await set_free(self._record, generation)
            self.state.set(VmState.POWEROFF)
            raise
        self.state.set(VmState.RUNNING)
        await asyncio.to_thread(saved_state.drop_unfinished, self.options.paths)

    async def _restore(self, saved: SavedFacts) -> None:
        """Goes on from the saved state. Raises TeleportError; the state is kept then."""
        me = self._launcher.owner(saved.epoch)
        paths = self.options.paths
        launched: Launched | None = None
        guest: QmpGuest | None = None
        try:
            await check_fits(self._record, saved, me, take_over=self.options.take_over)
            launched = await self._launcher.start(label=MAIN, identity=saved.identity, incoming=True)
            guest = await self._launcher.connect(launched)
            await load(guest, paths)
            generation = await claim(self._record, saved, me)
            self._runs(launched, guest, generation=generation, identity=saved.identity)
            self._spawn(open_forwarded_ports(guest, self.definition, self._say))
            self._remember(restoring="paused" if saved.was_paused else "running")
            await go_on(guest, paths, saved)
        except TeleportError:
            await self._drop(launched, guest)
            self.state.set(VmState.SAVED if paths.saved.is_dir() else VmState.ABORTED)
            raise
        self._remember()
        self.state.set(VmState.PAUSED if saved.was_paused else VmState.RUNNING, "from its saved state")
        await asyncio.to_thread(saved_state.drop_unfinished, paths)

    async def _wait_for_guest(self) -> None:
        self.waiting = WaitingTarget(self._launcher, self._record, arrived=self._on_arrival, changed=self._on_session)
        self._server = await self._open_port(self.waiting)
        self._spawn(self.waiting.watch_silence())
        self.state.set(VmState.TELEPORTING_IN, f"waits at port {self._server.port}", teleporterport=self._server.port)
        self._say(f"waiting for a teleport at port {self._server.port}")

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
        if self._server:
            await self._server.stop()
        if self.vm:
            await self.vm.guest.close()
        for listener in self._listeners:
            listener.put_nowait(None)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
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

    def _end(self, state: VmState, detail: str = "", *, code: int = 0) -> None:
        self.state.set(state, detail)
        self._say(f"VM {self.definition.name}: {state.value} {detail}".rstrip())
        if not self._over.done():
            self._over.set_result(code)

    # ------------------------------------------------------------------ taking up what a predecessor left
    async def _take_up(self) -> bool:
        known = await self._guardian.list_qemus()
        alive = [self._launcher.found(qemu) for qemu in known if qemu.alive]
        journal = self.options.paths.journal
        sent = unfinished(journal, "source")
        coming = unfinished(journal, "target")
        remembered = self._remembered()
        main = next((one for one in alive if remembered and one.process.label == remembered["label"]), None)
        if main and remembered:
            await self._take_up_vm(main, remembered, sent)
            strays = [one for one in alive if one is not main]
        elif coming:
            arriving = next((one for one in alive if one.process.label == f"arrival-{coming.epoch[:8]}"), None)
            await self._take_up_arrival(coming, arriving)
            strays = [one for one in alive if one is not arriving]
        elif remembered and self.options.paths.saved.is_dir():
            self._forget_vm()
            self._end(VmState.SAVED)
            strays = alive
        elif remembered and sent is None:
            # it ran, and its QEMU died while no agent looked
            self._forget_vm()
            self._end(VmState.ABORTED, "QEMU died while its agent was away", code=GuestLostError.exit_code)
            strays = alive
        else:
            if sent:
                self._say(
                    f"epoch {sent.epoch} was left unfinished and its QEMU is gone: the owner record decides who may start"
                )
                sent.note("resumed", reason="QEMU is gone")
            strays = alive
            for stray in strays:
                await self._kill(stray)
            return False
        for stray in strays:
            await self._kill(stray)
        return True

    async def _take_up_vm(self, launched: Launched, remembered: "dict[str, str | int]", sent: EpochJournal | None) -> None:
        guest = await self._launcher.connect(launched)
        identity = GuestIdentity(
            smbios_uuid=str(remembered["smbios_uuid"]),
            macs=tuple((int(number), mac) for number, mac in json.loads(str(remembered["macs"])).items()),
        )
        vm = self._runs(launched, guest, generation=int(remembered["generation"]), identity=identity)
        if sent is None:
            await self._finish_saving(vm, remembered)
            self.state.set(await self._state_of(guest))
            self._say("a new agent took up the running VM")
            return
        prepared = SourcePrepared.read(sent.records()[0])
        order = TeleportOrder(host=prepared.host, port=prepared.port, insecure=bool(prepared.insecure))
        self.state.set(VmState.TELEPORTING, "a new agent finishes the handover")
        self.teleport = SourceTeleport(vm, order, epoch=prepared.epoch, emit=self._say)
        self._spawn(self._follow(self.teleport, self.teleport.recover(prepared)))

    async def _finish_saving(self, vm: RunningVm, remembered: "dict[str, str | int]") -> None:
        """What a predecessor left of a save or a restore."""
        is_saved = self.options.paths.saved.is_dir()
        if was := remembered.get("saving"):
            if is_saved:
                await self._power_off(vm)
                return
            await resume_unsaved(vm, was_paused=was == "paused")
        elif was := remembered.get("restoring"):
            if is_saved:
                await asyncio.to_thread(saved_state.mark_used, self.options.paths)
            if was == "running" and await vm.guest.status() == "paused":
                await vm.guest.cont()
        self._remember()

    async def _take_up_arrival(self, journal: EpochJournal, launched: Launched | None) -> None:
        await self._wait_for_guest()
        assert self.waiting is not None
        arrival = Arrival(self._launcher, self._record, prepared=TargetPrepared.read(journal.records()[0]))
        await arrival.recover(launched)
        self.waiting.adopt(arrival)

    def _remembered(self) -> "dict[str, str | int] | None":
        try:
            found: dict[str, str | int] = json.loads((self.runtime / "vm.json").read_text())
        except (OSError, ValueError):
            return None
        return found

    def _remember(self, **doing: str) -> None:
        """For a successor: what runs, and what is being done with it (`saving`, `restoring`: running or paused)."""
        assert self.vm is not None
        known = {
            "label": self.vm.guest.process.label,
            "generation": self.vm.generation,
            "smbios_uuid": self.vm.identity.smbios_uuid,
            "macs": json.dumps(dict(self.vm.identity.macs)),
            **doing,
        }
        fresh = self.runtime / "vm.json.new"
        fresh.write_text(json.dumps(known))
        fresh.replace(self.runtime / "vm.json")

    def _forget_vm(self) -> None:
        (self.runtime / "vm.json").unlink(missing_ok=True)

    # ------------------------------------------------------------------ a VM that runs
    def _runs(self, launched: Launched, guest: QmpGuest, *, generation: int, identity: GuestIdentity) -> RunningVm:
        self.vm = RunningVm(
            definition=self.definition,
            paths=self.options.paths,
            runtime=launched.folder,
            guest=guest,
            ram_fd=launched.ram_fd,
            identity=identity,
            record=self._record,
            generation=generation,
            me=self._launcher.owner(uuid.uuid4().hex),
        )
        self._remember()
        self._spawn(self._watch_events(guest))
        self._spawn(self._watch_death(guest))
        return self.vm

    async def _state_of(self, guest: QmpGuest) -> VmState:
        return VmState.RUNNING if await guest.status() == "running" else VmState.PAUSED

    async def _watch_events(self, guest: QmpGuest) -> None:
        async for event in guest.events("SHUTDOWN", "RESET", "GUEST_PANICKED", "POWERDOWN"):
            name = str(event["event"])
            self._say(f"guest: {name.lower()} {json.dumps(dict(event.get('data', {})))}")
            if name == "SHUTDOWN":
                self._shutdown_reason = str(event["data"].get("reason", "guest-shutdown"))

    async def _watch_death(self, guest: QmpGuest) -> None:
        words = await guest.wait_dead()
        await asyncio.sleep(0.05)  # the last event is read just behind the death
        if self.teleport and not self._clean_shutdown:
            return  # the handover knows what that means
        if self.options.paths.saved.is_dir():
            self._forget_vm()
            self._end(VmState.SAVED)
        elif self._clean_shutdown:
            await self._set_free()
            self._forget_vm()
            by_us = self._shutdown_reason == "host-qmp-quit"
            self._end(VmState.POWEROFF, "powered off" if by_us else "the guest shut itself down")
        else:
            self._forget_vm()
            self._end(VmState.ABORTED, f"QEMU died: {words}", code=GuestLostError.exit_code)

    @property
    def _clean_shutdown(self) -> bool:
        return self._shutdown_reason in ("guest-shutdown", "host-qmp-quit", "host-ui", "guest-reset")

    async def _set_free(self) -> None:
        if self.vm and self.vm.generation:
            await set_free(self._record, self.vm.generation)

    async def _drop(self, launched: Launched | None, guest: QmpGuest | None) -> None:
        """Ends a QEMU that did not get as far as running its guest; its death means nothing."""
        watching = tuple(self._tasks)
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        self.vm = None
        self._forget_vm()
        if guest and launched:
            await guest.kill()
            await guest.close()
            await self._launcher.forget(launched)
        elif launched:
            await self._kill(launched)

    async def _kill(self, launched: Launched) -> None:
        with contextlib.suppress(TeleportError):
            guest = await self._launcher.connect(launched)
            await guest.kill()
            await guest.close()
        await self._launcher.forget(launched)

    # ------------------------------------------------------------------ a guest that arrives
    def _on_session(self, text: str) -> None:
        self._say(text)

    async def _on_arrival(self, arrived: Arrived) -> None:
        self._runs(arrived.launched, arrived.guest, generation=arrived.generation, identity=arrived.identity)
        self._spawn(open_forwarded_ports(arrived.guest, self.definition, self._say))
        self.state.set(VmState.PAUSED if arrived.paused else VmState.RUNNING, "teleported here")
        self._say("the guest arrived")
        self._tell(Outcome(kind=OutcomeKind.MOVED, message="the guest arrived", target_qemu_pid=arrived.launched.process.pid))
        self._spawn(self._close_port_later())

    async def _close_port_later(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                if self.waiting:
                    await self.waiting.closed.wait()
        if self._server:
            await self._server.stop()
            self._server = None
        self.waiting = None

    # ------------------------------------------------------------------ what people ask for (the control API)
    def status(self) -> Status:
        """The VM's state and where it is served, as `showvminfo` shows it."""
        state, detail = self.state.read()
        return Status(
            state=state.value,
            version=__version__,
            detail=detail,
            qemu_pid=self.vm.guest.process.pid if self.vm else 0,
            agent_pid=os.getpid(),
            guardian_pid=os.getppid(),
            teleporter_port=self._server.port if self._server else 0,
            properties={
                "generation": str(self.vm.generation if self.vm else 0),
                "smbios_uuid": self.vm.identity.smbios_uuid if self.vm else "",
            },
        )

    async def power(self, action: str) -> str:
        """pause, resume, reset, poweroff, acpipowerbutton. Returns the state after it. Raises StateError, UsageError."""
        if self.vm is None:
            if action == "poweroff":
                if self.waiting and self.waiting.busy:
                    raise BusyError("poweroff", "a guest is arriving just now", "cancel the teleport at its source")
                self._end(VmState.POWEROFF, "no longer waits")
                return VmState.POWEROFF.value
            raise StateError(action, f"VM {self.definition.name!r} waits for a teleport and runs nothing yet")
        self._require_idle(action)
        match action:
            case "pause":
                await self.vm.guest.stop()
                self.state.set(VmState.PAUSED)
            case "resume":
                await self.vm.guest.activate_disks()
                await self.vm.guest.cont()
                self.state.set(VmState.RUNNING)
            case "reset":
                await self.vm.guest.execute("system_reset")
            case "acpipowerbutton":
                await self.vm.guest.execute("system_powerdown")
            case "poweroff":
                await self._power_off(self.vm)
                return VmState.POWEROFF.value
            case _:
                raise UsageError(f"controlvm {action}", "no such action")
        return self.state.read()[0].value

    def _require_idle(self, action: str) -> None:
        """Raises BusyError while a teleport or a save needs the guest as it is."""
        if self.teleport:
            raise BusyError(action, "a teleport is under way", "wait for its end, or controlvm NAME teleport-cancel")
        if self._saving and not self._saving.done():
            raise BusyError(action, "its state is being saved", "wait for its end")

    async def _power_off(self, vm: RunningVm) -> None:
        self._shutdown_reason = "host-qmp-quit"
        try:
            async with asyncio.timeout(_POWEROFF_SECONDS):
                with contextlib.suppress(QemuGoneError):
                    await vm.guest.execute("quit")
                await vm.guest.wait_dead()
        except (TimeoutError, HypervisorError):
            await vm.guest.kill()

    async def execute(self, command: str, arguments: "tuple[str, ...]") -> str:
        """Commands of free form. Raises UsageError for one that this build does not know."""
        if command == "screenshotpng" and len(arguments) == 1:
            await self._running("screenshotpng").guest.screendump(Path(arguments[0]))
            return ""
        if command == "savestate":
            return await self._savestate(wait=arguments == ("wait",))
        raise UsageError(
            f"controlvm {command}", "this runner does not know it", "the VM may have been started by an older version"
        )

    async def _savestate(self, *, wait: bool) -> str:
        """Begins to save, or waits for the end of it: "saving" after a while without one, for the asker to ask again."""
        if not wait:
            vm = self._running("savestate")
            self._require_idle("savestate")
            self._saving = asyncio.ensure_future(self._save(vm))
        if self._saving is None:
            raise StateError("savestate", "nothing is being saved")
        await asyncio.wait({self._saving}, timeout=_SAVING_ANSWER_SECONDS)
        if not self._saving.done():
            return "saving"
        self._saving.result()
        return VmState.SAVED.value

    async def _save(self, vm: RunningVm) -> None:
        was_paused = await vm.guest.status() != "running"
        was = self.state.read()[0]
        self._remember(saving="paused" if was_paused else "running")
        self.state.set(was, "its state is being saved")
        try:
            if not was_paused:
                await vm.guest.stop()
            await save(vm, was_paused=was_paused)
        except TeleportError as error:
            self._say(f"not saved: {error}")
            await resume_unsaved(vm, was_paused=was_paused)
            self._remember()
            self.state.set(was, f"not saved: {error}")
            raise
        await self._power_off(vm)

    def _running(self, what: str) -> RunningVm:
        if self.vm is None:
            raise StateError(what, f"VM {self.definition.name!r} is not running")
        return self.vm

    def shutdown(self) -> None:
        """SIGTERM: power off, unless a handover is under way (it must be settled first)."""

        async def off() -> None:
            try:
                await self.power("poweroff")
            except TeleportError as error:
                self._say(f"not powered off: {error}")

        self._spawn(off())

    # ------------------------------------------------------------------ teleporting
    async def begin_teleport(self, order: TeleportOrder) -> SourceTeleport:
        """Starts one. Raises StateError when nothing runs, BusyError when one is under way."""
        vm = self._running("teleport")
        if self.teleport:
            raise BusyError(
                "teleport", f"VM {self.definition.name!r} is already teleporting", "controlvm NAME teleport-cancel ends it"
            )
        self._require_idle("teleport")
        before = self.state.read()[0]
        if before not in (VmState.RUNNING, VmState.PAUSED):
            raise StateError("teleport", f"VM {self.definition.name!r} must be Running or Paused", f"it is {before.value}")
        self.teleport = SourceTeleport(vm, order, epoch=uuid.uuid4().hex, emit=self._say)
        self.state.set(VmState.TELEPORTING, f"to {order.host}:{order.port}")
        self._spawn(self._follow(self.teleport, self.teleport.run()))
        return self.teleport

    async def _follow(self, teleport: SourceTeleport, work: Coroutine[Any, Any, Outcome]) -> None:
        """One teleport to its very end, also beyond the moment when a person was told that it is in doubt."""
        doubt = asyncio.ensure_future(self._show_doubt(teleport))
        try:
            outcome = await work
        except GuestLostError as error:
            self._say(str(error))
            self._forget_vm()
            if self._clean_shutdown:
                await self._set_free()
                self._end(VmState.POWEROFF, "the guest was shut down while it teleported")
            else:
                self._end(VmState.ABORTED, str(error), code=error.exit_code)
            return
        except TeleportError as error:
            self._say(f"not teleported: {error}")
            await self._back(error)
            return
        finally:
            doubt.cancel()
            self.teleport = None
        if outcome.kind is OutcomeKind.MOVED:
            self._forget_vm()
            where = f"{outcome.target_vm} at {outcome.target}"
            self._end(VmState.TELEPORTED, f"to {where}")
        else:
            await self._back(None)

    async def _back(self, error: TeleportError | None) -> None:
        if self.vm is None:
            return
        with contextlib.suppress(HypervisorError):
            self.state.set(await self._state_of(self.vm.guest), f"not teleported: {error}" if error else "")
        self._remember()

    async def _show_doubt(self, teleport: SourceTeleport) -> None:
        with contextlib.suppress(TeleportError):
            outcome = await asyncio.shield(teleport.outcome)
            if outcome.kind is OutcomeKind.IN_DOUBT:
                self.state.set(VmState.IN_DOUBT, outcome.message)
                self._say(f"in doubt: {outcome.message}")

    def cancel_teleport(self) -> str:
        """Ctrl-C, or teleport-cancel. Raises StateError when there is nothing to cancel."""
        if self.teleport is None:
            raise StateError("teleport-cancel", f"VM {self.definition.name!r} is not teleporting")
        return self.teleport.cancel()

    async def resolve(self, *, run_here: bool, moved: bool, confirmed: bool) -> str:
        """A person decides an epoch in doubt. Raises StateError, InDoubtError (what is known, and what to confirm)."""
        teleport = self.teleport
        if teleport is None or self.state.read()[0] is not VmState.IN_DOUBT:
            raise StateError("resolve", f"VM {self.definition.name!r} is not in doubt")
        resolving = teleport.resolving
        if resolving is None:
            raise StateError("resolve", f"VM {self.definition.name!r} is not in doubt")
        known = await resolving.known()
        if moved:
            await resolving.settle_moved()
            return f"the paused copy was let go\n{known}"
        if not run_here:
            return known
        await resolving.try_locks()
        name = shlex.quote(self.definition.name)
        if not confirmed:
            raise InDoubtError(
                "resolve --run-here",
                f"if the guest runs at the target, it will run twice\n{known}",
                f"make sure that it does not, then: teleport resolve {name} --run-here --confirm {name}",
            )
        await resolving.settle_here()
        return f"the guest runs here\n{known}"

    # ------------------------------------------------------------------ telling those who watch
    def _say(self, news: Progress | str) -> None:
        if isinstance(news, str):
            log.info("%s", news)
        self._tell(news)

    def _tell(self, news: Event) -> None:
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
