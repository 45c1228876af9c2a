"""Does the other host have room, and may this guest be handed over at all? Pure: the numbers come from `teleport.host`."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from teleport.model import Finding, Owner, PlanName

# What a QEMU needs beside the guest's RAM: its own heap, video memory, translated code under TCG (measured 60 to 150 MB with
# small guests).
QEMU_OVERHEAD_BYTES = 160 << 20
NO_SHARED_FOLDER = (
    "there is no shared folder for the owner record: if the connection is lost after COMMIT, the teleport ends in doubt"
)


def source_memory_findings(
    *,
    plan: PlanName,
    ram_shared: bool,
    memory_bytes: int,
    resident_bytes: int,
    available_bytes: int,
    target_is_here: bool = False,
) -> tuple[Finding, ...]:
    """Whether the source's host can bear sending the guest's RAM.

    A migration of RAM that is a shared file fills all holes of that file (measured 391 → 1024 MiB), since QEMU reads them in its
    search for zero pages. `resident_bytes` is what the file has now. Plan shared sends no RAM. `target_is_here`: the target's guest
    takes its room on this very host at the same time.
    """
    if plan is PlanName.SHARED or not ram_shared:
        return ()
    holes_bytes = max(0, memory_bytes - resident_bytes)
    target_bytes = memory_bytes + QEMU_OVERHEAD_BYTES if target_is_here else 0
    if holes_bytes + target_bytes <= available_bytes:
        return ()
    here = f"{_mib(available_bytes)} free, {_mib(holes_bytes)} needed: sending fills the holes of the guest's memory"
    if target_is_here:
        here += f"; and {_mib(target_bytes)} for the target on this host"
    return (Finding("memory at the source", here, ""),)


def target_memory_findings(*, plan: PlanName, memory_bytes: int, available_bytes: int) -> tuple[Finding, ...]:
    """Whether the target's host has room for the guest.

    Plan shared maps the source's RAM: only QEMU itself needs room. What the source's sending fills, on this very host perhaps, the
    source adds (`source_memory_findings`).
    """
    needed_bytes = QEMU_OVERHEAD_BYTES + (0 if plan is PlanName.SHARED else memory_bytes)
    if needed_bytes <= available_bytes:
        return ()
    return (Finding("memory at the target", f"{_mib(needed_bytes)} needed", f"{_mib(available_bytes)} free"),)


@dataclass(frozen=True)
class PortWish:
    """A host's port that the target needs: for what, which (host:port), the error of trying it ("" when free), how to change it."""

    what: str
    address: str
    error: str = ""
    mend: str = ""


def port_findings(wishes: Iterable[PortWish]) -> tuple[Finding, ...]:
    """The ports that the target cannot have."""
    return tuple(Finding(f"{wish.what} port", "", f"{wish.address}: {wish.error}", wish.mend) for wish in wishes if wish.error)


def disk_space_findings(*, what: str, needed_bytes: int, available_bytes: int) -> tuple[Finding, ...]:
    """Whether a folder of the target has room for what will be written there."""
    if needed_bytes <= available_bytes:
        return ()
    return (Finding(what, f"{needed_bytes} bytes needed", f"{available_bytes} bytes free"),)


@dataclass(frozen=True)
class RecordSight:
    """An owner record as one side sees it. `generation` -1: it sees none; `problem` when it cannot be read or written."""

    owner: Owner | None
    generation: int
    problem: str = ""


def owner_findings(source: RecordSight, target: RecordSight, *, source_owner: Owner) -> tuple[Finding, ...]:
    """Whether the guest is the source's to hand over, and both look at the same record that both can write.

    `source_owner` is the source itself. With no record on either side there is no finding; see `owner_warning`.
    """
    what = "owner record"
    findings = []
    if source.problem or target.problem:
        findings.append(Finding(what, source.problem or "usable", target.problem or "usable"))
    if source.generation < 0 and target.generation < 0:
        return tuple(findings)
    if source.generation >= 0 and not source.problem and (source.owner is None or not source.owner.same_vm(source_owner)):
        findings.append(Finding(what, f"another owner: {owner_text(source.owner)}", "", _resolve(source_owner)))
    if not (source.problem or target.problem):
        if (source.generation < 0) != (target.generation < 0):
            findings.append(Finding(what, _generation(source), f"{_generation(target)}: not the same folder"))
        elif source.generation != target.generation or source.owner != target.owner:
            findings.append(Finding(what, _sight(source), f"{_sight(target)}: not the same folder, or not up to date"))
    return tuple(findings)


def owner_warning(source: RecordSight, target: RecordSight) -> str:
    """What a person is told when both sides have only their journals; "" otherwise."""
    return NO_SHARED_FOLDER if source.generation < 0 and target.generation < 0 else ""


def network_warning(networks: Iterable[str], *, target_is_here: bool) -> str:
    """What a person is told of a guest's internal networks, which no frame leaves this host by; "" where that changes nothing."""
    names = ", ".join(dict.fromkeys(networks))
    if target_is_here or not names:
        return ""
    return f"internal network {names}: its other VMs on this host are out of reach for the guest at the target (bridged ones are not)"


def owner_text(owner: Owner | None) -> str:
    """An owner in words."""
    if owner is None:
        return "unknown"
    if owner.is_free:
        return "nobody"
    return f"VM {owner.vm_name} of {owner.home} on {owner.host}"


def _resolve(source_owner: Owner) -> str:
    """Shows both journals and the record, and lets a person decide."""
    return f"teleport resolve {shlex.quote(source_owner.vm_name)}" if source_owner.vm_name else ""


def _sight(sight: RecordSight) -> str:
    return f"{_generation(sight)}, {owner_text(sight.owner)}"


def _generation(sight: RecordSight) -> str:
    return "none" if sight.generation < 0 else f"generation {sight.generation}"


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.0f} MiB"
