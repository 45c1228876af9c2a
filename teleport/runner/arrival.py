"""One guest arriving: the target's QEMU of one session, and what the effects of `teleport.handover.target` do to it."""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from teleport.errors import HypervisorError, ProtocolError, StorageError, TeleportError
from teleport.handover.target import TARGET, UNCLAIMED, TargetEffect, TargetEvent, TargetStep, word
from teleport.host.firmware_variables import write_variables
from teleport.host.guest import QemuGoneError, QmpGuest
from teleport.host.pipe import connect_unix
from teleport.host.ram import hash_guest_ram
from teleport.host.same_host import HandleClient
from teleport.machines.firmware import VARIABLES_FILE
from teleport.model import (
    ClaimResult,
    Fact,
    GuestIdentity,
    Owner,
    PlanName,
    TargetPhase,
    TargetReport,
)
from teleport.runner.display import Offer
from teleport.runner.drive import Driver
from teleport.runner.epochs import EpochJournal, TargetPrepared
from teleport.runner.launch import ARRIVAL, Launched, Launcher
from teleport.runner.ownership import Record
from teleport.runner.plans import PLANS

log = logging.getLogger(__name__)

SETTLE_SECONDS = 20.0
TICK_SECONDS = 1.0
LEAVING_SECONDS = 15.0  # beyond one access to an owner record that does not answer
_KILL_SECONDS = 2.0
GIVE_UP_SECONDS = 8.0  # an owner record that does not answer: the source's silence starts to count at 10 s

P, E, F = TargetStep, TargetEvent, TargetEffect
_SETTLED = frozenset({TargetPhase.STARTED, TargetPhase.ABORTED, TargetPhase.GAVE_BACK, TargetPhase.LOST})


@dataclass(frozen=True)
class Arrived:
    """The guest is here: the QEMU that holds it, the generation it was claimed with, whether it arrived paused, and the folder of the
    source's display front when that comes with it."""

    launched: Launched
    guest: QmpGuest
    generation: int
    identity: GuestIdentity
    paused: bool
    display: str = ""


class Arrival:
    """The target's side of one epoch, from its QEMU's start to the end."""

    def __init__(
        self,
        launcher: Launcher,
        record: Record,
        *,
        prepared: TargetPrepared,
        verify_ram: bool = False,
        handle: HandleClient | None = None,
    ) -> None:
        self.epoch = prepared.epoch
        self.prepared = prepared
        self.reason = ""
        self.listening = False
        self.offer = Offer()
        self._launcher = launcher
        self._record = record
        self._verify_ram = verify_ram
        self._plan = PLANS[PlanName(prepared.plan)]
        self._handle = handle
        self._journal = EpochJournal(launcher.paths.journal, prepared.epoch, "target")
        self._launched: Launched | None = None
        self._guest: QmpGuest | None = None
        self._driver = Driver(TARGET, P.LOADING, side="target", shared=self._plan.stops_first, perform=self._perform)
        self._cont_ns = 0
        self._digest = ""
        self._wanted_digest = ""
        self._unknown_since = 0.0
        self._leaving = False
        self._running: asyncio.Task[None] | None = None
        self.note_again: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------ before the stream
    async def prepare(self) -> tuple[Fact, ...]:
        """Starts QEMU with the plan's RAM and returns what the machine is. Raises HypervisorError."""
        ram_fd = None
        if self._plan.name is PlanName.SHARED:
            if self._handle is None:
                raise ProtocolError("plan shared", "the two sides have not met on one host")
            ram_fd = await self._handle.fetch_ram()
        self._launched = await self._launcher.start(
            label=f"{ARRIVAL}{self.epoch[:8]}",
            identity=self.prepared.identity,
            incoming=True,
            ram_fd=ram_fd,
            prefault=ram_fd is None,
        )
        self._guest = await self._launcher.connect(self._launched)
        if self._handle and self._plan.name is PlanName.SHARED:  # otherwise the source has let it go
            await self._handle.give_process(self._launched.process)
        if ram_fd is None:
            await self._guest.take_ram()
        return await self._guest.facts()

    @property
    def screens(self) -> tuple[str, ...]:
        """Where this QEMU serves the guest's screens."""
        return self._launcher.screens(self._launched) if self._launched else ()

    async def listen(self) -> None:
        """Journals PREPARED, pre-creates the claim, and lets QEMU wait for the stream. Raises TeleportError."""
        assert self._guest is not None
        self._journal.prepared(self.prepared)
        if self.prepared.generation:
            await self._record.prepare_claim(self.prepared.generation + 1, self._me)
        await self._guest.configure_migration(self._plan.target_capabilities(), {"announce-rounds": 0})
        await self._guest.migrate_incoming(f"unix:{self._incoming_path}")
        self.listening = True

    async def discard(self) -> None:
        """Ends a QEMU that never began to load; nothing to do for one that the handover has ended."""
        if self._running:
            return
        if self._guest:
            await self._guest.kill()
            await self._guest.close()
        if self._launched:
            await self._launcher.forget(self._launched)
        if self._journal.path.exists():
            self._journal.note("aborted", reason=self.reason[:500])
        self.listening = False
        self._launched = self._guest = None

    async def channel(self, number: int) -> socket.socket:
        """A blocking connection to QEMU's incoming socket."""
        if number != 0:
            raise ProtocolError("stream", f"plan {self._plan.name.value} has no channel {number}")
        return await asyncio.to_thread(connect_unix, self._incoming_path)

    @property
    def _incoming_path(self) -> str:
        assert self._launched is not None
        return str(self._launched.folder / "in.sock")

    @property
    def _me(self) -> Owner:
        return self._launcher.owner(self.epoch)

    # ------------------------------------------------------------------ a successor's beginning
    async def recover(self, launched: Launched | None) -> None:
        """Takes up an epoch that a predecessor journalled; `launched` is its QEMU if it lives."""
        self.listening = True
        if launched is None:
            kinds = self._journal.kinds
            after_intent = "intent" in kinds and "not-run" not in kinds
            self._driver.tell(E.RESTARTED_DEAD_AFTER_INTENT if after_intent else E.RESTARTED_DEAD)
            return
        self._launched = launched
        self._guest = await self._launcher.connect(launched)
        running = await self._guest.status() == "running"
        started_paused = self.prepared.paused and "intent" in self._journal.kinds
        if started_paused and not running:  # the predecessor may have died between its word and the variables
            try:
                await self._keep_variables(self._guest)
            except (HypervisorError, StorageError) as error:
                log.warning("EFI variables: %s (QEMU writes them when the guest goes on)", error)
        runs = running or started_paused or "started" in self._journal.kinds
        self._driver.tell(E.RESTARTED_RUNNING if runs else E.RESTARTED_WAITING)

    # ------------------------------------------------------------------ driving
    def start(self, settled: Callable[[Arrived | None], Awaitable[None]]) -> None:
        """Drives the handover in the background; `settled` hears of its end."""
        self._running = asyncio.create_task(self._run(settled), name=f"arrival {self.epoch}")
        self._running.add_done_callback(_log_failure)

    def tell(self, event: TargetEvent, reason: str = "") -> None:
        """An event from outside."""
        self.reason = self.reason or reason
        self._driver.tell(event)

    def commit(self, ram_digest: str) -> None:
        """COMMIT."""
        self._wanted_digest = ram_digest
        self._driver.tell(E.COMMIT)

    def abort(self, reason: str) -> None:
        """ABORT, or REVOKED."""
        self.tell(E.ABORT, reason)

    async def leave(self, reason: str) -> None:
        """This agent has to go (its guardian is gone), and nobody takes its place by himself. Returns when it may.

        A guest that was not claimed yet is refused: its QEMU ends, and the source has it back. One that was claimed is brought to its
        end: it runs here, or is given back. Where that takes too long, a QEMU that may own its guest is left to a successor; one
        that never said `cont` and never will is ended even then, or its open disks would keep the source from going on.
        """
        self._leaving = True
        self.abort(reason)
        if self._running is None:
            return
        await asyncio.wait({self._running}, timeout=LEAVING_SECONDS)
        if self._running.done():
            return
        self._running.cancel()
        await asyncio.wait({self._running})
        if self._driver.phase in UNCLAIMED and self._guest:
            log.error(
                "epoch %s could not be ended in time: its QEMU is killed, the next agent finds out about its claim", self.epoch
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_KILL_SECONDS):
                    await self._guest.kill()

    def report(self) -> TargetReport:
        """This side's word now."""
        return TargetReport(
            phase=word(self._driver.phase, self._driver.pending),
            reason=self.reason,
            qemu_pid=self._launched.process.pid if self._launched else 0,
            ram_digest=self._digest,
            cont_monotonic_ns=self._cont_ns,
            display=self.offer.where,
            display_taken=bool(self.prepared.display),
            display_screens=self.offer.screens,
        )

    async def settled(self) -> TargetReport:
        """The word once it is final, or the word so far after SETTLE_SECONDS."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS), self._driver.changed:
                await self._driver.changed.wait_for(lambda: self.report().phase in _SETTLED)
        return self.report()

    async def _run(self, settled: Callable[[Arrived | None], Awaitable[None]]) -> None:
        tasks = [asyncio.create_task(watcher) for watcher in (self._watch_load(), self._watch_qemu(), self._ticks())]
        try:
            end = await self._driver.run()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        log.info("epoch %s ended here as %s %s", self.epoch, end.value, self.reason)
        self.listening = False
        if end is P.STARTED and self._launched and self._guest:
            generation = self.prepared.generation + 1 if self.prepared.generation else 0
            await settled(
                Arrived(
                    launched=self._launched,
                    guest=self._guest,
                    generation=generation,
                    identity=self.prepared.identity,
                    paused=bool(self.prepared.paused),
                    display=self.prepared.display,
                )
            )
            return
        await self._record.discard_claim()
        await settled(None)

    async def _watch_load(self) -> None:
        if self._guest is None:
            return
        try:
            status = await self._guest.wait_migration()
            if status == "completed":
                self.tell(E.COMPLETED)
            else:
                self.tell(E.LOAD_FAILED, (await self._guest.migration()).error or f"QEMU could not load the guest ({status})")
        except QemuGoneError as error:
            self.tell(E.QEMU_DIED, str(error))
        except HypervisorError as error:
            self.tell(E.LOAD_FAILED, str(error))

    async def _watch_qemu(self) -> None:
        if self._guest is None:
            return
        words = await self._guest.wait_dead()
        self.tell(E.QEMU_DIED, f"QEMU died at the target: {words}" if words else "QEMU died at the target")

    async def _ticks(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            if self._unknown_since and time.monotonic() - self._unknown_since > GIVE_UP_SECONDS:
                self.tell(E.GIVE_UP, "the owner record cannot be reached")
                self._unknown_since = 0.0
            elif self._driver.idle:
                self._driver.tell(E.TICK)

    # ------------------------------------------------------------------ effects
    async def _perform(self, effect: TargetEffect) -> TargetEvent | None:
        return await self._effects[effect](self)

    async def _activate(self) -> TargetEvent:
        assert self._guest is not None
        try:
            if self._verify_ram:
                self._digest = (await hash_guest_ram(self._guest)).total
                if self._wanted_digest and self._digest != self._wanted_digest:
                    self.reason = (
                        f"the guest's memory arrived damaged (source {self._wanted_digest[:16]}, here {self._digest[:16]})"
                    )
                    return E.ACTIVATE_FAILED
            await self._guest.activate_disks()
        except QemuGoneError as error:
            self.reason = self.reason or str(error)
            return E.QEMU_DIED
        except HypervisorError as error:
            self.reason = self.reason or str(error)
            return E.ACTIVATE_FAILED
        return E.ACTIVATED

    async def _claim(self) -> TargetEvent:
        if self._leaving:
            return E.GIVE_UP
        if not self.prepared.generation:
            return E.CLAIM_WON  # no record on either side: nobody to compete with
        result = await self._record.claim(self.prepared.generation + 1, self._me)
        if result is ClaimResult.UNKNOWN:
            self._unknown_since = self._unknown_since or time.monotonic()
            return E.CLAIM_UNKNOWN
        self._unknown_since = 0.0
        if result is ClaimResult.LOST:
            self.reason = self.reason or "the source took the guest back"
            return E.CLAIM_LOST
        return E.CLAIM_WON

    async def _journal_intent(self) -> TargetEvent | None:
        assert self._launched is not None
        try:
            if self._launched.tpm_state:
                await asyncio.to_thread(self._launcher.adopt_tpm, self._launched)
            self._journal.note("intent")
        except StorageError as error:
            self.reason = self.reason or str(error)
            return E.JOURNAL_FAILED
        return None

    async def _cont(self) -> TargetEvent:
        assert self._guest is not None
        try:
            if self.prepared.paused:
                await self._keep_variables(self._guest)
            else:
                await self._guest.cont()
            self._cont_ns = time.monotonic_ns()
        except (HypervisorError, StorageError) as error:
            self.reason = self.reason or str(error)
            return E.CONT_REFUSED
        return E.CONTINUED

    async def _keep_variables(self, guest: QmpGuest) -> None:
        """QEMU writes the EFI variables at `cont`, which a guest that stays paused may never see."""
        if self._launcher.definition.machine.firmware != "bios":
            await write_variables(guest, self._launcher.paths.folder / VARIABLES_FILE)

    async def _journal_started(self) -> None:
        self._note("started")

    async def _note_started(self) -> None:
        if self.prepared.generation:
            try:
                await self._record.note_started(self.prepared.generation + 1)
            except StorageError as error:
                log.warning("noting that the guest runs: %s (tried again)", error)
                self.note_again = asyncio.create_task(self._keep_noting(), name=f"note of {self.epoch}")

    async def _keep_noting(self) -> None:
        """A source that cannot hear us reads the note: it is written as soon as the storage is back."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            with contextlib.suppress(StorageError):
                await self._record.note_started(self.prepared.generation + 1)
                return

    async def _announce(self) -> None:
        if self._guest and not self.prepared.paused:
            with contextlib.suppress(HypervisorError):  # the guest runs; switches learn its place with its next packet
                await self._guest.announce()

    async def _kill_qemu(self) -> None:
        if self._guest:
            await self._guest.kill()
            await self._guest.close()
        if self._launched:
            await self._launcher.forget(self._launched)

    async def _journal_aborted(self) -> None:
        self._note("aborted")

    async def _journal_not_run(self) -> TargetEvent | None:
        try:
            self._journal.note("not-run")
        except StorageError:
            return E.JOURNAL_FAILED
        return None

    async def _journal_gave_back(self) -> None:
        self._note("gave-back")

    def _note(self, kind: str) -> None:
        try:
            self._journal.note(kind, reason=self.reason[:500])
        except StorageError as error:
            log.warning("journal: %s (a restart asks QEMU and the record)", error)

    async def _give_back(self) -> TargetEvent:
        """g+2 for the source, when g+1 is ours; otherwise there is nothing to give back."""
        generation = self.prepared.generation
        if not generation:
            return E.CLAIM_LOST
        try:
            view = await self._record.read()
        except TeleportError:
            return E.CLAIM_UNKNOWN
        if view.generation != generation + 1 or not view.owner.same_vm(self._me):
            return E.CLAIM_LOST
        return _CLAIMS[await self._record.claim(generation + 2, self.prepared.source)]

    async def _tell(self) -> None:
        """Whoever waits in `settled` is woken by the driver once this effect is done."""

    _effects = {
        F.ACTIVATE: _activate,
        F.CLAIM: _claim,
        F.JOURNAL_INTENT: _journal_intent,
        F.CONT: _cont,
        F.JOURNAL_STARTED: _journal_started,
        F.NOTE_STARTED: _note_started,
        F.ANNOUNCE: _announce,
        F.KILL_QEMU: _kill_qemu,
        F.JOURNAL_ABORTED: _journal_aborted,
        F.JOURNAL_NOT_RUN: _journal_not_run,
        F.GIVE_BACK: _give_back,
        F.JOURNAL_GAVE_BACK: _journal_gave_back,
        F.TELL: _tell,
    }


_CLAIMS = {
    ClaimResult.WON: E.CLAIM_WON,
    ClaimResult.LOST: E.CLAIM_LOST,
    ClaimResult.UNKNOWN: E.CLAIM_UNKNOWN,
}


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("an arrival failed", exc_info=error)


_WORDS = {"aborted": TargetPhase.ABORTED, "gave-back": TargetPhase.GAVE_BACK, "started": TargetPhase.STARTED}


def word_of_journal(folder: Path, epoch: str) -> TargetReport:
    """What this host's journal says of an epoch that has no session any more."""
    records = EpochJournal(folder, epoch, "target").records()
    for record in reversed(records):
        if phase := _WORDS.get(str(record["kind"])):
            taken = bool(records[0].get("display"))
            return TargetReport(phase, reason=str(record.get("reason", "")), display_taken=taken)
    return TargetReport(TargetPhase.UNKNOWN)
