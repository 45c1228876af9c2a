"""The journals of epochs: what an agent must remember of a teleport, durably, so that its successor can finish the protocol.

One file an epoch and side, `journal/<epoch>.<source|target>.jsonl`; its records, in order (`kind`):

- source: `prepared` (all that a successor needs), then one of `resumed`, `moved`
- target: `prepared`, `intent` (before `cont`), then one of `started`, `aborted`, `not-run` + `gave-back`

A missing last record means that the epoch is not finished. Both journals are shown by `teleport resolve`.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from teleport.errors import StorageError
from teleport.host.journal import FileJournal
from teleport.machines.files import sync_folder
from teleport.model import GuestIdentity, Owner, PrepareOrder, Proposal, SourceHello

_KEPT_FILES = 40
FINISHED = frozenset({"resumed", "moved", "started", "aborted", "gave-back"})


@dataclass(frozen=True)
class _Prepared:
    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Self:
        """From a journal's record; unknown keys of a newer build are ignored. Raises StorageError."""
        known = {field.name for field in fields(cls)}
        try:
            return cls(**{name: value for name, value in record.items() if name in known})
        except TypeError as error:
            raise StorageError("journal", f"a record lacks what this build needs ({error})") from error


@dataclass(frozen=True)
class SourcePrepared(_Prepared):
    """The source's `prepared` record. `generation` is the one it owns (0 without a record)."""

    epoch: str
    generation: int
    host: str
    port: int
    insecure: int
    plan: str
    was_paused: int
    target_vm: str
    target_host: str
    target_pid: int = 0
    target_start_ticks: int = 0


@dataclass(frozen=True)
class TargetPrepared(_Prepared):
    """The target's `prepared` record. `generation` is the source's; the target claims the next one."""

    epoch: str
    generation: int
    plan: str
    paused: int
    source_host: str
    source_home: str
    source_uuid: str
    source_vm: str
    smbios_uuid: str
    macs: str  # JSON, NIC number → MAC
    display: str = ""  # the folder of the source's display front, which goes with the guest

    @property
    def identity(self) -> GuestIdentity:
        """What the guest sees of the source's identity."""
        macs = tuple((int(number), str(mac)) for number, mac in json.loads(self.macs).items())
        return GuestIdentity(smbios_uuid=self.smbios_uuid, macs=macs)

    @property
    def source(self) -> Owner:
        """The source, as the owner record names it."""
        return Owner(self.source_host, self.source_home, self.source_uuid, self.source_vm, self.epoch)

    @classmethod
    def of(cls, hello: SourceHello, proposal: Proposal, order: PrepareOrder, *, display: str = "") -> Self:
        """What a source said of itself and its guest, as the target remembers it."""
        owner = proposal.owner
        return cls(
            epoch=hello.epoch,
            generation=proposal.generation,
            plan=order.plan,
            paused=int(proposal.paused),
            source_host=owner.host if owner else hello.host,
            source_home=owner.home if owner else "",
            source_uuid=owner.vm_uuid if owner else "",
            source_vm=hello.vm_name,
            smbios_uuid=proposal.identity.smbios_uuid,
            macs=json.dumps(dict(proposal.identity.macs)),
            display=display,
        )


class EpochJournal:
    """One side's journal of one epoch."""

    def __init__(self, folder: Path, epoch: str, side: str) -> None:
        self.path = folder / f"{epoch}.{side}.jsonl"
        self.epoch = epoch
        self._journal = FileJournal(self.path)

    def prepared(self, record: SourcePrepared | TargetPrepared) -> None:
        """The first record. Raises StorageError: then the teleport must not begin."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._journal.append({"kind": "prepared", "at": _now(), **asdict(record)})
            sync_folder(self.path.parent)
        except OSError as error:
            raise StorageError("journal", f"{self.path.parent} cannot be written: {error.strerror}") from error

    def note(self, kind: str, **details: str | int) -> None:
        """One more record. Raises StorageError when it is not durable."""
        self._journal.append({"kind": kind, "at": _now(), **details})

    def records(self) -> "tuple[dict[str, str | int], ...]":
        """All records so far."""
        return tuple(dict(record) for record in self._journal.records())

    @property
    def changed_at(self) -> float:
        """When the last record came, in seconds of the files' clock."""
        return self.path.stat().st_mtime

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of the records so far."""
        return frozenset(str(record["kind"]) for record in self.records())


def unfinished(folder: Path, side: str) -> EpochJournal | None:
    """The newest epoch of that side without a last record, if there is one."""
    for journal in _newest_first(folder, side):
        kinds = journal.kinds
        if "prepared" in kinds and not kinds & FINISHED:
            return journal
    return None


def newest(folder: Path, side: str) -> EpochJournal | None:
    """The epoch of that side that was written to last, if there is one."""
    return next(_newest_first(folder, side), None)


def _newest_first(folder: Path, side: str) -> Iterator[EpochJournal]:
    for path in sorted(folder.glob(f"*.{side}.jsonl"), key=lambda path: path.stat().st_mtime, reverse=True):
        yield EpochJournal(folder, path.name.removesuffix(f".{side}.jsonl"), side)


def prune(folder: Path) -> None:
    """Keeps the newest finished journals only."""
    paths = sorted(folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in paths[_KEPT_FILES:]:
        epoch, side, _ = path.name.split(".")
        if EpochJournal(folder, epoch, side).kinds & FINISHED:
            path.unlink(missing_ok=True)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
