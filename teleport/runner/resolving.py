"""A person decides where a guest runs when a teleport ended in doubt (`teleport resolve`)."""

from collections.abc import Awaitable, Callable

from teleport.errors import HypervisorError, StateError, StorageError
from teleport.handover.source import SourceEffect, SourcePhase
from teleport.model import ClaimResult, TargetPhase
from teleport.runner.departure import Departure


class Resolving:
    """What can be done about one departure in doubt; `settle` ends its handover with the phase that a person chose."""

    def __init__(
        self, departure: Departure, *, settle: Callable[[SourcePhase], None], stop: Callable[[], Awaitable[None]]
    ) -> None:
        self._departure = departure
        self._settle = settle
        self._stop_deciding = stop

    async def known(self) -> str:
        """What both sides and the record say, in lines."""
        lines = [f"this side: in doubt; {self._departure.reason or 'no reason noted'}"]
        lines += [f"  journal: {record}" for record in self._departure.journal.records()]
        lines.append(f"the target's last word: {self._departure.report.phase.value} {self._departure.report.reason}".rstrip())
        try:
            view = await self._departure.vm.record.read()
            started = ", noted that it runs" if view.started else ""
            lines.append(
                f"owner record: generation {view.generation}, {view.owner.vm_name or 'nobody'} on {view.owner.host}{started}"
            )
        except StorageError as error:
            lines.append(f"owner record: {error}")
        return "\n".join(lines)

    async def try_locks(self) -> None:
        """The image locks: while the target's QEMU lives on local files, they refuse. Raises StateError."""
        if self._departure.report.phase in (TargetPhase.STARTED, TargetPhase.CLAIMED):
            raise StateError("resolve --run-here", "the target says that it owns the guest", "teleport resolve NAME --moved")
        try:
            await self._departure.vm.guest.activate_disks()
        except HypervisorError as error:
            await self._departure.vm.guest.deactivate_disks()
            raise StateError(
                "resolve --run-here", f"the target's QEMU still holds the disks ({error.why})", "end it there first"
            ) from error

    async def settle_here(self) -> None:
        """The guest runs here, by a person's word. The record is claimed first, so that a late target loses."""
        await self._stop_deciding()
        if self._departure.shared and await self._departure.perform(SourceEffect.KILL_TARGET):
            raise StateError(
                "resolve --run-here", "the target's QEMU maps this guest's memory and cannot be ended", "end it by hand first"
            )
        if self._departure.prepared.generation:
            view = await self._departure.vm.record.read()
            if await self._departure.vm.record.claim(view.generation + 1, self._departure.me) is not ClaimResult.WON:
                raise StateError(
                    "resolve --run-here", "the owner record cannot be claimed", "look at the shared storage, and try again"
                )
            self._departure.vm.generation = view.generation + 1
        if not self._departure.prepared.was_paused:
            await self._departure.vm.guest.cont()
        self._departure.journal.note("resumed", reason="resolved by a person")
        self._settle(SourcePhase.RESUMED)

    async def settle_moved(self) -> None:
        """The guest is the target's, by a person's word: the paused copy is let go."""
        await self._stop_deciding()
        await self._departure.vm.guest.kill()
        await self._departure.let_tpm_go()
        self._departure.journal.note("moved", reason="resolved by a person")
        self._settle(SourcePhase.MOVED)
