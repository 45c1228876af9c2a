"""The peer API served: synchronous gRPC threads that ask the agent's handler, and pumps that carry the stream."""

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from teleport.errors import BusyError, ProtocolError, TeleportError, UsageError
from teleport.model import LiveReport, PrepareOrder, Proposal, ProposalAnswer, SourceHello, TargetHello, TargetReport
from teleport.wire import convert
from teleport.wire._generated.teleport.v1 import transfer_pb2 as transfer
from teleport.wire.bridge import LoopBridge, answered
from teleport.wire.frames import unpack
from teleport.wire.options import SERVER_OPTIONS, SERVICE, is_loopback
from teleport.wire.pump import Pump
from teleport.wire.status import abort_with

log = logging.getLogger(__name__)

_THREADS = 24
_STOP_SECONDS = 2.0
_ANSWER_SECONDS = 60.0  # whatever a handler does: longer says that the agent's loop is stuck


class TransferHandler(Protocol):
    """What the waiting side does for each call; every method may raise TeleportError, which crosses whole."""

    async def open(self, hello: SourceHello, peer_address: str) -> TargetHello:
        """Opens a session."""

    async def propose(self, epoch: str, proposal: Proposal) -> ProposalAnswer:
        """First comparison."""

    async def prepare(self, epoch: str, order: PrepareOrder) -> LiveReport:
        """Starts the QEMU that waits."""

    async def query(self, epoch: str, note: str) -> TargetReport:
        """Heartbeat."""

    async def commit(self, epoch: str, ram_digest: str) -> TargetReport:
        """COMMIT."""

    async def abort(self, epoch: str, reason: str) -> TargetReport:
        """ABORT or REVOKED."""

    async def close(self, epoch: str) -> None:
        """Ends the session."""

    async def channel(self, epoch: str, number: int) -> socket.socket:
        """A connected blocking socket to QEMU, which the server carries and closes."""


class TransferServer:
    """Serves one handler at one port. `address` "" is loopback, or every address with `insecure`."""

    def __init__(self, handler: TransferHandler, *, address: str, port: int, insecure: bool) -> None:
        self.port = port
        self._handler = handler
        self._address = address
        self._insecure = insecure
        self._loop = asyncio.get_running_loop()
        self._bridge = LoopBridge(self._loop)
        self._pumps: set[Pump] = set()
        self._server: grpc.Server | None = None

    async def start(self) -> None:
        """Binds. Raises BusyError when the port is taken, UsageError for an address that this host may not offer."""
        addresses = await self._addresses()
        server = grpc.server(ThreadPoolExecutor(_THREADS, thread_name_prefix="peer"), options=SERVER_OPTIONS)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, self._methods()),))
        alive = health.HealthServicer()
        alive.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(alive, server)
        for number, address in enumerate(addresses):
            try:
                bound = server.add_insecure_port(f"[{address}]:{self.port}" if ":" in address else f"{address}:{self.port}")
            except RuntimeError as error:
                if number and not self.port:
                    raise
                if number and ":" in address:
                    log.info("not served on %s: %s", address, error)
                    continue  # a host without IPv6
                raise BusyError(
                    f"teleporter port {self.port}",
                    f"cannot be bound on {address}: it is in use, or the address is not this host's",
                    "modifyvm NAME --teleporterport with another port, or 0 for a free one",
                ) from error
            self.port = bound
        server.start()
        self._server = server

    async def _addresses(self) -> list[str]:
        if not self._address:
            return ["0.0.0.0", "::"] if self._insecure else ["127.0.0.1", "::1"]
        try:
            found = await self._loop.getaddrinfo(self._address, None, type=socket.SOCK_STREAM)
        except OSError as error:
            raise UsageError(
                f"teleporter address {self._address}", error.strerror or str(error), "name one of this host's"
            ) from error
        addresses = sorted({str(entry[4][0]) for entry in found}, key=lambda one: ":" in one)
        outside = [one for one in addresses if not is_loopback(one)]
        if outside and not self._insecure:
            raise UsageError(
                f"teleporter address {outside[0]}",
                "off loopback everything would travel as plain text",
                "startvm NAME --insecure, in a network that you trust",
            )
        return addresses

    async def stop(self) -> None:
        """Ends all calls and frees the port."""
        if self._server is None:
            return
        for pump in tuple(self._pumps):
            pump.close()
        self._bridge.close()
        stopped = self._server.stop(_STOP_SECONDS)
        await asyncio.to_thread(stopped.wait, _STOP_SECONDS + 1)
        self._server = None

    # ------------------------------------------------------------------ calls
    def _methods(self) -> dict[str, Any]:
        def unary(kind: Any, handle: Callable[[Any, Any], Any]) -> Any:
            return grpc.unary_unary_rpc_method_handler(
                handle, request_deserializer=kind.FromString, response_serializer=lambda message: message.SerializeToString()
            )

        return {
            "Open": unary(transfer.OpenRequest, self._open),
            "Propose": unary(transfer.ProposeRequest, self._propose),
            "Prepare": unary(transfer.PrepareRequest, self._prepare),
            "Query": unary(transfer.QueryRequest, self._query),
            "Commit": unary(transfer.CommitRequest, self._commit),
            "Abort": unary(transfer.AbortRequest, self._abort),
            "Close": unary(transfer.CloseRequest, self._close),
            "Stream": grpc.stream_stream_rpc_method_handler(self._stream),  # no serializers: bytes in, bytes out
        }

    def _ask(self, work: Any, context: grpc.ServicerContext) -> Any:
        with answered(context):
            return self._bridge.ask(work, what="the other side", limit_seconds=_ANSWER_SECONDS)

    def _open(self, m: transfer.OpenRequest, context: grpc.ServicerContext) -> transfer.OpenResponse:
        hello = convert.source_hello_from_wire(m)
        return convert.target_hello_to_wire(self._ask(self._handler.open(hello, context.peer()), context))

    def _propose(self, m: transfer.ProposeRequest, context: grpc.ServicerContext) -> transfer.ProposeResponse:
        proposal = convert.proposal_from_wire(m)
        return convert.answer_to_wire(self._ask(self._handler.propose(m.epoch, proposal), context))

    def _prepare(self, m: transfer.PrepareRequest, context: grpc.ServicerContext) -> transfer.PrepareResponse:
        order = convert.order_from_wire(m)
        return convert.live_to_wire(self._ask(self._handler.prepare(m.epoch, order), context))

    def _query(self, m: transfer.QueryRequest, context: grpc.ServicerContext) -> transfer.QueryResponse:
        report = self._ask(self._handler.query(m.epoch, m.note), context)
        return transfer.QueryResponse(report=convert.report_to_wire(report))

    def _commit(self, m: transfer.CommitRequest, context: grpc.ServicerContext) -> transfer.CommitResponse:
        report = self._ask(self._handler.commit(m.epoch, m.ram_digest), context)
        return transfer.CommitResponse(report=convert.report_to_wire(report))

    def _abort(self, m: transfer.AbortRequest, context: grpc.ServicerContext) -> transfer.AbortResponse:
        report = self._ask(self._handler.abort(m.epoch, m.reason), context)
        return transfer.AbortResponse(report=convert.report_to_wire(report))

    def _close(self, m: transfer.CloseRequest, context: grpc.ServicerContext) -> transfer.CloseResponse:
        self._ask(self._handler.close(m.epoch), context)
        return transfer.CloseResponse()

    def _stream(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        try:
            first = next(requests)
        except StopIteration:
            return
        frame = unpack(first)
        sock = self._ask(self._handler.channel(frame.epoch, frame.channel), context)
        pump = Pump(sock, epoch=frame.epoch, channel=frame.channel)
        self._pumps.add(pump)
        context.add_callback(pump.close)
        feeding = threading.Thread(target=_feed, args=(pump, first, requests), name=f"channel {frame.channel}", daemon=True)
        feeding.start()
        try:
            yield from pump.outgoing()
            pump.finished.wait(_STOP_SECONDS)
        finally:
            pump.close()
            self._pumps.discard(pump)
            feeding.join(_STOP_SECONDS)
            if not feeding.is_alive():
                pump.release()
        if pump.error:
            abort_with(context, pump.error)


def _feed(pump: Pump, first: bytes, requests: Iterator[bytes]) -> None:
    """The incoming direction, in a thread of its own."""
    try:
        pump.incoming(first)
        for raw in requests:
            pump.incoming(raw)
    except TeleportError as error:
        pump.close(error)
    except grpc.RpcError as error:
        pump.close(ProtocolError("stream", f"the source's end broke: {error}"))
    except Exception as error:  # gRPC's iterator raises a bare Exception when the call is gone
        with contextlib.suppress(TeleportError):
            pump.close(ProtocolError("stream", f"the source's end broke: {error!r}"))
