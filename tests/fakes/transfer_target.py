"""A target without a VM: answers the peer API, and is the QEMU at the end of its channels.

`python -m tests.fakes.transfer_target` serves one on a free port of localhost, prints the port, and never reads its channels.
"""

import asyncio
import socket

from teleport.errors import ProtocolError, RefusedError, TeleportError
from teleport.model import (
    CAPABILITIES,
    PROTOCOL_NEWEST,
    PROTOCOL_OLDEST,
    Fact,
    Finding,
    LiveReport,
    PrepareOrder,
    Proposal,
    ProposalAnswer,
    SourceHello,
    TargetHello,
    TargetPhase,
    TargetReport,
)
from teleport.preflight.session import negotiate
from teleport.wire.transfer_server import TransferServer

EPOCH = "0123456789abcdef0123456789abcdef"


def source_hello(**changes: object) -> SourceHello:
    known: dict[str, object] = {
        "epoch": EPOCH,
        "versions": (PROTOCOL_OLDEST, PROTOCOL_NEWEST),
        "capabilities": CAPABILITIES,
        "required": frozenset(),
        "vm_name": "S",
        "host": "here",
        "software": "teleport test",
        "plan": "raw",
    }
    return SourceHello(**{**known, **changes})


class FakeTarget:
    """Keeps what it was asked; `qemu` holds our ends of the channels that it opened, by number."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.peers: list[str] = []
        self.qemu: dict[int, socket.socket] = {}
        self.fails_with: BaseException | None = None
        self.waits: asyncio.Event | None = None

    async def open(self, hello: SourceHello, peer_address: str) -> TargetHello:
        self.asked.append(hello)
        self.peers.append(peer_address)
        verdict = negotiate(hello, versions=(PROTOCOL_OLDEST, PROTOCOL_NEWEST), capabilities=CAPABILITIES)
        if isinstance(verdict, Finding):
            row = (verdict.what, verdict.here, verdict.there, verdict.mend)
            raise RefusedError("teleport", "the two sides cannot follow each other", findings=(row,))
        return TargetHello(
            version=verdict, capabilities=CAPABILITIES, required=frozenset(), vm_name="T", host="there", software="t"
        )

    async def propose(self, epoch: str, proposal: Proposal) -> ProposalAnswer:
        await self._do((epoch, proposal))
        return ProposalAnswer(facts=proposal.facts, media=proposal.media, findings=())

    async def prepare(self, epoch: str, order: PrepareOrder) -> LiveReport:
        await self._do((epoch, order))
        return LiveReport(facts=(Fact("machine", "", "type", "pc-q35-10.0"),), findings=(Finding("a", "b", "c", "d"),))

    async def query(self, epoch: str, note: str) -> TargetReport:
        await self._do((epoch, note))
        return TargetReport(TargetPhase.PREPARED, qemu_pid=7)

    async def commit(self, epoch: str, ram_digest: str) -> TargetReport:
        await self._do((epoch, ram_digest))
        return TargetReport(TargetPhase.STARTED, ram_digest=ram_digest, cont_monotonic_ns=1 << 60)

    async def abort(self, epoch: str, reason: str) -> TargetReport:
        await self._do((epoch, reason))
        return TargetReport(TargetPhase.ABORTED, reason=reason)

    async def close(self, epoch: str) -> None:
        await self._do(epoch)

    async def channel(self, epoch: str, number: int) -> socket.socket:
        if epoch != EPOCH:
            raise ProtocolError("session", f"epoch {epoch} has no session here")
        carried, self.qemu[number] = socket.socketpair()
        return carried

    async def _do(self, what: object) -> None:
        self.asked.append(what)
        if self.waits:
            await self.waits.wait()
        if self.fails_with:
            raise self.fails_with

    def end(self) -> None:
        for sock in self.qemu.values():
            sock.close()


async def _serve() -> None:
    server = TransferServer(FakeTarget(), address="localhost", port=0, insecure=False)
    await server.start()
    print(server.port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        asyncio.run(_serve())
    except (KeyboardInterrupt, TeleportError):
        raise SystemExit(1) from None
