"""The source's half of an agent: one outgoing teleport, from the session to the end of its epoch.

The decisions are in `teleport.handover.source`, what its effects do in `teleport.runner.departure`; here is who tells it what
happened: heartbeats (what the target says, or silence), QEMU's migration, QEMU's death, a person's cancel, the clock's tick.
"""

import asyncio
import contextlib
import logging
import shlex
import time
from collections.abc import Callable
from typing import Any

from teleport.errors import CancelledError, GuestLostError, HypervisorError, TeleportError
from teleport.handover.source import SOURCE, SourceEffect, SourceEvent, SourcePhase
from teleport.host.monitors import QemuGoneError
from teleport.model import Outcome, OutcomeKind, PlanName, Progress, Stage, TargetPhase
from teleport.runner.departure import ANSWER_SECONDS, SILENCE_SECONDS, Departure
from teleport.runner.drive import Driver
from teleport.runner.epochs import EpochJournal, SourcePrepared
from teleport.runner.plans import PLANS, Outgoing
from teleport.runner.resolving import Resolving
from teleport.runner.session import Meeting, meet
from teleport.runner.vm import RunningVm, TeleportOrder
from teleport.stream.progress import DowntimeSteps, Gauge, advance, describe
from teleport.wire.transfer_client import TransferClient

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 0.5
TICK_SECONDS = 1.0
KEPT_SECONDS = 10.0  # the guest is back, and its disks or memory are still held at the target
DOUBT_SECONDS = 30.0  # after COMMIT without an end: said to be in doubt, while the search for the end goes on
_PROGRESS_SECONDS = 0.2
_RUNS_ON = "the guest runs on here"

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
        self._stopped: TeleportError | None = None  # somebody asked to stop: what the command ends with
        self._preflight: asyncio.Task[Meeting] | None = None
        self._meeting: Meeting | None = None
        self._driver: Driver[SourcePhase, SourceEvent, SourceEffect] | None = None
        self._departure: Departure | None = None
        self._deciding: asyncio.Future[SourcePhase] | None = None
        self._settled: asyncio.Future[SourcePhase] = asyncio.get_running_loop().create_future()  # by a person
        self._heard_at = 0.0
        self._look = ""  # the last one at the progress, in words: for the target
        self._display = ""  # where the guest's display is, once the guest has moved

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
            if self._stopped is None:
                raise
            raise self._stopped from None
        if self.order.dry_run:
            await meeting.leave("dry run")
            return self._outcome(OutcomeKind.CHECKED, f"everything agrees; plan {meeting.plan.value} ({meeting.plan_reason})")
        prepared = SourcePrepared(
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
            self._journal.prepared(prepared)
            outgoing = await self._configured(meeting.plan)
            await self.vm.usb.unplug_all(
                self.vm.guest, "the guest is moving"
            )  # QEMU plugs and unplugs nothing while it migrates
        except TeleportError as error:
            await meeting.leave(str(error))
            raise
        if self._stopped:
            await meeting.leave(self._stopped.why)
            raise self._stopped
        return await self._decide(E.START, self._leaving(prepared, outgoing))

    async def recover(self, prepared: SourcePrepared) -> Outcome:
        """A successor finishes the epoch that its predecessor journalled."""
        try:
            status = await self.vm.guest.status()
            # COMMIT is only ever sent behind a migration that is completed: without one this is a free abort, also of a guest that is
            # paused (it was before, or plan shared stopped it, or QEMU waits in pre-switchover, for ever, for its word to continue)
            never_sent = status == "running" or (await self.vm.guest.migration()).status != "completed"
            event = E.RESTARTED_RUNNING if never_sent else E.RESTARTED_PAUSED
        except HypervisorError:
            event = E.RESTARTED_DEAD
        try:
            result = await self._decide(event, self._leaving(prepared, None))
        finally:
            await self._peer.close_channel()
        if not self.outcome.done():
            self.outcome.set_result(result)
        return result

    def cancel(self) -> str:
        """A person asks to stop; says what will come of it."""
        is_late = self.committed
        self.stop(CancelledError("teleport", "cancelled", _RUNS_ON))
        return "too late: the target already takes the guest over" if is_late else "cancelling: the guest runs on here"

    def stop(self, error: TeleportError) -> None:
        """The guest is to go on here, and the command to end with `error`. From COMMIT on this changes nothing."""
        if self.committed:
            return
        self._stopped = error
        if self._driver and self._departure:
            self._departure.blame(error.why)
            self._driver.tell(E.CANCEL)
        elif self._preflight:
            self._preflight.cancel()

    @property
    def resolving(self) -> Resolving | None:
        """What a person can do about it, once it is in doubt."""
        if self._departure is None or self._deciding is None:
            return None
        return Resolving(self._departure, settle=self._settled.set_result, stop=self._stop_deciding)

    async def _stop_deciding(self) -> None:
        if self._deciding:
            self._deciding.cancel()
            await asyncio.wait({self._deciding})

    async def _configured(self, plan: PlanName) -> Outgoing:
        path = PLANS[plan]
        steps = DowntimeSteps(allowed_ms=self.order.max_downtime_ms)
        parameters = path.source_parameters(
            downtime_limit_ms=steps.limit_ms(0), max_bandwidth_bytes_per_second=self.order.max_bandwidth_bytes_per_second
        )
        await self.vm.guest.configure_migration(path.source_capabilities(), {})
        await self.vm.guest.configure_migration({}, parameters)
        return Outgoing(path, self.vm.guest, self._peer, epoch=self.epoch, socket_path=str(self.vm.runtime / "migration.sock"))

    def _leaving(self, prepared: SourcePrepared, outgoing: Outgoing | None) -> Departure:
        return Departure(
            self.vm,
            self._peer,
            prepared,
            journal=self._journal,
            tell=self._tell,
            under_way=self._watch_stream,
            meeting=self._meeting,
            outgoing=outgoing,
            verify_ram=self.order.verify_ram,
        )

    async def _decide(self, first: SourceEvent, departure: Departure) -> Outcome:
        self._departure = departure
        driver = self._driver = Driver(SOURCE, P.PREPARED, side="source", shared=departure.shared, perform=departure.perform)
        driver.tell(first)
        self._heard_at = time.monotonic()
        watchers = (
            self._heartbeats(departure),
            self._watch_qemu(departure),
            self._ticks(driver),
            self._deadlines(departure),
        )
        for watcher in watchers:
            departure.beside(watcher)
        self._deciding = asyncio.ensure_future(driver.run())
        try:
            await asyncio.wait({self._deciding, self._settled}, return_when=asyncio.FIRST_COMPLETED)
            if self._deciding.cancelled():
                await self._settled
            end = self._settled.result() if self._settled.done() else self._deciding.result()
        finally:
            self._deciding.cancel()
            await departure.end()
        return await self._finish(end, departure)

    async def _finish(self, end: SourcePhase, departure: Departure) -> Outcome:
        if end is P.MOVED:  # before anything else: viewers are waiting
            self._display = await self.vm.display.left(departure.report, host=self.order.host)
        if end is not P.LOST:
            with contextlib.suppress(TeleportError, TimeoutError):  # the target's silence watch ends the session as well
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self._peer.close(self.epoch)
        if end is P.MOVED:
            self._show(Stage.DONE, 100, departure)
            return self._outcome(OutcomeKind.MOVED, "the guest runs at the target")
        if end is P.LOST:
            raise GuestLostError(
                "teleport", departure.reason or "QEMU died at the source while it held the guest", "startvm starts it anew"
            )
        raise self._stopped or HypervisorError("teleport", departure.reason or "the handover was aborted", _RUNS_ON)

    # ------------------------------------------------------------------ who tells the machine what happened
    def _tell(self, event: SourceEvent) -> None:
        if self._driver:
            self._driver.tell(event)

    async def _heartbeats(self, departure: Departure) -> None:
        said = TargetPhase.UNKNOWN
        while True:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    report = await self._peer.query(self.epoch, self._look)
            except (TeleportError, TimeoutError) as error:
                if time.monotonic() - self._heard_at > SILENCE_SECONDS:
                    departure.blame(f"the target has not answered for {SILENCE_SECONDS:g} s ({error})")
                    self._tell(E.SILENCE)
                    self._heard_at = time.monotonic()
            else:
                self._heard_at = time.monotonic()
                if report.phase is not said or report.phase in (TargetPhase.PREPARED, TargetPhase.LOADED):
                    departure.hear(report)
                said = report.phase
            await asyncio.sleep(HEARTBEAT_SECONDS)

    def _watch_stream(self) -> None:
        departure = self._departure
        if departure:
            for watcher in (self._watch_migration(departure), self._show_rounds(departure), self._keep_reason(departure)):
                departure.beside(watcher)

    async def _watch_migration(self, departure: Departure) -> None:
        """Tells what QEMU's migration reaches."""
        guest = self.vm.guest
        try:
            if await guest.wait_migration("pre-switchover") == "pre-switchover":
                departure.paused_at_ns = departure.paused_at_ns or time.monotonic_ns()
                self._tell(E.PRE_SWITCHOVER)
                self._show(Stage.SWITCHING_OVER, 95, departure)
            end = await guest.wait_migration()
            if end != "completed":
                departure.blame((await guest.migration()).error or f"QEMU's migration was {end}")
            self._tell(E.COMPLETED if end == "completed" else E.MIGRATION_FAILED)
        except QemuGoneError as error:
            departure.blame(str(error))
            self._tell(E.QEMU_DIED)
        except HypervisorError as error:
            departure.blame(str(error))
            self._tell(E.MIGRATION_FAILED)

    def _show(self, stage: Stage, percent: int, departure: Departure) -> None:
        look = Progress(stage=stage, percent=percent, sent_bytes=departure.sent_bytes, plan=departure.prepared.plan)
        self._look = describe(look)
        self._emit(look)

    async def _show_rounds(self, departure: Departure) -> None:
        """The progress of QEMU's rounds, and a longer downtime limit for a guest that keeps its memory busy."""
        gauge, steps = Gauge(), DowntimeSteps(allowed_ms=self.order.max_downtime_ms)
        limit_ms = steps.limit_ms(0)
        with contextlib.suppress(HypervisorError):  # whoever watches the migration says what that means
            while self.phase is P.COPYING:
                info = await self.vm.guest.migration()
                gauge, progress = advance(
                    gauge,
                    info,
                    now_seconds=time.monotonic(),
                    sent_bytes=departure.sent_bytes,
                    plan=departure.prepared.plan,
                )
                self._look = describe(progress)
                self._emit(progress)
                if (wanted_ms := steps.limit_ms(info.rounds)) != limit_ms:
                    limit_ms = wanted_ms
                    await self.vm.guest.configure_migration({}, {"downtime-limit": limit_ms})
                await asyncio.sleep(_PROGRESS_SECONDS)

    async def _keep_reason(self, departure: Departure) -> None:
        """A broken channel makes QEMU fail, and QEMU's own word decides; here only why is kept."""
        try:
            if departure.outgoing:
                await departure.outgoing.broken()
        except TeleportError as error:
            departure.blame(str(error))

    async def _watch_qemu(self, departure: Departure) -> None:
        words = await self.vm.guest.wait_dead()
        if self.phase is P.MOVED:
            return  # we ended it ourselves
        departure.blame(f"QEMU died at the source: {words}" if words else "QEMU died at the source")
        self._tell(E.QEMU_DIED)

    async def _ticks(self, driver: Driver[SourcePhase, SourceEvent, SourceEffect]) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            if driver.idle:
                driver.tell(E.TICK)

    async def _deadlines(self, departure: Departure) -> None:
        """Whoever waits for the end is told what keeps it from coming; the search for it goes on."""
        undecided_since = kept_since = 0.0
        while not self.outcome.done():
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            undecided_since = (undecided_since or now) if self.phase in (P.COMMITTED, P.DECIDING, P.DOUBT) else 0.0
            kept_since = (kept_since or now) if departure.kept_paused else 0.0
            if self.outcome.done():
                return
            if undecided_since and now - undecided_since > DOUBT_SECONDS:
                why = departure.reason or "the target does not say whether it runs the guest"
                self.outcome.set_result(self._outcome(OutcomeKind.IN_DOUBT, why))
            elif kept_since and now - kept_since > KEPT_SECONDS:
                self.outcome.set_exception(self._kept(departure))

    def _kept(self, departure: Departure) -> HypervisorError:
        """The guest is this side's again, and still cannot go on: what its target's QEMU holds is the target's host's to free."""
        there = f"{departure.prepared.target_vm!r} on {departure.prepared.host}"
        return HypervisorError(
            "teleport",
            f"the guest is back here but stays paused: {departure.kept_paused} ({departure.reason})",
            f"VM {there} holds it without a runner: `teleport startvm {shlex.quote(departure.prepared.target_vm)}` there brings one "
            "that lets go, and the guest runs on here by itself",
        )

    def _outcome(self, kind: OutcomeKind, message: str) -> Outcome:
        departure, meeting = self._departure, self._meeting
        common: dict[str, Any] = {
            "kind": kind,
            "message": message,
            "target": f"{self.order.host}:{self.order.port}",
            "total_ms": (time.monotonic() - self._began) * 1e3,
        }
        if departure is None:
            return Outcome(**common, plan=meeting.plan.value if meeting else "")
        report = departure.report
        resumed_ns = 0
        if report.cont_monotonic_ns:
            # CLOCK_MONOTONIC is one clock on one host; between hosts the moment when the word arrived is the upper bound
            same_clock = meeting is not None and meeting.target.host == self.vm.me.host
            resumed_ns = report.cont_monotonic_ns if same_clock else time.monotonic_ns()

        def until_cont_ms(began_ns: int) -> float:
            return (resumed_ns - began_ns) / 1e6 if began_ns and resumed_ns else 0.0

        return Outcome(
            **common,
            plan=departure.prepared.plan,
            target_vm=departure.prepared.target_vm,
            target_qemu_pid=report.qemu_pid,
            sent_bytes=departure.sent_bytes,
            downtime_ms=until_cont_ms(departure.paused_at_ns),
            migrate_ms=until_cont_ms(departure.migrate_at_ns),
            ram_verified=departure.digest if departure.digest and departure.digest == report.ram_digest else "",
            display=self._display,
        )
