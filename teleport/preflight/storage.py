"""Do both sides see the same media, and can these move? Pure comparisons of what each side found out about its own."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from teleport.model import Fact, Finding, MediumFact
from teleport.preflight.compare import MISSING, PLACE, natural_order
from teleport.preflight.device import device, not_one_device, other_device
from teleport.preflight.lun import not_one_disk, remote_disk

# QEMU refuses to migrate a guest that uses one of these, also as a backing file (machines.md): "The vdi format used by node
# 'disk0' does not support live migration".
UNSUPPORTED_FORMATS = frozenset({"vdi", "vmdk", "vpc", "vhdx", "qcow", "parallels", "vvfat"})
# Kinds of media that each side has a copy of its own of: QEMU writes the whole store at `cont`.
OWN_COPY_KINDS = frozenset({"nvram"})
_DIRECT_BOOT = frozenset({"kernel", "initrd"})
# So many of the sampled blocks with data, or this share of them, may differ for two device nodes to be taken for one disk: a
# running guest writes between the two looks, another disk differs nearly everywhere.
_DIFFERING_BLOCKS = 2
_DIFFERING_SHARE = 0.25


def compare_media(
    source: Sequence[MediumFact], target: Sequence[MediumFact], proofs: Mapping[str, str], *, mend_vm: str = ""
) -> tuple[Finding, ...]:
    """Every reason in the media why the guest cannot move, by node.

    `proofs` holds, for each writable node, what is wrong with its proof of shared storage in either direction ("" when it is
    proved); a writable node that is not in it has not been proved. `mend_vm` is the target's VM: where it has another medium, the
    command that attaches what the source has, by the source's path ("": no commands).
    """
    ours, theirs = {fact.node: fact for fact in source}, {fact.node: fact for fact in target}
    findings: list[Finding] = []
    for node in sorted(ours.keys() | theirs.keys(), key=natural_order):
        here, there = ours.get(node), theirs.get(node)
        if here is None or there is None:
            findings.append(Finding(f"medium {node}", _shown(here), _shown(there)))
            continue
        found: list[Finding] = []
        if here.problem or there.problem:
            found.append(Finding(f"medium {node}", here.problem or "usable", there.problem or "usable"))
        found.extend(_movable(here, there))
        if not (here.problem or there.problem):
            found.extend(_same_medium(here, there, proofs))
        mend = _attach(here, there, vm=mend_vm)
        findings.extend(replace(each, mend=each.mend or mend) for each in found)
    return tuple(findings)


def _attach(here: MediumFact, there: MediumFact, *, vm: str) -> str:
    """What gives the target the source's medium; "" where that would change nothing, or takes a password that only the source's side
    has."""
    if not vm or here.problem or here.path == there.path or "@" in here.path:
        return ""
    name, medium = shlex.quote(vm), shlex.quote(here.path or "emptydrive")
    if here.kind in _DIRECT_BOOT:
        return f"teleport modifyvm {name} --{here.kind} {medium}"
    if not (place := PLACE.fullmatch(here.node)):
        return ""
    where = f"--storagectl {place['bus']} --port {place['port']} --device {place['device']}"
    return f"teleport storageattach {name} {where} --type {here.kind} --medium {medium}"


def snapshot_findings(snapshots: Iterable[str], *, source_vm: str) -> tuple[Finding, ...]:
    """Teleport's own snapshots of the source's VM: they stay behind, so the VM is refused, naming each."""
    name = shlex.quote(source_vm)
    return tuple(
        Finding(f"snapshot {snapshot}", "present", "", f"teleport snapshot {name} delete {shlex.quote(snapshot)}")
        for snapshot in snapshots
    )


def live_block_findings(facts: Iterable[Fact]) -> tuple[Finding, ...]:
    """What the live source's block graph (area "block" of `live_facts`) holds that cannot move even if both sides have it."""
    findings = []
    for fact in facts:
        if fact.area != "block" or not fact.value:
            continue
        if fact.name == "snapshots":
            findings.append(Finding(f"medium {fact.subject} internal snapshots", fact.value, "cannot move"))
        elif fact.name == "backing":
            findings.append(Finding(f"medium {fact.subject} backing file", fact.value, "cannot move"))
        elif fact.name == "format" and fact.value in UNSUPPORTED_FORMATS:
            findings.append(Finding(f"medium {fact.subject} format", fact.value, "cannot move"))
    return tuple(findings)


def _movable(here: MediumFact, there: MediumFact) -> Iterable[Finding]:
    """What keeps a medium from moving even where both sides agree about it."""
    if here.snapshots or there.snapshots:
        path = here.path if here.snapshots else there.path
        yield Finding(
            f"medium {here.node} internal snapshots", ", ".join(here.snapshots), ", ".join(there.snapshots), _flat_copy(path)
        )
    if here.backing or there.backing:
        yield Finding(
            f"medium {here.node} backing file",
            here.backing or "none",
            there.backing or "none",
            _flat_copy(here.path if here.backing else there.path),
        )
    if {here.format, there.format} & UNSUPPORTED_FORMATS:
        path = here.path if here.format in UNSUPPORTED_FORMATS else there.path
        mend = f"teleport modifymedium disk {shlex.quote(path)} --format QCOW2"
        yield Finding(f"medium {here.node} format", _format(here), _format(there), mend)


def _flat_copy(path: str) -> str:
    """A copy without snapshots and backing file; the old image stays. (To be attached instead, on both sides.)"""
    stem = path.removesuffix(".qcow2")
    return f"teleport clonemedium disk {shlex.quote(path)} {shlex.quote(stem + '-flat.qcow2')}"


def _same_medium(here: MediumFact, there: MediumFact, proofs: Mapping[str, str]) -> Iterable[Finding]:
    """The differences between two usable media of one node."""
    pairs = [
        ("kind", here.kind, there.kind),
        ("read-only", "yes" if here.read_only else "no", "yes" if there.read_only else "no"),
        ("virtual size", _bytes(here.virtual_size_bytes), _bytes(there.virtual_size_bytes)),
    ]
    if not {here.format, there.format} & UNSUPPORTED_FORMATS:  # said already
        pairs.insert(1, ("format", here.format or "empty", there.format or "empty"))
    differences = [Finding(f"medium {here.node} {name}", ours, theirs) for name, ours, theirs in pairs if ours != theirs]
    yield from differences
    if not here.path and not there.path:
        return  # two empty drives
    if bool(here.path) != bool(there.path):
        if not differences:
            yield Finding(f"medium {here.node}", _shown(here), _shown(there))
        return
    if here.kind in OWN_COPY_KINDS and there.kind in OWN_COPY_KINDS:
        return
    if other_identity(here.identity, there.identity):
        yield Finding(f"medium {here.node} identity", f"{here.path} ({_named(here)})", f"{there.path} ({_named(there)})")
        return
    if here.read_only and there.read_only:
        yield from _same_content(here, there)
    elif not here.read_only and not there.read_only:
        wrong = proofs.get(here.node, "it was not proved to be the same storage")
        if wrong:
            yield Finding(f"medium {here.node} storage", here.path, f"{there.path}: {wrong}")
        elif not same_samples(here.content, there.content):
            yield Finding(f"medium {here.node} content", here.path, f"{there.path}: another disk, its content differs")
        elif unproved := _unproved(here, there):
            yield Finding(f"medium {here.node} identity", here.path, f"{there.path}: {unproved}")


def _unproved(here: MediumFact, there: MediumFact) -> str:
    """Why two disks that nothing can lie beside are not proved to be one; "" when they are, and for files."""
    if remote_disk(here.identity) or remote_disk(there.identity):
        return not_one_disk(here.identity, there.identity)
    if device(here.identity) or device(there.identity):
        return not_one_device(here, there)
    return ""


def other_identity(here: str, there: str) -> bool:
    """Whether two names that disks give themselves say that these are two. Inodes are of one host only."""
    remote = remote_disk(here), remote_disk(there)
    if remote[0] and remote[1]:
        return bool(remote[0].name and remote[1].name) and remote[0].name != remote[1].name
    devices = device(here), device(there)
    return bool(devices[0] and devices[1] and other_device(devices[0], devices[1]))


def _named(fact: MediumFact) -> str:
    remote, local = remote_disk(fact.identity), device(fact.identity)
    return remote.name if remote else local.words if local else fact.identity


def _same_content(here: MediumFact, there: MediumFact) -> Iterable[Finding]:
    """Read-only media: the very same file on one host, or the same size and content."""
    if here.identity and here.identity == there.identity:
        return
    if here.size_bytes != there.size_bytes:
        yield Finding(f"medium {here.node} size", _bytes(here.size_bytes), _bytes(there.size_bytes))
    if not here.content or here.content != there.content:
        yield Finding(f"medium {here.node} content", _content(here), _content(there))


def same_samples(here: str, there: str) -> bool:
    """Whether two lists of block digests ("samples:d1,d2,…", "-" for a block of zeroes) can be of one disk that is written to.

    True when one side has none: they are taken of device nodes only, where the proof's folder is not beside the medium.
    """
    prefix = "samples:"
    if not (here.startswith(prefix) and there.startswith(prefix)):
        return True
    ours, theirs = here.removeprefix(prefix).split(","), there.removeprefix(prefix).split(",")
    if len(ours) != len(theirs):
        return False
    with_data = [(a, b) for a, b in zip(ours, theirs, strict=True) if (a, b) != ("-", "-")]
    differing = sum(1 for a, b in with_data if a != b)
    return not differing or (
        differing < len(with_data) and differing <= max(_DIFFERING_BLOCKS, _DIFFERING_SHARE * len(with_data))
    )


def other_disks(source: Sequence[MediumFact], again: Mapping[str, str], target: Sequence[MediumFact]) -> tuple[Finding, ...]:
    """The exact test behind `same_samples`, once the source has looked twice, before and after the target (`again`, by node).

    A block that was the same both times was not written meanwhile: on one disk the target has seen the same. This tells two disks
    apart that differ in a single block of those that are looked at.
    """
    theirs = {fact.node: fact for fact in target}
    findings = []
    for here in source:
        there = theirs.get(here.node)
        if there is None or here.read_only or not again.get(here.node):
            continue
        looks = [text.removeprefix("samples:").split(",") for text in (here.content, again[here.node], there.content)]
        if any(len(look) != len(looks[0]) for look in looks):
            continue  # sizes differ, which is a finding of its own
        if any(first == second != other for first, second, other in zip(*looks, strict=True)):
            findings.append(
                Finding(f"medium {here.node} content", here.path, f"{there.path}: another disk, what nobody writes differs")
            )
    return tuple(findings)


def _shown(fact: MediumFact | None) -> str:
    if fact is None:
        return MISSING
    return f"{fact.path} ({_format(fact)})" if fact.path else "empty"


def _format(fact: MediumFact) -> str:
    return fact.format or "unknown format"


def _content(fact: MediumFact) -> str:
    """Enough of the digest to tell two apart."""
    kind, _, digest = fact.content.partition(":")
    return f"{fact.path} ({kind} {digest[:12]})" if digest else f"{fact.path} (unknown)"


def _bytes(size_bytes: int) -> str:
    return f"{size_bytes >> 20} MiB" if size_bytes and size_bytes % (1 << 20) == 0 else f"{size_bytes} bytes"
