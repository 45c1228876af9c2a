"""One guest being taken over: what the effects of `teleport.handover.target` do to QEMU, the record and the journal.

The source's counterpart is `teleport.runner.departure`.
"""

import asyncio
import contextlib
import logging
import time

from teleport.errors import HypervisorError, StorageError, TeleportError
from teleport.handover.target import TargetEffect, TargetEvent
from teleport.host.firmware_variables import write_variables
from teleport.host.guest import QmpGuest
from teleport.host.monitors import QemuGoneError
from teleport.host.priority import streams_take_turns
from teleport.host.ram import hash_guest_ram
from teleport.machines.firmware import VARIABLES_FILE
from teleport.model import ClaimResult, Owner
from teleport.runner.epochs import EpochJournal, TargetPrepared
from teleport.runner.launch import Launched, Launcher
from teleport.runner.ownership import Record

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0

E, F = TargetEvent, TargetEffect


class Takeover:
    """The target's side of one epoch from PREPARED on.

    `reason` is the first thing that went wrong, `digest` the guest's memory as it arrived (with `verify_ram`; it must be
    `wanted_digest`), `cont_ns` when it went on. `is_leaving`: this agent has to go, and claims nothing any more.
    """

    def __init__(
        self, launcher: Launcher, record: Record, prepared: TargetPrepared, *, journal: EpochJournal, verify_ram: bool
    ) -> None:
        self.prepared = prepared
        self.journal = journal
        self.launched: Launched | None = None
        self.guest: QmpGuest | None = None
        self.reason = ""
        self.digest = ""
        self.wanted_digest = ""
        self.cont_ns = 0
        self.unknown_since = 0.0  # the owner record has not answered since
        self.is_leaving = False
        self._launcher = launcher
        self._record = record
        self._verify_ram = verify_ram
        self._note_again: asyncio.Task[None] | None = None

    @property
    def me(self) -> Owner:
        """This VM as the owner of this epoch's guest."""
        return self._launcher.owner(self.prepared.epoch)

    async def perform(self, effect: TargetEffect) -> TargetEvent | None:
        """One effect, and its answer if it has one."""
        return await self._effects[effect](self)

    async def end_qemu(self) -> None:
        """Its QEMU is dead and forgotten afterwards."""
        if self.guest:
            await self.guest.kill()
            await self.guest.close()
        if self.launched:
            await self._launcher.forget(self.launched)

    async def _activate(self) -> TargetEvent:
        assert self.guest is not None
        try:
            if self._verify_ram:
                self.digest = (await hash_guest_ram(self.guest)).total
                if self.wanted_digest and self.digest != self.wanted_digest:
                    self.reason = (
                        f"the guest's memory arrived damaged (source {self.wanted_digest[:16]}, here {self.digest[:16]})"
                    )
                    return E.ACTIVATE_FAILED
            await self.guest.activate_disks()
        except QemuGoneError as error:
            self.reason = self.reason or str(error)
            return E.QEMU_DIED
        except HypervisorError as error:
            self.reason = self.reason or str(error)
            return E.ACTIVATE_FAILED
        return E.ACTIVATED

    async def _claim(self) -> TargetEvent:
        if self.is_leaving:
            return E.GIVE_UP
        if not self.prepared.generation:
            return E.CLAIM_WON  # no record on either side: nobody to compete with
        result = await self._record.claim(self.prepared.generation + 1, self.me)
        if result is ClaimResult.UNKNOWN:
            self.unknown_since = self.unknown_since or time.monotonic()
            return E.CLAIM_UNKNOWN
        self.unknown_since = 0.0
        if result is ClaimResult.LOST:
            self.reason = self.reason or "the source took the guest back"
            return E.CLAIM_LOST
        return E.CLAIM_WON

    async def _journal_intent(self) -> TargetEvent | None:
        assert self.launched is not None
        try:
            if self.launched.tpm_state:
                await asyncio.to_thread(self._launcher.adopt_tpm, self.launched)
            self.journal.note("intent")
        except StorageError as error:
            self.reason = self.reason or str(error)
            return E.JOURNAL_FAILED
        return None

    async def _cont(self) -> TargetEvent:
        assert self.guest is not None
        streams_take_turns()  # all of it is here
        try:
            if self.prepared.paused:
                await self.keep_variables(self.guest)
            else:
                await self.guest.cont()
            self.cont_ns = time.monotonic_ns()
        except (HypervisorError, StorageError) as error:
            self.reason = self.reason or str(error)
            return E.CONT_REFUSED
        return E.CONTINUED

    async def keep_variables(self, guest: QmpGuest) -> None:
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
                self._note_again = asyncio.create_task(self._keep_noting(), name=f"note of {self.prepared.epoch}")

    async def _keep_noting(self) -> None:
        """A source that cannot hear us reads the note: it is written as soon as the storage is back."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            with contextlib.suppress(StorageError):
                await self._record.note_started(self.prepared.generation + 1)
                return

    async def _announce(self) -> None:
        if self.guest and not self.prepared.paused:
            with contextlib.suppress(HypervisorError):  # the guest runs; switches learn its place with its next packet
                await self.guest.announce()

    async def _kill_qemu(self) -> None:
        await self.end_qemu()

    async def _journal_aborted(self) -> None:
        self._note("aborted")

    async def _journal_not_run(self) -> TargetEvent | None:
        try:
            self.journal.note("not-run")
        except StorageError:
            return E.JOURNAL_FAILED
        return None

    async def _journal_gave_back(self) -> None:
        self._note("gave-back")

    def _note(self, kind: str) -> None:
        try:
            self.journal.note(kind, reason=self.reason[:500])
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
        if view.generation != generation + 1 or not view.owner.same_vm(self.me):
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
