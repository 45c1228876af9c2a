"""The source's half of an agent: one outgoing teleport, from the session to the end of its epoch.

The decisions are in `teleport.handover.source`; here is what its effects do, and who tells it what happened:
heartbeats (what the target says, or silence), QEMU's migration, QEMU's death, a person's cancel, the clock's tick.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable, Coroutine

from teleport.errors import CancelledError, GuestLostError, HypervisorError, StateError, StorageError, TeleportError
from teleport.handover.source import HEARD, SOURCE, SourceEffect, SourceEvent, SourcePhase
from teleport.host.guest import QemuGoneError, QemuStuckError
from teleport.host.process import kill_process
from teleport.host.ram import hash_guest_ram
from teleport.model import ClaimResult, Outcome, OutcomeKind, Owner, PlanName, Progress, Stage, TargetPhase, TargetReport
from teleport.runner.drive import Driver
from teleport.runner.epochs import EpochJournal, SourcePrepared
from teleport.runner.plans import PLANS, Outgoing
from teleport.runner.session import Meeting, meet
from teleport.runner.vm import RunningVm, TeleportOrder
from teleport.stream.progress import DowntimeSteps, Gauge, advance
from teleport.wire.transfer_client import TransferClient

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 0.5
ANSWER_SECONDS = 3.0
SILENCE_SECONDS = 10.0
TICK_SECONDS = 1.0
DOUBT_SECONDS = 30.0  # after COMMIT without an end: said to be in doubt, while the search for the end goes on
_PROGRESS_SECONDS = 0.2

P, E, F = SourcePhase, SourceEvent, SourceEffect
Emit = Callable[[Progress | str], None]


class SourceTeleport:
    """One epoch at the source. `outcome` is set once a person can be told; `run` returns when nothing is left to decide."""

    def __init__(self, vm: RunningVm, order: TeleportOrder, *, epoch: str, emit: Emit) -> None:
        self.vm = vm
        self.order = order
        self.epoch = epoch
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.outcome.add_done_callback(lambda future: future.cancelled() or future.exception())  # read or not, it was told
        self._emit = emit
        self._began = time.monotonic()
        self._journal = EpochJournal(vm.paths.journal, epoch, "source")
        self._peer = TransferClient(order.host, order.port)
        self._reason = ""
        self._cancelled = False
        self._preflight: asyncio.Task[Meeting] | None = None
        self._driver: Driver[SourcePhase, SourceEvent, SourceEffect] | None = None
        self._outgoing: Outgoing | None = None
        self._meeting: Meeting | None = None
        self._prepared: SourcePrepared | None = None
        self._report = TargetReport(TargetPhase.UNKNOWN)
        self._heard_at = 0.0
        self._paused_at_ns = 0
        self._resumed_ns = 0
        self._digest = ""
        self._sending: set[asyncio.Task[None]] = set()
        self._deciding: asyncio.Future[SourcePhase] | None = None
        self._settled: asyncio.Future[SourcePhase] = asyncio.get_running_loop().create_future()  # by a person

    @property
    def committed(self) -> bool:
        """COMMIT may have been sent: a cancel comes too late."""
        return self._driver is not None and self._driver.phase in (P.COMMITTED, P.DECIDING, P.DOUBT, P.MOVED)

    @property
    def phase(self) -> SourcePhase | None:
        """The handover's phase; None during the preflight."""
        return self._driver.phase if self._driver else None

    # ------------------------------------------------------------------ the whole of it
    async def run(self) -> Outcome:
        """Teleports. Refusals and failures raise TeleportError (also through `outcome`); the guest is then where it was."""
        try:
            result = await self._run()
        except TeleportError as error:
            if not self.outcome.done():
                self.outcome.set_exception(error)
            raise
        except asyncio.CancelledError:
            if not self.outcome.done():
                self.outcome.cancel()
            raise
        finally:
            if self._meeting:
                self._meeting.close()
            await self._peer.close_channel()
        if not self.outcome.done():
            self.outcome.set_result(result)
        return result

    async def _run(self) -> Outcome:
        self._emit(Progress(stage=Stage.CHECKING, percent=0))
        self._preflight = asyncio.ensure_future(meet(self.vm, self.order, self._peer, epoch=self.epoch, emit=self._emit))
        try:
            meeting = self._meeting = await self._preflight
        except asyncio.CancelledError:
            if not self._cancelled:
                raise
            raise CancelledError("teleport", "cancelled before anything moved", "the guest runs on here") from None
        if self.order.dry_run:
            await meeting.leave("dry run")
            return self._outcome(OutcomeKind.CHECKED, f"everything agrees; plan {meeting.plan.value} ({meeting.plan_reason})")
        self._prepared = SourcePrepared(
            epoch=self.epoch,
            generation=self.vm.generation,
            host=self.order.host,
            port=self.order.port,
            insecure=int(self.order.insecure),
            plan=meeting.plan.value,
            was_paused=int(meeting.paused),
            target_vm=meeting.target.vm_name,
            target_host=meeting.target.host,
            target_pid=meeting.target_process.pid if meeting.target_process else 0,
            target_start_ticks=meeting.target_process.start_ticks if meeting.target_process else 0,
        )
        try:
            self._journal.prepared(self._prepared)
            await self._configure(meeting.plan)
        except TeleportError as error:
            await meeting.leave(str(error))
            raise
        if self._cancelled:
            await meeting.leave("cancelled")
            raise CancelledError("teleport", "cancelled before anything moved", "the guest runs on here")
        return await self._decide(E.START)

    async def recover(self, prepared: SourcePrepared) -> Outcome:
        """A successor finishes the epoch that its predecessor journalled."""
        self._prepared = prepared
        try:
            status = await self.vm.guest.status()
            event = E.RESTARTED_RUNNING if status == "running" else E.RESTARTED_PAUSED
            if prepared.was_paused and (await self.vm.guest.migration()).status != "completed":
                event = E.RESTARTED_RUNNING  # a paused guest that was never handed over: a free abort
        except HypervisorError:
            event = E.RESTARTED_DEAD
        try:
            result = await self._decide(event)
        finally:
            await self._peer.close_channel()
        if not self.outcome.done():
            self.outcome.set_result(result)
        return result

    def cancel(self) -> str:
        """A person asks to stop; says what will come of it."""
        self._cancelled = True
        if self.committed:
            return "too late: the target already takes the guest over"
        self._reason = self._reason or "cancelled"
        if self._driver:
            self._driver.tell(E.CANCEL)
        elif self._preflight:
            self._preflight.cancel()
        return "cancelling: the guest runs on here"

    async def _configure(self, plan: PlanName) -> None:
        path = PLANS[plan]
        await self.vm.guest.configure_migration(path.source_capabilities(), {})
        steps = DowntimeSteps(allowed_ms=self.order.max_downtime_ms)
        await self.vm.guest.configure_migration(
            {},
            path.source_parameters(
                downtime_limit_ms=steps.limit_ms(0), max_bandwidth_bytes_per_second=self.order.max_bandwidth_bytes_per_second
            ),
        )
        self._outgoing = Outgoing(
            path, self.vm.guest, self._peer, epoch=self.epoch, socket_path=str(self.vm.runtime / "migration.sock")
        )

    async def _decide(self, first: SourceEvent) -> Outcome:
        assert self._prepared is not None
        shared = self._prepared.plan == PlanName.SHARED.value
        driver = self._driver = Driver(SOURCE, P.PREPARED, side="source", shared=shared, perform=self._perform)
        driver.tell(first)
        self._heard_at = time.monotonic()
        watchers = [self._heartbeats(), self._watch_qemu(), self._ticks(), self._doubt_deadline()]
        tasks = [asyncio.ensure_future(watcher) for watcher in watchers]
        self._deciding = asyncio.ensure_future(driver.run())
        try:
            await asyncio.wait({self._deciding, self._settled}, return_when=asyncio.FIRST_COMPLETED)
            if self._deciding.cancelled():
                await self._settled
            end = self._settled.result() if self._settled.done() else self._deciding.result()
        finally:
            self._deciding.cancel()
            for task in (*tasks, *self._sending):
                task.cancel()
            await asyncio.gather(*tasks, *self._sending, return_exceptions=True)
            if self._outgoing:
                self._outgoing.close()
        return await self._finish(end)

    async def _finish(self, end: SourcePhase) -> Outcome:
        if end is not P.LOST:
            with contextlib.suppress(TeleportError, TimeoutError):  # the target's silence watch ends the session as well
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self._peer.close(self.epoch)
        if end is P.MOVED:
            self._emit(Progress(stage=Stage.DONE, percent=100, sent_bytes=self._sent_bytes, plan=self._plan))
            return self._outcome(OutcomeKind.MOVED, "the guest runs at the target")
        if end is P.LOST:
            raise GuestLostError(
                "teleport", self._reason or "QEMU died at the source while it held the guest", "startvm starts it anew"
            )
        if self._cancelled:
            raise CancelledError("teleport", "cancelled", "the guest runs on here")
        raise HypervisorError("teleport", self._reason or "the handover was aborted", "the guest runs on here")

    # ------------------------------------------------------------------ who tells the machine what happened
    def _tell(self, event: SourceEvent, reason: str = "") -> None:
        if reason and not self._reason:
            self._reason = reason
        if self._driver:
            self._driver.tell(event)

    async def _heartbeats(self) -> None:
        said = TargetPhase.UNKNOWN
        while True:
            note = json.dumps({"percent": self._last_percent, "sent_bytes": self._sent_bytes})
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    report = await self._peer.query(self.epoch, note)
            except (TeleportError, TimeoutError) as error:
                if time.monotonic() - self._heard_at > SILENCE_SECONDS:
                    self._tell(E.SILENCE, f"the target has not answered for {SILENCE_SECONDS:g} s ({error})")
                    self._heard_at = time.monotonic()
            else:
                self._heard_at = time.monotonic()
                if report.phase is not said or report.phase in (TargetPhase.PREPARED, TargetPhase.LOADED):
                    self._hear(report)
                said = report.phase
            await asyncio.sleep(HEARTBEAT_SECONDS)

    def _hear(self, report: TargetReport) -> None:
        self._report = report
        self._tell(HEARD[report.phase], f"the target: {report.reason}" if report.reason else "")

    _last_percent = 0

    async def _watch_migration(self) -> None:
        """Tells what QEMU's migration reaches, and shows the progress of its rounds."""
        guest = self.vm.guest
        try:
            if await guest.wait_migration("pre-switchover") == "pre-switchover":
                self._paused_at_ns = self._paused_at_ns or time.monotonic_ns()
                self._tell(E.PRE_SWITCHOVER)
                self._emit(Progress(stage=Stage.SWITCHING_OVER, percent=95, sent_bytes=self._sent_bytes, plan=self._plan))
            end = await guest.wait_migration()
            if end == "completed":
                self._tell(E.COMPLETED)
            else:
                info = await guest.migration()
                self._tell(E.MIGRATION_FAILED, info.error or f"QEMU's migration was {end}")
        except QemuGoneError as error:
            self._tell(E.QEMU_DIED, str(error))
        except HypervisorError as error:
            self._tell(E.MIGRATION_FAILED, str(error))

    async def _show_rounds(self) -> None:
        gauge, steps, limit = Gauge(), DowntimeSteps(allowed_ms=self.order.max_downtime_ms), 0
        while self._driver and self._driver.phase is P.COPYING:
            info = await self.vm.guest.migration()
            gauge, progress = advance(gauge, info, now_seconds=time.monotonic(), sent_bytes=self._sent_bytes, plan=self._plan)
            self._last_percent = progress.percent
            self._emit(progress)
            wanted = steps.limit_ms(info.rounds)
            if wanted != limit:
                limit = wanted
                await self.vm.guest.configure_migration({}, {"downtime-limit": limit})
            await asyncio.sleep(_PROGRESS_SECONDS)

    async def _watch_stream(self) -> None:
        """A broken channel makes QEMU fail, and QEMU's own word decides; here only why is kept."""
        try:
            assert self._outgoing is not None
            await self._outgoing.broken()
        except TeleportError as error:
            self._reason = self._reason or str(error)

    async def _watch_qemu(self) -> None:
        words = await self.vm.guest.wait_dead()
        if self.phase is P.MOVED:
            return  # we ended it ourselves
        self._tell(E.QEMU_DIED, f"QEMU died at the source: {words}" if words else "QEMU died at the source")

    async def _ticks(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            if self._driver and self._driver.idle:
                self._driver.tell(E.TICK)

    async def _doubt_deadline(self) -> None:
        undecided_since = 0.0
        while True:
            await asyncio.sleep(TICK_SECONDS)
            phase = self._driver.phase if self._driver else P.PREPARED
            if phase not in (P.COMMITTED, P.DECIDING, P.DOUBT):
                undecided_since = 0.0
            elif not undecided_since:
                undecided_since = time.monotonic()
            elif time.monotonic() - undecided_since > DOUBT_SECONDS and not self.outcome.done():
                why = self._reason or "the target does not say whether it runs the guest"
                self.outcome.set_result(self._outcome(OutcomeKind.IN_DOUBT, why))

    # ------------------------------------------------------------------ effects
    async def _perform(self, effect: SourceEffect) -> SourceEvent | None:
        try:
            return await self._effects[effect](self)
        except QemuGoneError as error:
            self._reason = self._reason or str(error)
            return E.QEMU_DIED

    async def _stop_guest(self) -> SourceEvent | None:
        self._paused_at_ns = time.monotonic_ns()
        try:
            await self.vm.guest.stop()
        except HypervisorError as error:
            return self._failed(error)
        return None

    async def _migrate(self) -> SourceEvent | None:
        assert self._outgoing is not None
        try:
            await self._outgoing.start()
        except HypervisorError as error:
            return self._failed(error)
        for watcher in (self._watch_migration(), self._show_rounds(), self._watch_stream()):
            self._spawn(watcher)
        return None

    async def _check_target(self) -> SourceEvent | None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                self._report = await self._peer.query(self.epoch, "")
        except (TeleportError, TimeoutError) as error:
            self._reason = self._reason or f"the target does not answer at the switchover ({error})"
            return E.SILENCE
        event = HEARD[self._report.phase]
        self._reason = self._reason or self._report.reason
        return E.TARGET_ANSWERED if event is E.SAID_WAITING else event

    async def _migrate_continue(self) -> SourceEvent | None:
        try:
            if self.order.verify_ram:
                self._digest = await self._hash()
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
        if self._outgoing:
            self._outgoing.close()
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
        self._spawn(self._commit())
        return None

    async def _commit(self) -> None:
        try:
            self._hear(await self._peer.commit(self.epoch, self._digest))
        except TeleportError as error:
            log.warning("COMMIT: %s (the heartbeats go on)", error)

    async def _send_abort(self) -> SourceEvent | None:
        abort = self._spawn(self._abort())
        if not self._shared:
            await asyncio.wait({abort}, timeout=ANSWER_SECONDS)
        return None

    async def _abort(self) -> None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                self._report = await self._peer.abort(self.epoch, self._reason or "the source aborts")
        except (TeleportError, TimeoutError) as error:
            log.warning("ABORT: %s (the target ends by its own watch)", error)

    async def _claim(self) -> SourceEvent | None:
        return _CLAIMS[await self.vm.record.claim(self._generation + 1, self._me)]

    async def _take_back(self) -> SourceEvent | None:
        """After the target's ABORTED: whichever generation follows the newest that is the target's or ours."""
        result = await self.vm.record.claim(self._generation + 1, self._me)
        if result is ClaimResult.LOST:
            result = await self.vm.record.claim(self._generation + 2, self._me)
            if result is ClaimResult.WON:
                self.vm.generation = self._generation + 2
        elif result is ClaimResult.UNKNOWN and self.vm.generation == 0:
            return E.CLAIM_WON  # no record: the target's word is all there is, and enough
        return _CLAIMS[result]

    async def _look_at_record(self) -> SourceEvent | None:
        try:
            view = await self.vm.record.read()
        except StorageError as error:
            log.warning("the owner record: %s", error)
            return E.RECORD_UNCHANGED
        if view.generation > self._generation and view.owner.same_vm(self._me) and view.owner.epoch == self.epoch:
            return E.RECORD_OURS
        if view.generation > self._generation + 1 or (view.generation == self._generation + 1 and view.started):
            return E.RECORD_STARTED
        return E.RECORD_UNCHANGED

    async def _kill_target(self) -> SourceEvent | None:
        if self._meeting and self._meeting.handle:
            await self._meeting.handle.kill_target()
            return None
        prepared = self._prepared
        if prepared is None or not prepared.target_pid:
            return E.RESUME_REFUSED
        await kill_process(pid=prepared.target_pid, start_ticks=prepared.target_start_ticks)
        return None

    async def _resume(self) -> SourceEvent | None:
        guest = self.vm.guest
        try:
            status = await guest.status()
            if status != "running":
                await guest.activate_disks()
                if not self._was_paused:
                    await guest.cont()
        except QemuGoneError:
            raise
        except HypervisorError as error:
            self._reason = self._reason or str(error)
            log.warning("resuming: %s", error)
            return E.RESUME_REFUSED
        if self._driver and self._driver.phase is P.MINE:
            view = await self.vm.record.read() if self.vm.generation else None
            if view and view.owner.same_vm(self._me):
                self.vm.generation = view.generation
        return E.RESUMED

    async def _quit_qemu(self) -> SourceEvent | None:
        await self.vm.guest.kill()
        return None

    async def _journal_resumed(self) -> SourceEvent | None:
        return self._note("resumed")

    async def _journal_moved(self) -> SourceEvent | None:
        return self._note("moved")

    def _note(self, kind: str) -> SourceEvent | None:
        try:
            self._journal.note(kind, reason=self._reason[:500])
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

    # ------------------------------------------------------------------ a person decides (resolve)
    async def known(self) -> str:
        """What both sides and the record say, in lines."""
        lines = [f"this side: {self.phase.value if self.phase else 'checking'}; {self._reason or 'no reason noted'}"]
        lines += [f"  journal: {record}" for record in self._journal.records()]
        lines.append(f"the target's last word: {self._report.phase.value} {self._report.reason}".rstrip())
        try:
            view = await self.vm.record.read()
            started = ", noted that it runs" if view.started else ""
            lines.append(
                f"owner record: generation {view.generation}, {view.owner.vm_name or 'nobody'} on {view.owner.host}{started}"
            )
        except StorageError as error:
            lines.append(f"owner record: {error}")
        return "\n".join(lines)

    async def try_locks(self) -> None:
        """The image locks: while the target's QEMU lives on local files, they refuse. Raises StateError."""
        if self._report.phase in (TargetPhase.STARTED, TargetPhase.CLAIMED):
            raise StateError("resolve --run-here", "the target says that it owns the guest", "teleport resolve NAME --moved")
        try:
            await self.vm.guest.activate_disks()
        except HypervisorError as error:
            await self.vm.guest.deactivate_disks()
            raise StateError(
                "resolve --run-here", f"the target's QEMU still holds the disks ({error.why})", "end it there first"
            ) from error

    async def settle_here(self) -> None:
        """The guest runs here, by a person's word. The record is claimed first, so that a late target loses."""
        await self._stop_deciding()
        if self.vm.generation:
            view = await self.vm.record.read()
            if await self.vm.record.claim(view.generation + 1, self._me) is not ClaimResult.WON:
                raise StateError(
                    "resolve --run-here", "the owner record cannot be claimed", "look at the shared storage, and try again"
                )
            self.vm.generation = view.generation + 1
        if not self._was_paused:
            await self.vm.guest.cont()
        self._journal.note("resumed", reason="resolved by a person")
        self._settled.set_result(P.RESUMED)

    async def settle_moved(self) -> None:
        """The guest is the target's, by a person's word: the paused copy is let go."""
        await self._stop_deciding()
        await self.vm.guest.kill()
        self._journal.note("moved", reason="resolved by a person")
        self._settled.set_result(P.MOVED)

    async def _stop_deciding(self) -> None:
        if self._deciding:
            self._deciding.cancel()
            await asyncio.wait({self._deciding})

    # ------------------------------------------------------------------ small things
    @property
    def _me(self) -> Owner:
        return Owner(self.vm.me.host, self.vm.me.home, self.vm.me.vm_uuid, self.vm.me.vm_name, self.epoch)

    @property
    def _generation(self) -> int:
        """The generation that this side held when the epoch began."""
        return self._prepared.generation if self._prepared else self.vm.generation

    @property
    def _was_paused(self) -> bool:
        return bool(self._prepared and self._prepared.was_paused)

    @property
    def _plan(self) -> str:
        return self._prepared.plan if self._prepared else ""

    @property
    def _shared(self) -> bool:
        return self._plan == PlanName.SHARED.value

    @property
    def _sent_bytes(self) -> int:
        return self._outgoing.sent_bytes if self._outgoing else 0

    def _failed(self, error: HypervisorError) -> SourceEvent:
        self._reason = self._reason or str(error)
        return E.MIGRATION_FAILED

    async def _hash(self) -> str:
        return (await hash_guest_ram(self.vm.guest)).total

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Work beside the driver; it is cancelled and awaited when the driver ends."""
        task = asyncio.create_task(work)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        return task

    def _outcome(self, kind: OutcomeKind, message: str) -> Outcome:
        downtime_ns = 0
        if self._paused_at_ns and self._report.cont_monotonic_ns:
            # CLOCK_MONOTONIC is one clock on one host; between hosts the moment when the word arrived is the upper bound
            same_clock = self._meeting is not None and self._meeting.target.host == self.vm.me.host
            resumed_ns = self._report.cont_monotonic_ns if same_clock else time.monotonic_ns()
            downtime_ns = resumed_ns - self._paused_at_ns
        return Outcome(
            kind=kind,
            message=message,
            plan=self._plan or (self._meeting.plan.value if self._meeting else ""),
            target=f"{self.order.host}:{self.order.port}",
            target_vm=self._prepared.target_vm if self._prepared else "",
            target_qemu_pid=self._report.qemu_pid,
            sent_bytes=self._sent_bytes,
            total_ms=(time.monotonic() - self._began) * 1e3,
            downtime_ms=downtime_ns / 1e6,
            ram_verified=self._digest if self._digest and self._digest == self._report.ram_digest else "",
            display=self._report.display,
        )


_CLAIMS = {
    ClaimResult.WON: E.CLAIM_WON,
    ClaimResult.LOST: E.CLAIM_LOST,
    ClaimResult.UNKNOWN: E.CLAIM_UNKNOWN,
}
