"""The target's half of an agent: it waits, and takes in one guest at a time (`TransferHandler` for the peer API).

A session that ends without the guest leaves the runner waiting; its word on that epoch stays in the journal and is given to
whoever asks later. The decisions are in `teleport.handover.target`; what its effects do is in `teleport.runner.arrival`.
"""

import asyncio
import contextlib
import logging
import shlex
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from teleport.errors import BusyError, ProtocolError, RefusedError, StateError, TeleportError
from teleport.handover.target import TargetEvent
from teleport.host.process import available_memory_bytes
from teleport.host.same_host import HandleClient
from teleport.host.storage import media_facts
from teleport.host.storage_proofs import StorageProofs
from teleport.model import (
    CAPABILITIES,
    PROTOCOL_NEWEST,
    PROTOCOL_OLDEST,
    Finding,
    LiveReport,
    PlanName,
    PrepareOrder,
    Proposal,
    ProposalAnswer,
    SourceHello,
    TargetHello,
    TargetPhase,
    TargetReport,
)
from teleport.preflight.compare import compare_facts
from teleport.preflight.proofs import Role
from teleport.preflight.resources import port_findings, target_memory_findings
from teleport.preflight.session import negotiate
from teleport.preflight.storage import compare_media
from teleport.preflight.verdict import refusal, require_none
from teleport.runner.arrival import Arrival, Arrived, word_of_journal
from teleport.runner.display import Display
from teleport.runner.epochs import TargetPrepared
from teleport.runner.facts import attached_media, definition_facts, software
from teleport.runner.host_ports import port_wishes
from teleport.runner.launch import Launcher
from teleport.runner.ownership import Record, host_identity

log = logging.getLogger(__name__)

SESSION_SILENCE_SECONDS = 15.0  # longer than the source's own: the source decides first
_MEET_SECONDS = 2.0
_LOOK_CHARACTERS = 200  # of the source's words on its progress
_TENS = 2  # they begin with the percentage, three characters wide: each ten goes into the log


@dataclass
class Session:
    """One source that is talking to us."""

    epoch: str
    hello: SourceHello
    handle: HandleClient | None
    heard_at: float
    proposal: Proposal | None = None
    proofs: StorageProofs | None = None
    arrival: Arrival | None = None
    refused: bool = False
    progress: str = ""
    peer_address: str = ""


class WaitingTarget:
    """The waiting runner. `renew` reads the definition anew, for each session, and returns its owner record; `arrived` is called once,
    with the QEMU that runs (or holds paused) the guest. `addresses` are those at which it waits."""

    def __init__(
        self,
        launcher: Launcher,
        display: Display,
        *,
        renew: Callable[[], Record],
        arrived: Callable[[Arrived], Awaitable[None]],
        changed: Callable[[str], None],
        addresses: Callable[[], tuple[str, ...]],
    ) -> None:
        self._launcher = launcher
        self._display = display
        self._addresses = addresses
        self._renew = renew
        self._record = renew()
        self._arrived = arrived
        self._changed = changed
        self._session: Session | None = None
        self._taken = False
        self.closed = asyncio.Event()  # the source of the guest that arrived has ended the session

    # ------------------------------------------------------------------ TransferHandler
    async def open(self, hello: SourceHello, peer_address: str) -> TargetHello:
        """A source introduces itself. Raises BusyError, StateError, RefusedError."""
        if self._taken:
            raise StateError("teleport", f"VM {self._name!r} runs already: nothing waits at this port any more")
        if self._session and self._session.epoch != hello.epoch:
            raise BusyError("teleport", f"VM {self._name!r} is taking in {self._session.hello.vm_name!r}", "try again later")
        if self._session is None:
            self._record = self._renew()
        capabilities = CAPABILITIES
        if self._launcher.definition.machine.ram != "shared":  # of private memory or huge pages: not the source's memory mapped
            capabilities -= {"plan-shared"}
        verdict = negotiate(hello, versions=(PROTOCOL_OLDEST, PROTOCOL_NEWEST), capabilities=capabilities)
        if isinstance(verdict, Finding):
            raise refusal([verdict])
        handle = None
        if hello.handle:
            with contextlib.suppress(TeleportError, TimeoutError):  # no handle there: not this host, which is an answer too
                async with asyncio.timeout(_MEET_SECONDS):
                    handle = await HandleClient.connect(hello.handle, hello.nonce)
        self._session = Session(epoch=hello.epoch, hello=hello, handle=handle, heard_at=self._now(), peer_address=peer_address)
        self._changed(f"a teleport of VM {hello.vm_name!r} from {peer_address} begins")
        return TargetHello(
            version=verdict,
            capabilities=capabilities,
            required=frozenset({"storage-proof"}),
            vm_name=self._name,
            host=host_identity(),
            software=software(),
            same_host=handle is not None,
        )

    async def propose(self, epoch: str, proposal: Proposal) -> ProposalAnswer:
        """The first comparison: settings, media, record, room. Nothing is started yet."""
        session = self._current(epoch)
        definition = self._launcher.definition
        media = attached_media(definition)
        facts = definition_facts(definition)
        session.proofs = StorageProofs(epoch, Role.TARGET)
        medium_facts = await session.proofs.write(media, await media_facts(media))
        answers, missing = await session.proofs.answer(proposal.media, media)
        session.proposal = proposal
        plan = PlanName(proposal.plan)
        source_is_here = session.hello.host == host_identity()
        findings = [
            *compare_facts(proposal.facts, facts, mend_vm=self._name),
            *compare_media(
                proposal.media,
                medium_facts,
                {medium.node: missing.get(medium.node, "") for medium in media},
                mend_vm=self._name,
            ),
            *target_memory_findings(
                plan=plan,
                # huge pages are set aside already, and are counted when they are taken
                memory_bytes=0 if definition.machine.ram == "hugepages" else proposal.memory_bytes,
                available_bytes=available_memory_bytes(),
            ),
        ]
        findings += port_findings(await asyncio.to_thread(port_wishes, definition, source_is_here=source_is_here))
        if proposal.display_moves and not self._display.serves and not source_is_here:
            findings.append(Finding("remote display", "on", "off", f"teleport modifyvm {shlex.quote(self._name)} --vrde on"))
        owner, generation = None, -1
        if self._launcher.record_folder:
            try:
                await self._record.probe()
                view = await self._record.read()
                owner, generation = view.owner, view.generation
            except TeleportError as error:
                findings.append(Finding("owner record", f"generation {proposal.generation}", str(error)))
        session.refused = bool(findings)
        return ProposalAnswer(
            facts=facts,
            media=medium_facts,
            findings=tuple(findings),
            proofs=tuple(answers.items()),
            owner=owner,
            record_generation=generation,
        )

    async def prepare(self, epoch: str, order: PrepareOrder) -> LiveReport:
        """Starts the QEMU that waits for the stream, and compares the live machines. Raises RefusedError with this side's table."""
        session = self._current(epoch)
        if session.proposal is None or session.proofs is None:
            raise ProtocolError("prepare", "came before the proposal")
        judged = session.proofs.judge(dict(order.proofs))
        unproved = [Finding(f"medium {node} shared storage", "", why) for node, why in judged.items() if why]
        require_none(unproved)
        if session.refused:
            raise RefusedError("teleport", f"VM {self._name!r} refuses what it was told of the source's machine")
        theirs = session.proposal.display  # the source's display front
        takes = await self._display.can_take(theirs, same_host=session.hello.host == host_identity())
        arrival = session.arrival = Arrival(
            self._launcher,
            self._record,
            prepared=TargetPrepared.of(session.hello, session.proposal, order, display=theirs if takes else ""),
            verify_ram=order.verify_ram,
            handle=session.handle,
        )
        try:
            facts = await arrival.prepare()
            findings = compare_facts(order.facts, facts, mend_vm=self._name)
            if findings:
                session.refused = True
                return LiveReport(facts=facts, findings=findings)
            if theirs and not takes:
                address = _same_family(self._addresses(), session.peer_address)
                arrival.offer = await self._display.offer(
                    arrival.screens, address=address, tunnel=not session.proposal.display_moves
                )
                if session.proposal.display_moves and not arrival.offer.where:
                    session.refused = True
                    away = Finding(
                        "remote display",
                        "on",
                        self._display.problem,
                        f"teleport modifyvm {shlex.quote(self._name)} --vrdeport PORTS",
                    )
                    return LiveReport(facts=facts, findings=(away,))
            await arrival.listen()
        except BaseException:
            await arrival.discard()
            await self._display.withdraw()
            session.arrival = None
            raise
        self._watch(session)
        return LiveReport(facts=facts)

    async def query(self, epoch: str, note: str) -> TargetReport:
        """A heartbeat."""
        session = self._session
        if session is None or session.epoch != epoch:
            return word_of_journal(self._launcher.paths.journal, epoch)
        session.heard_at = self._now()
        look = "".join(each for each in note if each.isprintable())[:_LOOK_CHARACTERS]
        if look and look[:_TENS] != session.progress[:_TENS]:
            log.info("%s", look.strip())
        session.progress = look or session.progress
        return session.arrival.report() if session.arrival else TargetReport(TargetPhase.PREPARED)

    async def commit(self, epoch: str, ram_digest: str) -> TargetReport:
        """COMMIT. Answers once it is settled, or after a while with the word so far."""
        session = self._session
        if session is None or session.epoch != epoch or session.arrival is None:
            return word_of_journal(self._launcher.paths.journal, epoch)
        session.heard_at = self._now()
        session.arrival.commit(ram_digest)
        return await session.arrival.settled()

    async def abort(self, epoch: str, reason: str) -> TargetReport:
        """ABORT or REVOKED; also ends a session that has not begun to load."""
        session = self._session
        if session is None or session.epoch != epoch:
            return word_of_journal(self._launcher.paths.journal, epoch)
        if session.arrival is None or session.refused or not session.arrival.listening:
            await self._end(session, reason)
            return TargetReport(TargetPhase.ABORTED, reason=reason)
        session.arrival.abort(reason)
        return await session.arrival.settled()

    async def leave(self, reason: str) -> None:
        """This agent has to go: `Arrival.leave`, or the end of a session that has not begun to load. Returns when that is done."""
        session = self._session
        if session is None:
            return
        if session.arrival and (session.arrival.listening or self._taken):
            await session.arrival.leave(reason)
        else:
            await self._end(session, reason)

    async def close(self, epoch: str) -> None:
        """The source is done with this epoch."""
        session = self._session
        if self._taken:
            self.closed.set()
        if (
            session is not None
            and session.epoch == epoch
            and not self._taken
            and (session.arrival is None or not session.arrival.listening)
        ):
            await self._end(session, "the source left")

    async def channel(self, epoch: str, number: int) -> socket.socket:
        """A connection to the QEMU that waits. Raises ProtocolError for a channel this plan does not have."""
        session = self._current(epoch)
        if session.arrival is None:
            raise ProtocolError("stream", "came before the target was prepared")
        return await session.arrival.channel(number)

    # ------------------------------------------------------------------ sessions
    @property
    def _name(self) -> str:
        return self._launcher.definition.name

    @property
    def progress(self) -> str:
        """What the source last said of its progress, in words; "" when nothing arrives."""
        return self._session.progress.strip() if self._session else ""

    @property
    def busy(self) -> bool:
        """A guest is arriving or has arrived."""
        return self._session is not None

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _current(self, epoch: str) -> Session:
        if self._session is None or self._session.epoch != epoch:
            raise ProtocolError("session", "this epoch has no session here (it ended, or the runner was started anew)")
        self._session.heard_at = self._now()
        return self._session

    async def watch_silence(self) -> None:
        """Ends sessions whose source has gone quiet. Runs as long as the runner waits; a guest that has arrived is no session."""
        while True:
            await asyncio.sleep(1.0)
            if self._taken:
                return
            session = self._session
            if session is None or self._now() - session.heard_at < SESSION_SILENCE_SECONDS:
                continue
            if session.arrival and session.arrival.listening:
                session.arrival.tell(TargetEvent.SILENCE, "the source has gone quiet")
            else:
                await self._end(session, "the source has gone quiet")

    def adopt(self, arrival: Arrival) -> None:
        """A new agent takes up the epoch that its predecessor left."""
        known = arrival.prepared
        hello = SourceHello(
            epoch=known.epoch,
            versions=(PROTOCOL_OLDEST, PROTOCOL_NEWEST),
            capabilities=CAPABILITIES,
            required=frozenset(),
            vm_name=known.source_vm,
            host=known.source_host,
            software="",
            plan=known.plan,
        )
        self._session = Session(epoch=arrival.epoch, hello=hello, handle=None, heard_at=self._now(), arrival=arrival)
        self._watch(self._session)

    def _watch(self, session: Session) -> None:
        assert session.arrival is not None
        session.arrival.start(lambda arrived: self._settle(session, arrived))

    async def _settle(self, session: Session, arrived: Arrived | None) -> None:
        if arrived is None:
            await self._end(session, session.arrival.reason if session.arrival else "")
            return
        self._taken = True
        await self._clean(session)
        await self._arrived(arrived)

    async def _end(self, session: Session, reason: str) -> None:
        if self._session is not session:
            return  # ended by both its handover and its source
        self._session = None
        if session.arrival and not session.arrival.listening:
            await session.arrival.discard()
        await self._display.withdraw()
        await self._clean(session)
        self._changed(f"the teleport ended without the guest ({reason}); waiting for the next one")

    async def _clean(self, session: Session) -> None:
        if session.proofs:
            await session.proofs.cleanup()
        if session.handle:
            session.handle.close()


def _same_family(addresses: tuple[str, ...], peer_address: str) -> str:
    """Where a source that came from there reaches this host once more: one of the addresses at which it waits."""
    is_v6 = peer_address.startswith("[")
    everywhere = "::" if is_v6 else "0.0.0.0"
    return next((one for one in addresses if (":" in one) == is_v6), everywhere)
