"""One guest arriving: the target's QEMU of one session, from its start to the handover's end.

The decisions are in `teleport.handover.target`, what its effects do in `teleport.runner.takeover`; here is who tells it what happened.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from teleport.errors import HypervisorError, ProtocolError, StorageError
from teleport.handover.target import TARGET, UNCLAIMED, TargetEvent, TargetStep, word
from teleport.host.guest import QmpGuest
from teleport.host.monitors import QemuGoneError
from teleport.host.pipe import connect_unix
from teleport.host.priority import hurry_streams
from teleport.host.same_host import HandleClient
from teleport.model import Fact, GuestIdentity, PlanName, TargetPhase, TargetReport
from teleport.runner.display import Offer
from teleport.runner.drive import Driver
from teleport.runner.epochs import EpochJournal, TargetPrepared
from teleport.runner.launch import ARRIVAL, Launched, Launcher
from teleport.runner.ownership import Record
from teleport.runner.plans import PLANS
from teleport.runner.takeover import TICK_SECONDS, Takeover

log = logging.getLogger(__name__)

SETTLE_SECONDS = 20.0
LEAVING_SECONDS = 15.0  # beyond one access to an owner record that does not answer
_KILL_SECONDS = 2.0
GIVE_UP_SECONDS = 8.0  # an owner record that does not answer: the source's silence starts to count at 10 s

P, E = TargetStep, TargetEvent
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
        self.listening = False
        self.offer = Offer()
        self._launcher = launcher
        self._record = record
        self._plan = PLANS[PlanName(prepared.plan)]
        self._handle = handle
        self._journal = EpochJournal(launcher.paths.journal, prepared.epoch, "target")
        self._takeover = Takeover(launcher, record, prepared, journal=self._journal, verify_ram=verify_ram)
        self._driver = Driver(TARGET, P.LOADING, side="target", shared=self._plan.stops_first, perform=self._takeover.perform)
        self._running: asyncio.Task[None] | None = None

    @property
    def reason(self) -> str:
        """The first thing that went wrong."""
        return self._takeover.reason

    # ------------------------------------------------------------------ before the stream
    async def prepare(self) -> tuple[Fact, ...]:
        """Starts QEMU with the plan's RAM and returns what the machine is. Raises HypervisorError."""
        ram_fd = None
        if self._plan.name is PlanName.SHARED:
            if self._handle is None:
                raise ProtocolError("plan shared", "the two sides have not met on one host")
            ram_fd = await self._handle.fetch_ram()
        self._takeover.launched = await self._launcher.start(
            label=f"{ARRIVAL}{self.epoch[:8]}",
            identity=self.prepared.identity,
            incoming=True,
            ram_fd=ram_fd,
            prefault=ram_fd is None,
        )
        self._takeover.guest = await self._launcher.connect(self._takeover.launched)
        if self._handle and self._plan.name is PlanName.SHARED:  # otherwise the source has let it go
            await self._handle.give_process(self._takeover.launched.process)
        if ram_fd is None:
            await self._takeover.guest.take_ram()
        return await self._takeover.guest.facts()

    @property
    def screens(self) -> tuple[str, ...]:
        """Where this QEMU serves the guest's screens."""
        return self._launcher.screens(self._takeover.launched) if self._takeover.launched else ()

    async def listen(self) -> None:
        """Journals PREPARED, pre-creates the claim, and lets QEMU wait for the stream. Raises TeleportError."""
        assert self._takeover.guest is not None
        self._journal.prepared(self.prepared)
        if self.prepared.generation:
            await self._record.prepare_claim(self.prepared.generation + 1, self._takeover.me)
        await self._takeover.guest.configure_migration(self._plan.target_capabilities(), {"announce-rounds": 0})
        await self._takeover.guest.migrate_incoming(f"unix:{self._incoming_path}")
        self.listening = True

    async def discard(self) -> None:
        """Ends a QEMU that never began to load; nothing to do for one that the handover has ended."""
        if self._running:
            return
        await self._takeover.end_qemu()
        if self._journal.path.exists():
            self._journal.note("aborted", reason=self.reason[:500])
        self.listening = False
        self._takeover.launched = self._takeover.guest = None

    async def channel(self, number: int) -> socket.socket:
        """A blocking connection to QEMU's incoming socket."""
        if number != 0:
            raise ProtocolError("stream", f"plan {self._plan.name.value} has no channel {number}")
        connected = await asyncio.to_thread(connect_unix, self._incoming_path)
        if self._takeover.guest:
            self._takeover.guest.hurry_loading()
        hurry_streams()
        return connected

    @property
    def _incoming_path(self) -> str:
        assert self._takeover.launched is not None
        return str(self._takeover.launched.folder / "in.sock")

    # ------------------------------------------------------------------ a successor's beginning
    async def recover(self, launched: Launched | None) -> None:
        """Takes up an epoch that a predecessor journalled; `launched` is its QEMU if it lives."""
        self.listening = True
        if launched is None:
            kinds = self._journal.kinds
            after_intent = "intent" in kinds and "not-run" not in kinds
            self._driver.tell(E.RESTARTED_DEAD_AFTER_INTENT if after_intent else E.RESTARTED_DEAD)
            return
        self._takeover.launched = launched
        self._takeover.guest = await self._launcher.connect(launched)
        running = await self._takeover.guest.status() == "running"
        started_paused = self.prepared.paused and "intent" in self._journal.kinds
        if started_paused and not running:  # the predecessor may have died between its word and the variables
            try:
                await self._takeover.keep_variables(self._takeover.guest)
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
        self._takeover.reason = self.reason or reason
        self._driver.tell(event)

    def commit(self, ram_digest: str) -> None:
        """COMMIT."""
        self._takeover.wanted_digest = ram_digest
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
        self._takeover.is_leaving = True
        self.abort(reason)
        if self._running is None:
            return
        await asyncio.wait({self._running}, timeout=LEAVING_SECONDS)
        if self._running.done():
            return
        self._running.cancel()
        await asyncio.wait({self._running})
        if self._driver.phase in UNCLAIMED and self._takeover.guest:
            log.error(
                "epoch %s could not be ended in time: its QEMU is killed, the next agent finds out about its claim", self.epoch
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_KILL_SECONDS):
                    await self._takeover.guest.kill()

    def report(self) -> TargetReport:
        """This side's word now."""
        return TargetReport(
            phase=word(self._driver.phase, self._driver.pending),
            reason=self.reason,
            qemu_pid=self._takeover.launched.process.pid if self._takeover.launched else 0,
            ram_digest=self._takeover.digest,
            cont_monotonic_ns=self._takeover.cont_ns,
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
        if end is P.STARTED and self._takeover.launched and self._takeover.guest:
            generation = self.prepared.generation + 1 if self.prepared.generation else 0
            await settled(
                Arrived(
                    launched=self._takeover.launched,
                    guest=self._takeover.guest,
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
        if self._takeover.guest is None:
            return
        try:
            status = await self._takeover.guest.wait_migration()
            if status == "completed":
                self.tell(E.COMPLETED)
            else:
                self.tell(
                    E.LOAD_FAILED, (await self._takeover.guest.migration()).error or f"QEMU could not load the guest ({status})"
                )
        except QemuGoneError as error:
            self.tell(E.QEMU_DIED, str(error))
        except HypervisorError as error:
            self.tell(E.LOAD_FAILED, str(error))

    async def _watch_qemu(self) -> None:
        if self._takeover.guest is None:
            return
        words = await self._takeover.guest.wait_dead()
        self.tell(E.QEMU_DIED, f"QEMU died at the target: {words}" if words else "QEMU died at the target")

    async def _ticks(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            if self._takeover.unknown_since and time.monotonic() - self._takeover.unknown_since > GIVE_UP_SECONDS:
                self.tell(E.GIVE_UP, "the owner record cannot be reached")
                self._takeover.unknown_since = 0.0
            elif self._driver.idle:
                self._driver.tell(E.TICK)


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
