"""The source's preflight: the session with the target, both comparisons, the choice of the plan. A refusal changes nothing."""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from teleport.errors import StateError, StorageError, TeleportError
from teleport.host.process import available_memory_bytes
from teleport.host.ram import resident_bytes
from teleport.host.same_host import HandleServer
from teleport.host.storage import AttachedMedium, content_again, media_facts
from teleport.host.storage_proofs import StorageProofs
from teleport.machines.snapshots import snapshot_names
from teleport.model import (
    CAPABILITIES,
    PROTOCOL_NEWEST,
    PROTOCOL_OLDEST,
    Finding,
    MediumFact,
    PlanName,
    PrepareOrder,
    Progress,
    Proposal,
    QemuProcess,
    SourceHello,
    TargetHello,
)
from teleport.preflight.compare import compare_facts
from teleport.preflight.proofs import Role
from teleport.preflight.resources import RecordSight, network_warning, owner_findings, owner_warning, source_memory_findings
from teleport.preflight.session import check_target
from teleport.preflight.storage import compare_media, live_block_findings, other_disks, snapshot_findings
from teleport.preflight.verdict import require_none
from teleport.runner.facts import attached_media, definition_facts, software
from teleport.runner.ownership import host_identity
from teleport.runner.vm import RunningVm, TeleportOrder
from teleport.stream.plan import SHAREABLE_RAM, choose_plan
from teleport.wire.transfer_client import TransferClient


@dataclass
class Meeting:
    """Two machines that may move one guest, and the session between them."""

    peer: TransferClient
    epoch: str
    target: TargetHello
    plan: PlanName
    plan_reason: str
    paused: bool
    handle: HandleServer | None = None
    target_process: QemuProcess | None = None

    async def leave(self, reason: str) -> None:
        """Ends the session before anything moved; the target waits for the next one. Best effort: its silence watch does it too."""
        with contextlib.suppress(TeleportError):
            await self.peer.abort(self.epoch, reason)
            await self.peer.close(self.epoch)

    def close(self) -> None:
        """Lets the same-host handle go."""
        if self.handle:
            self.handle.close()


async def meet(
    vm: RunningVm, order: TeleportOrder, peer: TransferClient, *, epoch: str, emit: Callable[[Progress | str], None]
) -> Meeting:
    """The whole preflight. Raises RefusedError with every finding at once, UnreachableError, ProtocolError, BusyError, StateError."""
    status = await vm.guest.status()
    if status not in ("running", "paused", "postmigrate"):
        raise StateError("teleport", f"VM {vm.definition.name!r} must be Running or Paused", f"it is {status}")
    await peer.connect(timeout_seconds=order.timeout_seconds, insecure=order.insecure)
    handle = None
    if vm.ram_fd is not None and vm.definition.machine.ram in SHAREABLE_RAM and order.plan in ("auto", "shared"):
        handle = HandleServer(f"teleport-{epoch}", secrets.token_hex(16), ram_fd=vm.ram_fd)
        await handle.start()
    try:
        return await _meet(vm, order, peer, epoch=epoch, emit=emit, handle=handle, paused=status != "running")
    except BaseException:
        if handle:
            handle.close()
        raise


async def _meet(
    vm: RunningVm,
    order: TeleportOrder,
    peer: TransferClient,
    *,
    epoch: str,
    emit: Callable[[Progress | str], None],
    handle: HandleServer | None,
    paused: bool,
) -> Meeting:
    target = await peer.open(
        SourceHello(
            epoch=epoch,
            versions=(PROTOCOL_OLDEST, PROTOCOL_NEWEST),
            capabilities=CAPABILITIES,
            required=frozenset({"storage-proof"}),
            vm_name=vm.definition.name,
            host=host_identity(),
            software=software(),
            plan=order.plan,
            handle=handle.name if handle else "",
            nonce=handle.nonce if handle else "",
        )
    )
    meeting = Meeting(peer=peer, epoch=epoch, target=target, plan=PlanName.RAW, plan_reason="", paused=paused, handle=handle)
    try:
        if problem := check_target(target, versions=(PROTOCOL_OLDEST, PROTOCOL_NEWEST), capabilities=CAPABILITIES):
            require_none([problem])
        meeting.plan, meeting.plan_reason = choose_plan(
            order.plan,
            same_host=target.same_host and handle is not None and handle.met,
            ram=vm.definition.machine.ram,
            source_capabilities=CAPABILITIES,
            target_capabilities=target.capabilities,
        )
        if meeting.plan is not PlanName.SHARED and handle:
            handle.close()
            meeting.handle = None
        emit(f"plan {meeting.plan.value}: {meeting.plan_reason}")
        await _compare(vm, order, meeting, emit=emit)
    except BaseException as error:
        await meeting.leave(str(error) or "the source left")
        raise
    return meeting


async def _compare(vm: RunningVm, order: TeleportOrder, meeting: Meeting, *, emit: Callable[[Progress | str], None]) -> None:
    proofs = StorageProofs(meeting.epoch, Role.SOURCE)
    try:
        await _compare_with(vm, order, meeting, proofs, emit=emit)
    finally:
        await proofs.cleanup()


async def _compare_with(
    vm: RunningVm, order: TeleportOrder, meeting: Meeting, proofs: StorageProofs, *, emit: Callable[[Progress | str], None]
) -> None:
    media = attached_media(vm.definition)
    facts = definition_facts(vm.definition)
    medium_facts = await proofs.write(media, await media_facts(media))
    snapshots = await asyncio.to_thread(snapshot_names, vm.paths)
    sight = await record_sight(vm)
    answer = await meeting.peer.propose(
        meeting.epoch,
        Proposal(
            facts=facts,
            media=medium_facts,
            snapshots=snapshots,
            owner=vm.me if vm.generation else None,
            generation=vm.generation,
            memory_bytes=vm.definition.memory_bytes,
            identity=vm.identity,
            plan=meeting.plan.value,
            paused=meeting.paused,
            display=vm.display.folder,
            display_moves=order.move_display and bool(vm.display.folder),
        ),
    )
    theirs, missing = await proofs.answer(answer.media, media)
    again = await _looked_again(media, medium_facts)
    judged = {**proofs.judge(dict(answer.proofs)), **{node: why for node, why in missing.items() if why}}
    findings = [
        *compare_facts(facts, answer.facts, mend_vm=meeting.target.vm_name),
        *_media_findings(medium_facts, again, answer.media, judged, mend_vm=meeting.target.vm_name),
        *snapshot_findings(snapshots, source_vm=vm.definition.name),
        *owner_findings(sight, RecordSight(generation=answer.record_generation, owner=answer.owner), source_owner=vm.me),
        *source_memory_findings(
            plan=meeting.plan,
            ram_shared=vm.definition.machine.ram == "shared",  # huge pages are all reserved when the guest starts
            memory_bytes=vm.definition.memory_bytes,
            resident_bytes=resident_bytes(vm.ram_fd) if vm.ram_fd is not None else 0,
            available_bytes=available_memory_bytes(),
            target_is_here=meeting.target.host == vm.me.host,
        ),
        *answer.findings,
    ]
    live = await vm.guest.facts()
    findings += live_block_findings(live)
    require_none(findings)
    if warning := owner_warning(sight, RecordSight(generation=answer.record_generation, owner=answer.owner)):
        emit(f"warning: {warning}")
    networks = [nic.network for nic in vm.definition.nics if nic.attachment == "intnet"]
    if warning := network_warning(networks, target_is_here=meeting.target.same_host):
        emit(f"warning: {warning}")
    report = await meeting.peer.prepare(
        meeting.epoch,
        PrepareOrder(plan=meeting.plan.value, facts=live, proofs=tuple(theirs.items()), verify_ram=order.verify_ram),
    )
    require_none([*compare_facts(live, report.facts, mend_vm=meeting.target.vm_name), *report.findings])
    if meeting.handle:
        meeting.target_process = await meeting.handle.target_process()


async def _looked_again(media: Sequence[AttachedMedium], facts: Sequence[MediumFact]) -> dict[str, str]:
    """The content of devices and URLs once more, after the target's look. One that cannot be read now is judged by the first look."""
    again = {}
    for medium, fact in zip(media, facts, strict=True):
        with contextlib.suppress(StorageError):
            again[fact.node] = await content_again(medium, fact)
    return again


def _media_findings(
    ours: Sequence[MediumFact],
    again: Mapping[str, str],
    theirs: Sequence[MediumFact],
    judged: Mapping[str, str],
    *,
    mend_vm: str,
) -> tuple[Finding, ...]:
    """What the media say; two disks are told apart once."""
    findings = compare_media(ours, theirs, judged, mend_vm=mend_vm)
    said = {finding.what for finding in findings}
    return (*findings, *(finding for finding in other_disks(ours, again, theirs) if finding.what not in said))


async def record_sight(vm: RunningVm) -> RecordSight:
    """The owner record as this side sees it now, and whether it can be written."""
    if not vm.generation:
        return RecordSight(generation=-1, owner=None)
    try:
        view = await vm.record.read()
        await vm.record.probe()
    except StorageError as error:
        return RecordSight(generation=vm.generation, owner=None, problem=str(error))
    return RecordSight(generation=view.generation, owner=view.owner)
