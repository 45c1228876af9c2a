"""The control API's verbs, on the agent (`teleport.wire.control_server.ControlHandler`)."""

import asyncio
import json
import os
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

from teleport import __version__
from teleport.errors import BusyError, InDoubtError, StateError, TeleportError, UsageError
from teleport.host.mode_hint import hint_size
from teleport.machines.usb_filters import UsbFilter
from teleport.machines.vrde import from_dict
from teleport.model import VmState
from teleport.runner.agent import Agent
from teleport.runner.exit import begin_teleport
from teleport.runner.live import SENT, LiveChanges, parsed
from teleport.runner.saving import resume_unsaved, save
from teleport.runner.vm import RunningVm, TeleportOrder
from teleport.wire._generated.teleport.v1 import control_pb2 as control
from teleport.wire.control_server import Event, Status

_SAVING_ANSWER_SECONDS = 20.0  # well below what a command waits for an answer


class ControlHandlers:
    """One agent's."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def status(self) -> Status:
        """The VM's state and where it is served, as `showvminfo` shows it."""
        agent = self._agent
        await agent.display.refresh()
        state, detail = agent.state.read()
        return Status(
            state=state.value,
            version=__version__,
            detail=detail,
            qemu_pid=agent.vm.guest.process.pid if agent.vm else 0,
            agent_pid=os.getpid(),
            guardian_pid=os.getppid(),
            teleporter_port=agent.teleporter_port,
            properties={
                "generation": str(agent.vm.generation if agent.vm else 0),
                "smbios_uuid": agent.vm.identity.smbios_uuid if agent.vm else "",
                **(agent.display.properties() if agent.vm else {}),
                **(agent.usb.properties() if agent.vm else {}),
                **({"teleportprogress": agent.waiting.progress} if agent.waiting and agent.waiting.progress else {}),
            },
        )

    async def power(self, action: str) -> str:
        """pause, resume, reset, poweroff, acpipowerbutton. Returns the state after it. Raises StateError, UsageError."""
        if self._agent.vm is None:
            if action == "poweroff":
                if self._agent.waiting and self._agent.waiting.busy:
                    raise BusyError("poweroff", "a guest is arriving just now", "cancel the teleport at its source")
                self._agent.end(VmState.POWEROFF, "no longer waits")
                return VmState.POWEROFF.value
            raise StateError(action, f"VM {self._agent.definition.name!r} waits for a teleport and runs nothing yet")
        self._agent.require_idle(action)
        match action:
            case "pause":
                await self._agent.vm.guest.stop()
                self._agent.state.set(VmState.PAUSED)
            case "resume":
                await self._agent.vm.guest.activate_disks()
                await self._agent.vm.guest.cont()
                self._agent.state.set(VmState.RUNNING)
            case "reset":
                await self._agent.vm.guest.execute("system_reset")
            case "acpipowerbutton":
                await self._agent.vm.guest.execute("system_powerdown")
            case "poweroff":
                await self._agent.power_off(self._agent.vm)
                return VmState.POWEROFF.value
            case _:
                raise UsageError(f"controlvm {action}", "no such action")
        return self._agent.state.read()[0].value

    async def execute(self, command: str, arguments: "tuple[str, ...]") -> str:
        """Commands of free form. Raises UsageError for one that this build does not know."""
        answer = ""
        match command, arguments:
            case "screenshotpng", (path,):
                await self._agent.running(command).guest.screendump(Path(path))
            case "setvideomodehint", (width, height, screen):
                guest = self._agent.running(command).guest
                await hint_size(guest, screen=int(screen), width=int(width), height=int(height))
            case "change", _ if len(arguments) == len(SENT):
                await LiveChanges(self._agent).change(parsed(arguments, self._agent.options.paths.definition))
            case "savestate", _:
                answer = await self._savestate(wait=arguments == ("wait",))
            case "vrde", (settings,):
                await self._agent.display.change(from_dict(json.loads(settings)))
                self._agent.state.set_beside(self._agent.display.properties() if self._agent.vm else {})
                answer = json.dumps(self._agent.state.beside)
            case "usbfilters", (filters,):
                self._agent.usb.change([UsbFilter(**each) for each in json.loads(filters)])
            case "console", (address, port, screen):
                self._agent.running("console")
                answer = json.dumps(await self._agent.display.console(address=address, port=int(port), screen=int(screen)))
            case _:
                raise UsageError(
                    f"controlvm {command}", "this runner does not know it", "the VM may have been started by an older version"
                )
        return answer

    async def _savestate(self, *, wait: bool) -> str:
        """Begins to save, or waits for the end of it: "saving" after a while without one, for the asker to ask again."""
        if not wait:
            vm = self._agent.running("savestate")
            self._agent.require_idle("savestate")
            self._agent.saving = asyncio.ensure_future(self._save(vm))
        if self._agent.saving is None:
            raise StateError("savestate", "nothing is being saved")
        await asyncio.wait({self._agent.saving}, timeout=_SAVING_ANSWER_SECONDS)
        if not self._agent.saving.done():
            return "saving"
        self._agent.saving.result()
        return VmState.SAVED.value

    async def _save(self, vm: RunningVm) -> None:
        was_paused = await vm.guest.status() != "running"
        was = self._agent.state.read()[0]
        self._agent.remember(doing="saving", runs=not was_paused)
        self._agent.state.set(was, "its state is being saved")
        try:
            await vm.usb.unplug_all(vm.guest, "the VM's state is being saved")
            if not was_paused:
                await vm.guest.stop()
            await save(vm, was_paused=was_paused)
        except TeleportError as error:
            self._agent.say(f"not saved: {error}")
            await resume_unsaved(vm, was_paused=was_paused)
            self._agent.remember()
            self._agent.state.set(was, f"not saved: {error}")
            raise
        await self._agent.power_off(vm)

    async def teleport(self, request: control.TeleportRequest) -> AsyncIterator[Event]:
        """Teleports, telling everything on the way; the last event is an Outcome or an error.

        Neither comes when this agent ends before either is known: its successor finishes what was begun, and is to be asked.
        """
        order = TeleportOrder(
            host=request.host,
            port=request.port,
            plan=request.plan or "auto",
            max_downtime_ms=request.max_downtime_ms or 250,
            timeout_seconds=request.timeout_seconds or 10.0,
            max_bandwidth_bytes_per_second=request.max_bandwidth_bytes_per_second,
            insecure=request.insecure,
            dry_run=request.dry_run,
            verify_ram=request.verify_ram,
            move_display=request.move_display,
        )
        async with self._agent.news.listen() as news:
            teleport = begin_teleport(self._agent, order)
            teleport.outcome.add_done_callback(lambda _: news.put_nowait(None))
            while (event := await news.get()) is not None:
                yield event
            if not teleport.outcome.done() or teleport.outcome.cancelled():
                return
            try:
                yield teleport.outcome.result()
            except TeleportError as error:
                yield error

    async def cancel(self) -> str:
        """Ctrl-C, or teleport-cancel. Raises StateError when there is nothing to cancel."""
        if self._agent.teleport is None:
            raise StateError("teleport-cancel", f"VM {self._agent.definition.name!r} is not teleporting")
        return self._agent.teleport.cancel()

    async def watch(self) -> AsyncIterator[Event]:
        """All that happens from now on, until the VM is over."""
        async with self._agent.news.listen() as news:
            while (event := await news.get()) is not None:
                yield event

    def shutdown(self) -> None:
        """SIGTERM: power off, unless a handover is under way (it must be settled first)."""

        async def off() -> None:
            try:
                await self.power("poweroff")
            except TeleportError as error:
                self._agent.say(f"not powered off: {error}")

        self._agent.spawn(off())

    async def resolve(self, *, run_here: bool, moved: bool, confirmed: bool) -> str:
        """A person decides an epoch in doubt. Raises StateError, InDoubtError (what is known, and what to confirm)."""
        teleport = self._agent.teleport
        if teleport is None or self._agent.state.read()[0] is not VmState.IN_DOUBT:
            raise StateError("resolve", f"VM {self._agent.definition.name!r} is not in doubt")
        resolving = teleport.resolving
        if resolving is None:
            raise StateError("resolve", f"VM {self._agent.definition.name!r} is not in doubt")
        known = await resolving.known()
        if moved:
            await resolving.settle_moved()
            return f"the paused copy was let go\n{known}"
        if not run_here:
            return known
        await resolving.try_locks()
        name = shlex.quote(self._agent.definition.name)
        if not confirmed:
            raise InDoubtError(
                "resolve --run-here",
                f"if the guest runs at the target, it will run twice\n{known}",
                f"make sure that it does not, then: teleport resolve {name} --run-here --confirm {name}",
            )
        await resolving.settle_here()
        return f"the guest runs here\n{known}"
