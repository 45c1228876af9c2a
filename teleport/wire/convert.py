"""Protobuf ↔ model, both ways. A word that this build does not know raises ProtocolError; unknown fields are ignored."""

import functools
from collections.abc import Callable, Iterable
from enum import Enum
from typing import ParamSpec, TypeVar

from teleport.errors import ProtocolError
from teleport.model import (
    Fact,
    Finding,
    GuestIdentity,
    LiveReport,
    MediumFact,
    Outcome,
    OutcomeKind,
    Owner,
    PrepareOrder,
    Progress,
    Proposal,
    ProposalAnswer,
    SourceHello,
    Stage,
    TargetHello,
    TargetPhase,
    TargetReport,
)
from teleport.wire._generated.teleport.v1 import control_pb2 as control
from teleport.wire._generated.teleport.v1 import transfer_pb2 as transfer

Word = TypeVar("Word", bound=Enum)
P = ParamSpec("P")
R = TypeVar("R")


def _sendable(convert: Callable[P, R]) -> Callable[P, R]:
    """What a protobuf field cannot hold (text that is no UTF-8, a number out of range) is a ProtocolError, not protobuf's own."""

    @functools.wraps(convert)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return convert(*args, **kwargs)
        except (ValueError, TypeError) as error:
            raise ProtocolError("the other side", f"cannot be told: {error}") from error

    return checked


def known_word(kind: type[Word], text: str) -> Word:
    """The enum member that travels as `text`. Raises ProtocolError."""
    try:
        return kind(text)
    except ValueError as error:
        raise ProtocolError(
            "the other side", f"says {text!r} where a {kind.__name__} stands", "update the older side"
        ) from error


def facts_to_wire(facts: Iterable[Fact]) -> list[transfer.Fact]:
    """Facts, in order."""
    return [transfer.Fact(area=f.area, subject=f.subject, name=f.name, value=f.value, mend=f.mend) for f in facts]


def facts_from_wire(facts: Iterable[transfer.Fact]) -> tuple[Fact, ...]:
    """Facts, in order."""
    return tuple(Fact(area=f.area, subject=f.subject, name=f.name, value=f.value, mend=f.mend) for f in facts)


def findings_to_wire(findings: Iterable[Finding]) -> list[transfer.Finding]:
    """Findings, in order."""
    return [transfer.Finding(what=f.what, here=f.here, there=f.there, mend=f.mend) for f in findings]


def findings_from_wire(findings: Iterable[transfer.Finding]) -> tuple[Finding, ...]:
    """Findings, in order."""
    return tuple(Finding(what=f.what, here=f.here, there=f.there, mend=f.mend) for f in findings)


def proofs_to_wire(proofs: Iterable[tuple[str, str]]) -> list[transfer.Proof]:
    """Answers to storage proofs, (node, answer)."""
    return [transfer.Proof(node=node, secret=secret) for node, secret in proofs]


def proofs_from_wire(proofs: Iterable[transfer.Proof]) -> tuple[tuple[str, str], ...]:
    """Answers to storage proofs, (node, answer)."""
    return tuple((proof.node, proof.secret) for proof in proofs)


def owner_to_wire(owner: Owner | None) -> transfer.Owner | None:
    """None stays unset."""
    if owner is None:
        return None
    return transfer.Owner(host=owner.host, home=owner.home, vm_uuid=owner.vm_uuid, vm_name=owner.vm_name, epoch=owner.epoch)


def owner_from_wire(owner: transfer.Owner, *, present: bool) -> Owner | None:
    """None where the field was unset."""
    if not present:
        return None
    return Owner(host=owner.host, home=owner.home, vm_uuid=owner.vm_uuid, vm_name=owner.vm_name, epoch=owner.epoch)


_MEDIUM_FIELDS = (
    "node", "kind", "format", "read_only", "virtual_size_bytes", "size_bytes", "path", "backing", "identity", "content",
    "proof_file", "proof_nonce", "problem",
)  # fmt: skip


def media_to_wire(media: Iterable[MediumFact]) -> list[transfer.Medium]:
    """Media, in order."""
    return [transfer.Medium(**{name: getattr(m, name) for name in _MEDIUM_FIELDS}, snapshots=m.snapshots) for m in media]


def media_from_wire(media: Iterable[transfer.Medium]) -> tuple[MediumFact, ...]:
    """Media, in order."""
    return tuple(MediumFact(**{name: getattr(m, name) for name in _MEDIUM_FIELDS}, snapshots=tuple(m.snapshots)) for m in media)


@_sendable
def source_hello_to_wire(hello: SourceHello) -> transfer.OpenRequest:
    """The opening of a session."""
    return transfer.OpenRequest(
        epoch=hello.epoch,
        oldest_version=hello.versions[0],
        newest_version=hello.versions[1],
        capabilities=sorted(hello.capabilities),
        required=sorted(hello.required),
        vm_name=hello.vm_name,
        host=hello.host,
        software=hello.software,
        plan=hello.plan,
        handle=hello.handle,
        nonce=hello.nonce,
    )


def source_hello_from_wire(m: transfer.OpenRequest) -> SourceHello:
    """The opening of a session."""
    return SourceHello(
        epoch=m.epoch,
        versions=(m.oldest_version, m.newest_version),
        capabilities=frozenset(m.capabilities),
        required=frozenset(m.required),
        vm_name=m.vm_name,
        host=m.host,
        software=m.software,
        plan=m.plan,
        handle=m.handle,
        nonce=m.nonce,
    )


@_sendable
def target_hello_to_wire(hello: TargetHello) -> transfer.OpenResponse:
    """The target's answer to the opening."""
    return transfer.OpenResponse(
        version=hello.version,
        capabilities=sorted(hello.capabilities),
        required=sorted(hello.required),
        vm_name=hello.vm_name,
        host=hello.host,
        software=hello.software,
        same_host=hello.same_host,
    )


def target_hello_from_wire(m: transfer.OpenResponse) -> TargetHello:
    """The target's answer to the opening."""
    return TargetHello(
        version=m.version,
        capabilities=frozenset(m.capabilities),
        required=frozenset(m.required),
        vm_name=m.vm_name,
        host=m.host,
        software=m.software,
        same_host=m.same_host,
    )


@_sendable
def proposal_to_wire(epoch: str, proposal: Proposal) -> transfer.ProposeRequest:
    """The source's side of the first comparison."""
    return transfer.ProposeRequest(
        epoch=epoch,
        facts=facts_to_wire(proposal.facts),
        media=media_to_wire(proposal.media),
        snapshots=proposal.snapshots,
        owner=owner_to_wire(proposal.owner),
        generation=proposal.generation,
        memory_bytes=proposal.memory_bytes,
        identity=transfer.Identity(smbios_uuid=proposal.identity.smbios_uuid, macs=dict(proposal.identity.macs)),
        plan=proposal.plan,
        paused=proposal.paused,
        record_folder_name=proposal.record_folder_name,
        display=proposal.display,
        display_moves=proposal.display_moves,
    )


def proposal_from_wire(m: transfer.ProposeRequest) -> Proposal:
    """The source's side of the first comparison."""
    return Proposal(
        facts=facts_from_wire(m.facts),
        media=media_from_wire(m.media),
        snapshots=tuple(m.snapshots),
        owner=owner_from_wire(m.owner, present=m.HasField("owner")),
        generation=m.generation,
        memory_bytes=m.memory_bytes,
        identity=GuestIdentity(smbios_uuid=m.identity.smbios_uuid, macs=tuple(sorted(m.identity.macs.items()))),
        plan=m.plan,
        paused=m.paused,
        record_folder_name=m.record_folder_name,
        display=m.display,
        display_moves=m.display_moves,
    )


@_sendable
def answer_to_wire(answer: ProposalAnswer) -> transfer.ProposeResponse:
    """The target's side of the first comparison."""
    return transfer.ProposeResponse(
        facts=facts_to_wire(answer.facts),
        media=media_to_wire(answer.media),
        findings=findings_to_wire(answer.findings),
        proofs=proofs_to_wire(answer.proofs),
        owner=owner_to_wire(answer.owner),
        record_generation=answer.record_generation,
    )


def answer_from_wire(m: transfer.ProposeResponse) -> ProposalAnswer:
    """The target's side of the first comparison."""
    return ProposalAnswer(
        facts=facts_from_wire(m.facts),
        media=media_from_wire(m.media),
        findings=findings_from_wire(m.findings),
        proofs=proofs_from_wire(m.proofs),
        owner=owner_from_wire(m.owner, present=m.HasField("owner")),
        record_generation=m.record_generation,
    )


@_sendable
def order_to_wire(epoch: str, order: PrepareOrder) -> transfer.PrepareRequest:
    """What the target needs before it starts its QEMU."""
    return transfer.PrepareRequest(
        epoch=epoch,
        plan=order.plan,
        facts=facts_to_wire(order.facts),
        proofs=proofs_to_wire(order.proofs),
        verify_ram=order.verify_ram,
    )


def order_from_wire(m: transfer.PrepareRequest) -> PrepareOrder:
    """What the target needs before it starts its QEMU."""
    return PrepareOrder(plan=m.plan, facts=facts_from_wire(m.facts), proofs=proofs_from_wire(m.proofs), verify_ram=m.verify_ram)


@_sendable
def live_to_wire(report: LiveReport) -> transfer.PrepareResponse:
    """The target's live machine."""
    return transfer.PrepareResponse(facts=facts_to_wire(report.facts), findings=findings_to_wire(report.findings))


def live_from_wire(m: transfer.PrepareResponse) -> LiveReport:
    """The target's live machine."""
    return LiveReport(facts=facts_from_wire(m.facts), findings=findings_from_wire(m.findings))


@_sendable
def report_to_wire(report: TargetReport) -> transfer.TargetReport:
    """The target's word."""
    return transfer.TargetReport(
        phase=report.phase.value,
        reason=report.reason,
        qemu_pid=report.qemu_pid,
        ram_digest=report.ram_digest,
        cont_monotonic_ns=report.cont_monotonic_ns,
        display=report.display,
        display_taken=report.display_taken,
        display_screens=report.display_screens,
    )


def report_from_wire(m: transfer.TargetReport) -> TargetReport:
    """The target's word. Raises ProtocolError for one that this build does not know."""
    return TargetReport(
        phase=known_word(TargetPhase, m.phase),
        reason=m.reason,
        qemu_pid=m.qemu_pid,
        ram_digest=m.ram_digest,
        cont_monotonic_ns=m.cont_monotonic_ns,
        display=m.display,
        display_taken=m.display_taken,
        display_screens=tuple(m.display_screens),
    )


@_sendable
def progress_to_wire(progress: Progress) -> control.Progress:
    """One line of progress."""
    return control.Progress(
        stage=progress.stage.value,
        percent=progress.percent,
        round=progress.round,
        sent_bytes=progress.sent_bytes,
        remaining_bytes=progress.remaining_bytes,
        rate_bytes_per_second=progress.rate_bytes_per_second,
        dirty_bytes_per_second=progress.dirty_bytes_per_second,
        eta_seconds=progress.eta_seconds,
        converging=progress.converging,
        plan=progress.plan,
    )


def progress_from_wire(m: control.Progress) -> Progress:
    """One line of progress."""
    return Progress(
        stage=known_word(Stage, m.stage),
        percent=m.percent,
        round=m.round,
        sent_bytes=m.sent_bytes,
        remaining_bytes=m.remaining_bytes,
        rate_bytes_per_second=m.rate_bytes_per_second,
        dirty_bytes_per_second=m.dirty_bytes_per_second,
        eta_seconds=m.eta_seconds if m.HasField("eta_seconds") else None,
        converging=m.converging,
        plan=m.plan,
    )


_OUTCOME_FIELDS = (
    "message", "plan", "target", "target_vm", "target_qemu_pid", "sent_bytes", "total_ms", "downtime_ms", "ram_verified", "display",
    "migrate_ms",
)  # fmt: skip


@_sendable
def outcome_to_wire(outcome: Outcome) -> control.Outcome:
    """How a teleport ended."""
    return control.Outcome(kind=outcome.kind.value, **{name: getattr(outcome, name) for name in _OUTCOME_FIELDS})


def outcome_from_wire(m: control.Outcome) -> Outcome:
    """How a teleport ended."""
    return Outcome(kind=known_word(OutcomeKind, m.kind), **{name: getattr(m, name) for name in _OUTCOME_FIELDS})
