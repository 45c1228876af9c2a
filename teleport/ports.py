"""The seams of the house: what the decisions in the middle ask of the world, and what the world promises in return.

Contracts that hold for every implementation:

- Errors are `teleport.errors`, translated where the library raised them.
- An `await` that is cancelled leaves the thing usable.
- Nothing here guesses: an outcome that is not known is said to be unknown.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from teleport.model import (
    ClaimResult,
    DisplayOrder,
    DisplayStatus,
    Fact,
    LiveReport,
    MigrationInfo,
    Owner,
    PrepareOrder,
    Proposal,
    ProposalAnswer,
    RecordView,
    SharedUsb,
    SourceHello,
    TargetHello,
    TargetReport,
)


class OwnerRecord(Protocol):
    """Who may run one guest: a monotonic register with one compare-and-swap per generation, on storage both sides share.

    Every method may block on dead storage: callers bound them with a time-out and take the time-out for UNKNOWN.
    """

    async def read(self) -> RecordView:
        """The newest generation. Raises StorageError when it cannot be read."""

    async def claim(self, generation: int, owner: Owner) -> ClaimResult:
        """Makes `owner` the owner of `generation`, if nobody is yet. Repeating one's own claim wins again. Raises nothing."""

    async def note_started(self, generation: int) -> None:
        """Notes beside `generation` that its owner said `cont`. Durable when it returns. Raises StorageError."""

    async def probe(self) -> None:
        """Finds out now whether a claim could be written and what kind of link the storage has. Raises StorageError."""


class Journal(Protocol):
    """One agent's durable memory of one epoch: records are appended, and on disk before `append` returns."""

    def append(self, record: Mapping[str, str | int]) -> None:
        """Appends one record durably. Raises StorageError, and then nothing was appended."""

    def records(self) -> tuple[Mapping[str, str | int], ...]:
        """All records in order; a torn last line (a power cut) is left out."""


class Guest(Protocol):
    """One QEMU, through QMP. Methods raise HypervisorError with QEMU's own words, also when it died meanwhile."""

    async def status(self) -> str:
        """QEMU's run state: running, paused, inmigrate, postmigrate, finish-migrate, prelaunch, shutdown, …"""

    async def stop(self) -> None:
        """Pauses the vCPUs."""

    async def cont(self) -> None:
        """Lets the vCPUs run, and returns when `query-status` says running (an `inmigrate` QEMU answers `{}` to cont too)."""

    async def configure_migration(self, capabilities: Mapping[str, bool], parameters: Mapping[str, str | int]) -> None:
        """Sets migration capabilities and parameters."""

    async def migrate(self, uri: str) -> None:
        """Starts an outgoing migration."""

    async def give_fd(self, name: str, fd: int) -> None:
        """Passes a descriptor into QEMU under `name`, for `fd:NAME`; the caller keeps its own."""

    async def migrate_incoming(self, uri: str) -> None:
        """Starts listening for one; a failed load leaves its reason in `migration` and QEMU alive."""

    async def migrate_continue(self) -> None:
        """Leaves pre-switchover."""

    async def migrate_cancel(self) -> None:
        """Cancels; QEMU resumes a source that ran by itself."""

    async def migration(self) -> MigrationInfo:
        """query-migrate."""

    async def wait_migration(self, *statuses: str) -> str:
        """Waits until the status is one of these, or failed or cancelled, and returns it."""

    async def activate_disks(self) -> None:
        """Takes the image locks of all nodes. After a failure deactivate all, or kill this QEMU: part may be active."""

    async def deactivate_disks(self) -> None:
        """Lets the image locks go."""

    async def announce(self) -> None:
        """announce-self: tells the network where the guest's MACs are now."""

    async def yank(self) -> None:
        """Breaks the migration's connections through the out-of-band monitor, however stuck the main one is."""

    async def facts(self) -> tuple[Fact, ...]:
        """What this machine is, by introspection (handover.md, machines.md)."""

    async def kill(self) -> None:
        """SIGKILL, and returns when the process is gone (pidfd)."""

    async def wait_dead(self) -> str:
        """Returns when the process is gone, with its last words on stderr."""


class Peer(Protocol):
    """The other side of one teleport, as the source sees it. Every call carries the epoch; all raise UnreachableError, ProtocolError,
    or the error that the other side raised."""

    async def open(self, hello: SourceHello) -> TargetHello:
        """Opens the session. Raises BusyError when another one is under way there."""

    async def propose(self, epoch: str, proposal: Proposal) -> ProposalAnswer:
        """First comparison: definitions and storage."""

    async def prepare(self, epoch: str, order: PrepareOrder) -> LiveReport:
        """The target starts its QEMU for this session and reports the live machine."""

    async def query(self, epoch: str, note: str) -> TargetReport:
        """Heartbeat and question in one; `note` is the source's progress as JSON for the waiting side's display."""

    async def commit(self, epoch: str, ram_digest: str) -> TargetReport:
        """COMMIT: the source is paused with everything sent. Idempotent; answers once it is settled there."""

    async def abort(self, epoch: str, reason: str) -> TargetReport:
        """ABORT, or REVOKED after the source won the claim: the target ends its QEMU, and says so. Idempotent."""

    async def close(self, epoch: str) -> None:
        """Ends the session; the target waits for the next one."""


class DisplayFront(Protocol):
    """The process that serves one guest's remote display: nobody's child, found by its folder, whoever runs the guest.

    Methods raise UnreachableError when it is gone, and whatever it answers.
    """

    @property
    def folder(self) -> str:
        """Its folder."""

    async def status(self) -> DisplayStatus:
        """What it serves."""

    async def retarget(self, screens: Sequence[str], *, host: str = "") -> int:
        """The guest runs there now; returns how many viewers were switched. `host` replaces the host in endpoints that came from
        another one, which knows no name of its own. Raises UnreachableError, and then everything is as before."""

    async def update(self, settings: Mapping[str, object]) -> None:
        """Takes over what may change while it serves. Raises UsageError for what may not."""

    async def tunnel(self, address: str) -> tuple[str, ...]:
        """Endpoints for another host's front, one a screen, served at `address` of this host. They hold a secret."""

    async def console(self, *, address: str, port: int, screen: int) -> Mapping[str, str]:
        """A page for one browser: `url` with a one-time ticket, and the certificate's `fingerprint`."""

    async def usb(self, seen: int) -> tuple[int, tuple[SharedUsb, ...]]:
        """The USB devices that viewers share with a guest of this host, and the generation of that list: once it is another than `seen`,
        or after ten seconds."""

    async def usb_told(self, name: str, text: str) -> None:
        """What came of one of them, for who shares it."""

    async def stop(self, reason: str = "") -> None:
        """Ends it, and returns when its process is gone. Nothing to do when there is none."""


class DisplayFronts(Protocol):
    """What stands behind the entry point `front` of the group ``teleport.display``."""

    async def start(self, order: DisplayOrder) -> DisplayFront:
        """Starts a front; its port is bound when this returns. Raises what kept it from that."""

    def at(self, folder: str) -> DisplayFront:
        """The front of that folder, whether it lives or not."""
