"""A new agent takes up what its predecessor left: a QEMU that runs, a handover under way, a guest that was arriving, a save."""

import asyncio

from teleport.errors import GuestLostError, StorageError
from teleport.machines import saved_state
from teleport.model import VmState
from teleport.runner.agent import Agent
from teleport.runner.arrival import Arrival, Arrived
from teleport.runner.entrance import wait_for_guest
from teleport.runner.epochs import EpochJournal, SourcePrepared, TargetPrepared, newest, unfinished
from teleport.runner.exit import follow
from teleport.runner.launch import ARRIVAL, Launched
from teleport.runner.live import LiveChanges
from teleport.runner.memory import Remembered
from teleport.runner.saving import resume_unsaved
from teleport.runner.source import SourceTeleport
from teleport.runner.vm import RunningVm, TeleportOrder


class Successor:
    """One agent's beginning, when it is not the first of its runner."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def take_up(self) -> bool:
        """Whether there was something to take up; what nobody can use any more is ended."""
        known = await self._agent.guardian.list_qemus()
        alive = [self._agent.launcher.found(qemu) for qemu in known if qemu.alive]
        journal = self._agent.options.paths.journal
        sent = unfinished(journal, "source")
        coming = unfinished(journal, "target")
        remembered = self._agent.memory.read()
        if coming is None and remembered is None:
            coming = self._arrived(alive)
        main = next((one for one in alive if remembered and one.process.label == remembered.label), None)
        arriving = next((one for one in alive if coming and one.process.label == f"{ARRIVAL}{coming.epoch[:8]}"), None)
        if main and remembered:
            await self._take_up_vm(main, remembered, sent)
            strays = [one for one in alive if one is not main]
        elif coming and (arriving or self._agent.definition.teleporter.enabled):
            await self._take_up_arrival(coming, arriving)
            strays = [one for one in alive if one is not arriving]
        elif remembered and self._agent.options.paths.saved.is_dir():
            self._agent.memory.forget()
            self._agent.end(VmState.SAVED)
            strays = alive
        elif remembered and (moved := await self._moved(sent)):
            self._agent.memory.forget()
            self._agent.end(VmState.TELEPORTED, f"to {moved.target_vm} at {moved.host}:{moved.port}")
            strays = alive
        elif remembered and sent is None:
            # it ran, and its QEMU died while no agent looked
            self._agent.memory.forget()
            self._agent.end(VmState.ABORTED, "QEMU died while its agent was away", code=GuestLostError.exit_code)
            strays = alive
        else:
            if sent and not await self._moved(sent):
                self._agent.say(
                    f"epoch {sent.epoch} was left unfinished and its QEMU is gone: the owner record decides who may start"
                )
                sent.note("resumed", reason="QEMU is gone")
            if coming:
                await self._end_arrival(coming)
            strays = alive
            for stray in strays:
                await self._agent.kill(stray)
            return False
        for stray in strays:
            await self._agent.kill(stray)
        return True

    def _arrived(self, alive: list[Launched]) -> EpochJournal | None:
        """The epoch of a guest that runs here, by its journal, but that its agent died before it remembered as this VM's."""
        journal = newest(self._agent.options.paths.journal, "target")
        if journal is None or "started" not in journal.kinds:
            return None
        return journal if any(one.process.label == f"{ARRIVAL}{journal.epoch[:8]}" for one in alive) else None

    async def _moved(self, sent: EpochJournal | None) -> SourcePrepared | None:
        """The teleport by which this VM's guest left, where its agent died before all of that was written down.

        Its journal ended behind the VM's last beginning here; or its QEMU was let go, which is done once the guest was heard to run at the
        target, and the owner record says the same.
        """
        if sent is None:
            journal = newest(self._agent.options.paths.journal, "source")
            if journal is None or "moved" not in journal.kinds or journal.changed_at < self._agent.memory.changed_at:
                return None
            return SourcePrepared.read(journal.records()[0])
        prepared = SourcePrepared.read(sent.records()[0])
        try:
            view = await self._agent.record.read() if prepared.generation else None
        except StorageError:
            return None
        if view is None or view.generation <= prepared.generation or not view.started or view.owner.epoch != prepared.epoch:
            return None
        sent.note("moved")
        return prepared

    async def _take_up_vm(self, launched: Launched, remembered: Remembered, sent: EpochJournal | None) -> None:
        guest = await self._agent.launcher.connect(launched)
        vm = self._agent.runs(launched, guest, generation=remembered.generation, identity=remembered.identity)
        await self._agent.display.adopt(self._agent.launcher.screens(launched))
        if sent is None:
            await self._finish_doing(vm, remembered)
            await LiveChanges(self._agent).settle(vm)
            self._agent.state.beside = self._agent.display.properties()
            self._agent.state.set(await self._agent.state_of(guest))
            self._agent.say("a new agent took up the running VM")
            return
        prepared = SourcePrepared.read(sent.records()[0])
        order = TeleportOrder(host=prepared.host, port=prepared.port, insecure=bool(prepared.insecure))
        self._agent.state.set(VmState.TELEPORTING, "a new agent finishes the handover")
        teleport = SourceTeleport(vm, order, epoch=prepared.epoch, emit=self._agent.say)
        follow(self._agent, teleport, teleport.recover(prepared))

    async def _finish_doing(self, vm: RunningVm, remembered: Remembered) -> None:
        """What a predecessor left of a start, a save or a restore."""
        is_saved = self._agent.options.paths.saved.is_dir()
        if remembered.doing == "saving":
            if is_saved:
                await self._agent.power_off(vm)
                return
            await resume_unsaved(vm, was_paused=not remembered.runs)
        elif remembered.doing == "restoring":
            if is_saved:
                await asyncio.to_thread(saved_state.mark_used, self._agent.options.paths)
            if remembered.runs and await vm.guest.status() == "paused":
                await vm.guest.cont()
        elif remembered.doing == "starting" and await vm.guest.status() in ("prelaunch", "paused"):
            await vm.guest.cont()
        self._agent.remember()

    async def _take_up_arrival(self, journal: EpochJournal, launched: Launched | None) -> None:
        await wait_for_guest(self._agent)
        assert self._agent.waiting is not None
        arrival = Arrival(self._agent.launcher, self._agent.record, prepared=TargetPrepared.read(journal.records()[0]))
        await arrival.recover(launched)
        self._agent.waiting.adopt(arrival)

    async def _end_arrival(self, journal: EpochJournal) -> None:
        """A guest that never arrived, at a VM that waits for none any more: the epoch is ended before the VM is started as its own."""
        arrival = Arrival(self._agent.launcher, self._agent.record, prepared=TargetPrepared.read(journal.records()[0]))
        ended = asyncio.Event()

        async def settled(_: Arrived | None) -> None:
            ended.set()

        await arrival.recover(None)
        arrival.start(settled)
        await ended.wait()
