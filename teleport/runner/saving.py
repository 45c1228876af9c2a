"""A guest into a file and out of it again: QEMU's migration, with a file as the other side.

RAM is written whole, also a memfd's (the file must outlive the host). `return-path` is off, since a file says nothing back; the
bandwidth is not limited (QEMU's default makes 4.2 s of 0.3). Everything else is as in a teleport: late-activated disks, the claim in
the owner record just before `cont`.
"""

import asyncio
from pathlib import Path

from teleport.errors import HypervisorError, StateError, StorageError, TeleportError
from teleport.host.bounded import in_thread
from teleport.host.guest import QmpGuest
from teleport.machines import saved_state
from teleport.machines.media import make_durable
from teleport.machines.saved_state import SavedFacts
from teleport.machines.store import VmPaths
from teleport.model import ClaimResult, Owner
from teleport.runner.facts import software
from teleport.runner.ownership import NoRecord, Record
from teleport.runner.vm import RunningVm

_CAPABILITIES = {
    "events": True,
    "return-path": False,
    "pause-before-switchover": False,
    "x-ignore-shared": False,
    "late-block-activate": True,
}
_UNLIMITED_BYTES_PER_SECOND = 1 << 40
_SYNC_SECONDS = 600.0


async def save(vm: RunningVm, *, was_paused: bool) -> None:
    """Writes the stopped guest into its saved state. Afterwards it is saved, and its QEMU (postmigrate) must only be ended.

    Raises TeleportError, and then it is not saved and `resume_unsaved` gives the guest back.
    """
    stream = await asyncio.to_thread(saved_state.begin, vm.paths)
    guest = vm.guest
    await guest.configure_migration(_CAPABILITIES, {"max-bandwidth": _UNLIMITED_BYTES_PER_SECOND})
    await guest.execute("migrate", channels=[_channel(stream)])
    if await guest.wait_migration() != "completed":
        raise StorageError("savestate", (await guest.migration()).error or "QEMU did not finish it", "check free space")
    await in_thread(lambda: make_durable(stream), timeout_seconds=_SYNC_SECONDS, name="saved state")
    version = (await guest.execute("query-version"))["qemu"]
    facts = SavedFacts(
        identity=vm.identity,
        generation=vm.generation,
        epoch=vm.me.epoch,
        was_paused=was_paused,
        software=software(),
        qemu=".".join(str(version[part]) for part in ("major", "minor", "micro")),
    )
    await asyncio.to_thread(saved_state.commit, vm.paths, facts)


async def resume_unsaved(vm: RunningVm, *, was_paused: bool) -> None:
    """A guest that could not be saved goes on. Raises HypervisorError when it cannot."""
    if (await vm.guest.migration()).status not in ("none", "completed", "failed", "cancelled"):
        await vm.guest.migrate_cancel()
        await vm.guest.wait_migration()
    await vm.guest.activate_disks()
    if not was_paused:
        await vm.guest.cont()
    await asyncio.to_thread(saved_state.drop_unfinished, vm.paths)


async def check_fits(record: Record, facts: SavedFacts, me: Owner, *, take_over: bool) -> None:
    """Raises StateError when the guest's disk may have been written to since the guest was saved, StorageError."""
    if isinstance(record, NoRecord) or not facts.generation:
        return
    view = await record.read()
    own_tries = view.owner.same_vm(me) and view.owner.epoch == facts.epoch
    if view.generation != facts.generation and not own_tries:
        whose = f"VM {view.owner.vm_name!r} on {view.owner.host}" if not view.owner.is_free else "another VM, which ended"
        raise StateError(
            "startvm",
            f"the saved state does not fit its disk any more: since then the guest was started by {whose}",
            "teleport discardstate drops it; the disk stays as it is",
        )
    if not view.owner.same_vm(me) and not take_over:
        raise StateError(
            "startvm", f"the guest belongs to VM {view.owner.vm_name!r} on {view.owner.host}", "power it off there"
        )


async def load(guest: QmpGuest, paths: VmPaths) -> None:
    """Loads the saved state into a QEMU that waits (`-incoming defer`). It is paused then and holds its disks.

    Raises HypervisorError with QEMU's own words.
    """
    await guest.configure_migration(_CAPABILITIES, {})
    await guest.execute("migrate-incoming", channels=[_channel(saved_state.stream_of(paths))], exit_on_error=False)
    if await guest.wait_migration() != "completed":
        why = (await guest.migration()).error
        raise HypervisorError("startvm from the saved state", "; ".join(filter(None, (why, guest.last_words()))))
    await guest.activate_disks()


async def claim(record: Record, facts: SavedFacts, me: Owner) -> int:
    """Claims the next generation for the guest that goes on, in the name of the epoch that saved it. 0 without a record.

    Raises StateError, StorageError.
    """
    if isinstance(record, NoRecord) or not facts.generation:
        return 0
    generation = (await record.read()).generation + 1
    match await record.claim(generation, me):
        case ClaimResult.WON:
            return generation
        case ClaimResult.LOST:
            raise StateError("startvm", "another VM took the guest a moment ago", "see showvminfo of the other one")
        case ClaimResult.UNKNOWN:
            raise StorageError(
                "startvm", "it cannot be known whether the owner record was written", "look at the shared storage"
            )


async def go_on(guest: QmpGuest, paths: VmPaths, facts: SavedFacts) -> None:
    """Marks the state as used and lets the guest run.

    Raises TeleportError. The state is whole again then if the guest is known not to have run; otherwise it stays used, since the
    disk may be newer than it.
    """
    await asyncio.to_thread(saved_state.mark_used, paths)
    if facts.was_paused:
        return
    try:
        await guest.cont()
    except TeleportError as error:
        try:
            still_paused = await guest.status() == "paused"
        except HypervisorError:
            still_paused = False
        if not still_paused:
            raise StateError(
                "startvm from the saved state",
                f"the guest may have run for a moment: {error}",
                "the saved state is not used again, since the disk may be newer; startvm boots the guest",
            ) from error
        await guest.kill()
        await asyncio.to_thread(saved_state.mark_unused, paths)
        raise


def _channel(stream: Path) -> dict[str, object]:
    """The `file:` address in its structured form: no character of a path means anything in it."""
    return {"channel-type": "main", "addr": {"transport": "file", "filename": str(stream), "offset": 0}}
