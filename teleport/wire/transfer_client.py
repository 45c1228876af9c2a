"""The peer API, asked: `teleport.ports.Peer` over gRPC, and carriers for QEMU's channels.

Unary calls and the stream have a TCP connection each, so that a heartbeat never waits behind the stream's bytes.
"""

import asyncio
import contextlib
import logging
import socket
import threading
from typing import Any

import grpc

from teleport.errors import ProtocolError, UsageError
from teleport.model import LiveReport, PrepareOrder, Proposal, ProposalAnswer, SourceHello, TargetHello, TargetReport
from teleport.wire import convert
from teleport.wire._generated.teleport.v1 import transfer_pb2 as transfer
from teleport.wire._generated.teleport.v1 import transfer_pb2_grpc as transfer_grpc
from teleport.wire.calls import call, close
from teleport.wire.knock import knock
from teleport.wire.options import CHANNEL_OPTIONS, SERVICE, grpc_target, is_loopback
from teleport.wire.pump import Pump
from teleport.wire.status import from_rpc_error

log = logging.getLogger(__name__)

_QUICK_SECONDS = 10.0
_PREPARE_SECONDS = 55.0  # a target's QEMU with much memory to prefault
_COMMIT_SECONDS = 30.0


class TransferClient:
    """One target, from one source. `connect` first; every other method raises UnreachableError, ProtocolError or the target's error."""

    def __init__(self, host: str, port: int) -> None:
        self._where = f"port {port} on '{host}'"
        self._host, self._port = host, port
        self._target = ""
        self._calls: grpc.Channel | None = None
        self._streams: grpc.Channel | None = None
        self._carriers: list[Carrier] = []

    async def connect(self, *, timeout_seconds: float, insecure: bool) -> None:
        """Looks who is there, and connects. Off loopback only with `insecure` (UsageError)."""
        address = await knock(self._host, self._port, timeout_seconds=timeout_seconds)
        if not is_loopback(address) and not insecure:
            raise UsageError(
                f"teleport to '{self._host}'",
                "off loopback everything would travel as plain text",
                "add --insecure, in a network that you trust",
            )
        self._target = grpc_target(address, self._port)

    def _named_target(self) -> str:
        """Where `connect` found it; a successor of the agent that connected does without."""
        self._target = self._target or grpc_target(self._host, self._port)
        return self._target

    def _stub(self) -> transfer_grpc.TransferStub:
        if self._calls is None:
            self._calls = grpc.insecure_channel(self._named_target(), options=CHANNEL_OPTIONS)
        return transfer_grpc.TransferStub(self._calls)

    async def open(self, hello: SourceHello) -> TargetHello:
        """Opens the session."""
        answer = await call(
            self._stub().Open, convert.source_hello_to_wire(hello), timeout_seconds=_QUICK_SECONDS, where=self._where
        )
        return convert.target_hello_from_wire(answer)

    async def propose(self, epoch: str, proposal: Proposal) -> ProposalAnswer:
        """First comparison."""
        answer = await call(
            self._stub().Propose, convert.proposal_to_wire(epoch, proposal), timeout_seconds=_PREPARE_SECONDS, where=self._where
        )
        return convert.answer_from_wire(answer)

    async def prepare(self, epoch: str, order: PrepareOrder) -> LiveReport:
        """The target starts its QEMU."""
        answer = await call(
            self._stub().Prepare, convert.order_to_wire(epoch, order), timeout_seconds=_PREPARE_SECONDS, where=self._where
        )
        return convert.live_from_wire(answer)

    async def query(self, epoch: str, note: str) -> TargetReport:
        """A heartbeat."""
        request = transfer.QueryRequest(epoch=epoch, note=note)
        answer = await call(self._stub().Query, request, timeout_seconds=_QUICK_SECONDS, where=self._where)
        return convert.report_from_wire(answer.report)

    async def commit(self, epoch: str, ram_digest: str) -> TargetReport:
        """COMMIT."""
        request = transfer.CommitRequest(epoch=epoch, ram_digest=ram_digest)
        answer = await call(self._stub().Commit, request, timeout_seconds=_COMMIT_SECONDS, where=self._where)
        return convert.report_from_wire(answer.report)

    async def abort(self, epoch: str, reason: str) -> TargetReport:
        """ABORT or REVOKED."""
        request = transfer.AbortRequest(epoch=epoch, reason=reason[:1000])
        answer = await call(self._stub().Abort, request, timeout_seconds=_COMMIT_SECONDS, where=self._where)
        return convert.report_from_wire(answer.report)

    async def close(self, epoch: str) -> None:
        """Ends the session."""
        await call(self._stub().Close, transfer.CloseRequest(epoch=epoch), timeout_seconds=_QUICK_SECONDS, where=self._where)

    def carry(self, epoch: str, channel: int, sock: socket.socket) -> "Carrier":
        """Carries a connected blocking socket of QEMU as channel `channel`; the carrier closes it. Called in the agent's loop."""
        if self._streams is None:
            self._streams = grpc.insecure_channel(self._named_target(), options=CHANNEL_OPTIONS)
        carrier = Carrier(self._streams, sock, epoch=epoch, channel=channel, where=self._where)
        self._carriers.append(carrier)
        return carrier

    async def close_channel(self) -> None:
        """Lets all connections go; carriers that are under way break."""
        for carrier in self._carriers:
            carrier.close()
        for channel in (self._calls, self._streams):
            if channel:
                await close(channel)
        self._calls = self._streams = None
        self._carriers.clear()


class Carrier:
    """One channel under way. Any failing thread shuts QEMU's socket down, so that QEMU notices at once."""

    def __init__(self, connection: grpc.Channel, sock: socket.socket, *, epoch: str, channel: int, where: str) -> None:
        self._where = where
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._pump = Pump(sock, epoch=epoch, channel=channel, ours="QEMU at the source", source=True)
        stream: Any = connection.stream_stream(f"/{SERVICE}/Stream")  # no serializers: bytes in, bytes out
        self._call = stream(self._pump.outgoing())
        threading.Thread(target=self._receive, name=f"channel {channel}", daemon=True).start()

    @property
    def sent_bytes(self) -> int:
        """Bytes handed to the wire."""
        return self._pump.sent_bytes

    @property
    def received_bytes(self) -> int:
        """Bytes that came back (QEMU's return path)."""
        return self._pump.received_bytes

    @property
    def in_flight_bytes(self) -> int:
        """Sent and not yet handed to the target's QEMU."""
        return self._pump.in_flight_bytes

    async def wait(self) -> None:
        """Returns when both directions have ended as they should, or it was closed here; raises what broke it."""
        await self._ended.wait()
        if self._pump.error:
            raise self._pump.error

    def close(self) -> None:
        """Breaks both ends now."""
        self._pump.close()
        self._call.cancel()

    def _receive(self) -> None:
        try:
            self._pump.feed(self._call)
        except grpc.RpcError as error:
            self._pump.close(from_rpc_error(error, where=self._where))
        except Exception as error:
            log.exception("the stream's thread")
            self._pump.close(ProtocolError("stream", f"it broke: {error!r}"))
        finally:
            self._pump.close()
            self._call.cancel()
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._ended.set)
