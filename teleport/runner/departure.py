"""One guest leaving: what the effects of `teleport.handover.source` do to QEMU, the target, the record and the journal."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine

from teleport.errors import HypervisorError, StorageError, TeleportError
from teleport.handover.source import HEARD, SourceEffect, SourceEvent
from teleport.host.monitors import QemuGoneError, QemuStuckError
from teleport.host.process import kill_process
from teleport.host.ram import hash_guest_ram
from teleport.machines import tpm_state
from teleport.model import ClaimResult, Owner, PlanName, TargetPhase, TargetReport
from teleport.runner.epochs import EpochJournal, SourcePrepared
from teleport.runner.plans import Outgoing
from teleport.runner.session import Meeting
from teleport.runner.vm import RunningVm
from teleport.wire.transfer_client import TransferClient

log = logging.getLogger(__name__)

ANSWER_SECONDS = 3.0
SILENCE_SECONDS = 10.0

E, F = SourceEvent, SourceEffect


class Departure:
    """The source's side of one epoch from PREPARED on. `report` is the target's last word, `reason` the first thing that went wrong.

    `outgoing` and `meeting` are None for a successor, which has only the journal. `tell` takes what happens beside the effects, and
    `under_way` is called when QEMU has begun to migrate.
    """

    def __init__(
        self,
        vm: RunningVm,
        peer: TransferClient,
        prepared: SourcePrepared,
        *,
        journal: EpochJournal,
        tell: Callable[[SourceEvent], None],
        under_way: Callable[[], None],
        meeting: Meeting | None = None,
        outgoing: Outgoing | None = None,
        verify_ram: bool = False,
    ) -> None:
        self.vm = vm
        self.prepared = prepared
        self.journal = journal
        self.report = TargetReport(TargetPhase.UNKNOWN)
        self.reason = ""
        self.kept_paused = ""  # why a guest that is this side's again cannot go on yet
        self.digest = ""
        self.paused_at_ns = 0
        self.migrate_at_ns = 0
        self.outgoing = outgoing
        self._peer = peer
        self._meeting = meeting
        self._tell = tell
        self._under_way = under_way
        self._verify_ram = verify_ram
        self._beside: set[asyncio.Task[None]] = set()
        self._committing: asyncio.Task[None] | None = None

    @property
    def me(self) -> Owner:
        """This VM as the owner of this epoch's guest."""
        me = self.vm.me
        return Owner(me.host, me.home, me.vm_uuid, me.vm_name, self.prepared.epoch)

    @property
    def shared(self) -> bool:
        """The target's QEMU maps this guest's RAM."""
        return self.prepared.plan == PlanName.SHARED.value

    @property
    def sent_bytes(self) -> int:
        """Bytes that went to the wire."""
        return self.outgoing.sent_bytes if self.outgoing else 0

    def blame(self, reason: str) -> None:
        """Keeps the first reason."""
        self.reason = self.reason or reason

    def hear(self, report: TargetReport) -> None:
        """The target's word, as an event."""
        self.report = report
        if report.reason:
            self.blame(f"the target: {report.reason}")
        self._tell(HEARD[report.phase])

    def beside(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Work beside the handover; `end` cancels what is left of it."""
        task = asyncio.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)
        return task

    async def end(self) -> None:
        """Nothing of this epoch goes on."""
        tasks = tuple(self._beside)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.outgoing:
            self.outgoing.close()

    def _failed(self, error: HypervisorError) -> SourceEvent:
        self.blame(str(error))
        return E.MIGRATION_FAILED

    # ------------------------------------------------------------------ effects
    async def perform(self, effect: SourceEffect) -> SourceEvent | None:
        """One effect, and its answer if it has one."""
        try:
            return await self._effects[effect](self)
        except QemuGoneError as error:
            self.blame(str(error))
            return E.QEMU_DIED

    async def _stop_guest(self) -> SourceEvent | None:
        self.paused_at_ns = time.monotonic_ns()
        try:
            await self.vm.guest.stop()
        except HypervisorError as error:
            return self._failed(error)
        return None

    async def _migrate(self) -> SourceEvent | None:
        assert self.outgoing is not None
        self.migrate_at_ns = time.monotonic_ns()
        try:
            await self.outgoing.start()
        except HypervisorError as error:
            return self._failed(error)
        self._under_way()
        return None

    async def _check_target(self) -> SourceEvent | None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                self.report = await self._peer.query(self.prepared.epoch, "")
        except (TeleportError, TimeoutError) as error:
            self.blame(f"the target does not answer at the switchover ({error})")
            return E.SILENCE
        event = HEARD[self.report.phase]
        self.blame(self.report.reason)
        return E.TARGET_ANSWERED if event is E.SAID_WAITING else event

    async def _migrate_continue(self) -> SourceEvent | None:
        try:
            if self._verify_ram:
                self.digest = (await hash_guest_ram(self.vm.guest)).total
            async with asyncio.timeout(SILENCE_SECONDS):
                await self.vm.guest.migrate_continue()
        except QemuGoneError:
            raise
        except TimeoutError:
            return self._failed(HypervisorError("migrate-continue", "QEMU does not answer: the stream has stalled"))
        except HypervisorError as error:
            return self._failed(error)
        return None

    async def _migrate_cancel(self) -> SourceEvent | None:
        if self.outgoing:
            self.outgoing.close()
        try:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self._cancel_migration()
            except (TimeoutError, QemuStuckError):
                # a stalled connection in state `device` freezes the main monitor: only out of band it still listens
                await self.vm.guest.yank()
                await self._cancel_migration()
        except QemuGoneError:
            raise
        except HypervisorError as error:
            log.warning("cancelling QEMU's migration: %s", error)
        return None

    async def _cancel_migration(self) -> None:
        if (await self.vm.guest.migration()).status not in ("none", "completed", "failed", "cancelled"):
            await self.vm.guest.migrate_cancel()
            await self.vm.guest.wait_migration()

    async def _send_commit(self) -> SourceEvent | None:
        if (
            self._committing is None or self._committing.done()
        ):  # it is asked for again with every heartbeat that shows no sign of it
            self._committing = self.beside(self._commit())
        return None

    async def _commit(self) -> None:
        try:
            self.hear(await self._peer.commit(self.prepared.epoch, self.digest))
        except TeleportError as error:
            log.warning("COMMIT: %s (the heartbeats go on)", error)

    async def _send_abort(self) -> SourceEvent | None:
        abort = self.beside(self._abort())
        if not self.shared:
            await asyncio.wait({abort}, timeout=ANSWER_SECONDS)
        return None

    async def _abort(self) -> None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                self.report = await self._peer.abort(self.prepared.epoch, self.reason or "the source aborts")
        except (TeleportError, TimeoutError) as error:
            log.warning("ABORT: %s (the target ends by its own watch)", error)

    async def _claim(self) -> SourceEvent | None:
        return _CLAIMS[await self._claim_generation(self.prepared.generation + 1)]

    async def _claim_generation(self, generation: int) -> ClaimResult:
        result = await self.vm.record.claim(generation, self.me)
        if result is ClaimResult.WON:
            self.vm.generation = generation
        return result

    async def _take_back(self) -> SourceEvent | None:
        """After the target's ABORTED: whichever generation follows the newest that is the target's or ours."""
        result = await self._claim_generation(self.prepared.generation + 1)
        if result is ClaimResult.LOST:
            result = await self._claim_generation(self.prepared.generation + 2)
        elif result is ClaimResult.UNKNOWN and self.prepared.generation == 0:
            return E.CLAIM_WON  # no record: the target's word is all there is, and enough
        return _CLAIMS[result]

    async def _look_at_record(self) -> SourceEvent | None:
        try:
            view = await self.vm.record.read()
        except StorageError as error:
            log.warning("the owner record: %s", error)
            return E.RECORD_UNCHANGED
        if (
            view.generation > self.prepared.generation
            and view.owner.same_vm(self.me)
            and view.owner.epoch == self.prepared.epoch
        ):
            self.vm.generation = view.generation
            return E.RECORD_OURS
        if view.generation > self.prepared.generation + 1 or (view.generation == self.prepared.generation + 1 and view.started):
            return E.RECORD_STARTED
        return E.RECORD_UNCHANGED

    async def _kill_target(self) -> SourceEvent | None:
        try:
            if self._meeting and self._meeting.handle:
                await self._meeting.handle.kill_target()
                return None
            if self.prepared.target_pid:
                await kill_process(pid=self.prepared.target_pid, start_ticks=self.prepared.target_start_ticks)
                return None
        except HypervisorError as error:
            self.blame(str(error))
            self.kept_paused = f"its memory is still mapped by the target's QEMU, which cannot be ended from here ({error.why})"
        return E.RESUME_REFUSED

    async def _resume(self) -> SourceEvent | None:
        guest = self.vm.guest
        try:
            status = await guest.status()
            if status != "running":
                await guest.activate_disks()
                if not self.prepared.was_paused:
                    await guest.cont()
        except QemuGoneError:
            raise
        except HypervisorError as error:
            self.blame(str(error))
            log.warning("resuming: %s", error)
            self.kept_paused = f"its disks cannot be opened ({error.why})"
            with contextlib.suppress(
                HypervisorError
            ):  # part of the disks may be active: let all go, for whoever holds the rest
                await guest.deactivate_disks()
            return E.RESUME_REFUSED
        self.kept_paused = ""
        return E.RESUMED

    async def _quit_qemu(self) -> SourceEvent | None:
        await self.vm.guest.kill()
        return None

    async def _journal_resumed(self) -> SourceEvent | None:
        return self._note("resumed")

    async def let_tpm_go(self) -> None:
        """The TPM runs at the target: what is left of it here must never be used again."""
        if self.vm.definition.machine.tpm == "none":
            return
        where = f"to VM {self.prepared.target_vm!r} on {self.prepared.target_host} ({self.prepared.host})"
        try:
            await asyncio.to_thread(tpm_state.gone, self.vm.paths.folder, where)
        except StorageError as error:
            log.warning("the TPM that went away: %s", error)

    async def _journal_moved(self) -> SourceEvent | None:
        await self.let_tpm_go()
        return self._note("moved")

    def _note(self, kind: str) -> SourceEvent | None:
        try:
            self.journal.note(kind, reason=self.reason[:500])
        except StorageError as error:
            log.warning("journal: %s (a restart decides again by the record)", error)
        return None

    _effects = {
        F.STOP_GUEST: _stop_guest,
        F.MIGRATE: _migrate,
        F.CHECK_TARGET: _check_target,
        F.MIGRATE_CONTINUE: _migrate_continue,
        F.MIGRATE_CANCEL: _migrate_cancel,
        F.SEND_COMMIT: _send_commit,
        F.SEND_ABORT: _send_abort,
        F.CLAIM: _claim,
        F.TAKE_BACK: _take_back,
        F.LOOK_AT_RECORD: _look_at_record,
        F.KILL_TARGET: _kill_target,
        F.RESUME: _resume,
        F.QUIT_QEMU: _quit_qemu,
        F.JOURNAL_RESUMED: _journal_resumed,
        F.JOURNAL_MOVED: _journal_moved,
    }


_CLAIMS = {
    ClaimResult.WON: E.CLAIM_WON,
    ClaimResult.LOST: E.CLAIM_LOST,
    ClaimResult.UNKNOWN: E.CLAIM_UNKNOWN,
}
