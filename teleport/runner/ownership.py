"""Whose guest it is: this runner's name in the owner record, and what a start, a shutdown and a guest without a record do."""

import asyncio
import socket
from pathlib import Path

from teleport.errors import StateError, StorageError
from teleport.host.owner_record import FolderOwnerRecord
from teleport.model import FREE, ClaimResult, Owner, RecordView
from teleport.ports import OwnerRecord


def host_identity() -> str:
    """This host's name, with the machine's id where it has one: two hosts of one name are two hosts."""
    try:
        machine = Path("/etc/machine-id").read_text().strip()[:12]
    except OSError:
        machine = ""
    return f"{socket.gethostname()}/{machine}" if machine else socket.gethostname()


class NoRecord:
    """A guest without a folder that both sides share: the two agents' journals alone.

    A source can never win by itself (UNKNOWN: silence after COMMIT ends in doubt), but it may act on the target's word; a target
    competes with nobody. The preflight says so before the start.
    """

    def __init__(self, me: Owner) -> None:
        self._me = me
        self._given: Owner | None = None

    async def read(self) -> RecordView:
        """Raises StorageError: there is nothing to read."""
        raise StorageError("owner record", "this guest has none", "attach a writable disk, or name a shared folder for it")

    async def claim(self, generation: int, owner: Owner) -> ClaimResult:
        """UNKNOWN: nobody can tell."""
        await asyncio.sleep(0)
        return ClaimResult.UNKNOWN

    async def note_started(self, generation: int) -> None:
        """Nothing to note beside."""

    async def probe(self) -> None:
        """Nothing to probe."""

    async def prepare_claim(self, generation: int, owner: Owner) -> None:
        """Nothing to prepare."""

    async def discard_claim(self) -> None:
        """Nothing to discard."""


Record = FolderOwnerRecord | NoRecord


def record_at(folder: Path | None, me: Owner) -> Record:
    """The owner record in `folder`, or none."""
    return FolderOwnerRecord(folder) if folder else NoRecord(me)


async def take_for_start(record: OwnerRecord, me: Owner, *, take_over: bool) -> int:
    """Claims the next generation for a VM that is being started here, and returns it (0 without a record).

    Raises StateError when another VM owns the guest and `take_over` does not overrule that, StorageError when the record cannot be
    read or written.
    """
    if isinstance(record, NoRecord):
        return 0
    await record.probe()
    view = await record.read()
    if not view.owner.is_free and not view.owner.same_vm(me) and not take_over:
        where = f"VM {view.owner.vm_name!r} on {view.owner.host} (state folder {view.owner.home})"
        raise StateError(
            "startvm",
            f"the guest on this disk belongs to {where}",
            "power it off there; after a crash of that host: startvm --take-over, which runs it here whatever became of the other",
        )
    match await record.claim(view.generation + 1, me):
        case ClaimResult.WON:
            return view.generation + 1
        case ClaimResult.LOST:
            raise StateError(
                "startvm", "another VM took the guest on this disk a moment ago", "see showvminfo of the other one"
            )
        case ClaimResult.UNKNOWN:
            raise StorageError(
                "startvm", "it cannot be known whether the owner record was written", "look at the shared storage"
            )


async def set_free(record: OwnerRecord, generation: int) -> None:
    """The guest ended cleanly: whoever comes first may start it. Best effort: an unreadable record keeps this VM as its owner,
    which may start it again."""
    if not isinstance(record, NoRecord):
        await record.claim(generation + 1, FREE)
