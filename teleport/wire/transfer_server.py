"""The peer API served: synchronous gRPC threads that ask the agent's handler, and pumps that carry the stream."""

import asyncio
import itertools
import logging
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from teleport.errors import BusyError, ProtocolError, UnreachableError
from teleport.model import LiveReport, PrepareOrder, Proposal, ProposalAnswer, SourceHello, TargetHello, TargetReport
from teleport.wire import convert
from teleport.wire._generated.teleport.v1 import transfer_pb2 as transfer
from teleport.wire.bridge import LoopBridge, answered
from teleport.wire.frames import unpack
from teleport.wire.listening import choose_port, listening_addresses
from teleport.wire.options import SERVER_OPTIONS, SERVICE, peer_words, with_port
from teleport.wire.pump import Pump

log = logging.getLogger(__name__)

T = TypeVar("T")
_THREADS = 32
_STOP_SECONDS = 2.0
_BIND_TRIES = 5
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
    """Serves one handler at one port. `address` "" is loopback, or every address with `insecure`; `port` 0 a free one.

    Made in the agent's loop, whose coroutines the handler's are. After `start`, `port` is the one that is bound.
    """

    def __init__(self, handler: TransferHandler, *, address: str, port: int, insecure: bool) -> None:
        self.port = port
        self.addresses: tuple[str, ...] = ()
        self._handler = handler
        self._address = address
        self._insecure = insecure
        self._bridge = LoopBridge(asyncio.get_running_loop())
        self._pumps: dict[tuple[str, int], Pump] = {}
        self._pumps_lock = threading.Lock()
        self._server: grpc.Server | None = None

    async def start(self) -> None:
        """Binds. Raises BusyError when the port is taken, UsageError for an address that this host may not offer."""
        wanted = await listening_addresses(self._address, insecure=self._insecure)
        for attempt in range(_BIND_TRIES):
            addresses, port = choose_port(wanted, self.port)
            server = self._new_server()
            try:
                for address in addresses:
                    server.add_insecure_port(with_port(address, port))
            except RuntimeError as error:  # gRPC names no reason; between our trial and its bind somebody else was quicker
                server.stop(None)
                if self.port or attempt == _BIND_TRIES - 1:
                    raise BusyError(f"teleporter port {port}", "it was taken just now", "start it again") from error
                continue
            self.addresses, self.port, self._server = addresses, port, server
            server.start()
            return

    def _new_server(self) -> grpc.Server:
        server = grpc.server(ThreadPoolExecutor(_THREADS, thread_name_prefix="peer"), options=SERVER_OPTIONS)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, self._methods()),))
        alive = health.HealthServicer()
        for name in ("", SERVICE):
            alive.set(name, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(alive, server)
        return server

    async def stop(self) -> None:
        """Refuses new calls, lets those under way end for 2 s, breaks streams, and frees the port."""
        server, self._server = self._server, None
        if server is None:
            return
        for pump in tuple(self._pumps.values()):
            pump.close(UnreachableError("stream", "the target is just ending"))
        stopped = server.stop(_STOP_SECONDS)
        await asyncio.to_thread(stopped.wait, _STOP_SECONDS + 1)
        self._bridge.close()

    # ------------------------------------------------------------------ calls
    def _methods(self) -> dict[str, Any]:
        return {
            "Open": _unary(transfer.OpenRequest, self._open),
            "Propose": _unary(transfer.ProposeRequest, self._propose),
            "Prepare": _unary(transfer.PrepareRequest, self._prepare),
            "Query": _unary(transfer.QueryRequest, self._query),
            "Commit": _unary(transfer.CommitRequest, self._commit),
            "Abort": _unary(transfer.AbortRequest, self._abort),
            "Close": _unary(transfer.CloseRequest, self._close),
            "Stream": grpc.stream_stream_rpc_method_handler(self._stream),  # no serializers: bytes in, bytes out
        }

    def _ask(self, work: Coroutine[Any, Any, T], what: str) -> T:
        return self._bridge.ask(work, what=what, limit_seconds=_ANSWER_SECONDS)

    def _open(self, m: transfer.OpenRequest, context: grpc.ServicerContext) -> transfer.OpenResponse:
        work = self._handler.open(convert.source_hello_from_wire(m), peer_words(context.peer()))
        return convert.target_hello_to_wire(self._ask(work, "open"))

    def _propose(self, m: transfer.ProposeRequest, _: grpc.ServicerContext) -> transfer.ProposeResponse:
        return convert.answer_to_wire(self._ask(self._handler.propose(m.epoch, convert.proposal_from_wire(m)), "propose"))

    def _prepare(self, m: transfer.PrepareRequest, _: grpc.ServicerContext) -> transfer.PrepareResponse:
        return convert.live_to_wire(self._ask(self._handler.prepare(m.epoch, convert.order_from_wire(m)), "prepare"))

    def _query(self, m: transfer.QueryRequest, _: grpc.ServicerContext) -> transfer.QueryResponse:
        report = self._ask(self._handler.query(m.epoch, m.note), "query")
        return transfer.QueryResponse(report=convert.report_to_wire(report))

    def _commit(self, m: transfer.CommitRequest, _: grpc.ServicerContext) -> transfer.CommitResponse:
        report = self._ask(self._handler.commit(m.epoch, m.ram_digest), "commit")
        return transfer.CommitResponse(report=convert.report_to_wire(report))

    def _abort(self, m: transfer.AbortRequest, _: grpc.ServicerContext) -> transfer.AbortResponse:
        report = self._ask(self._handler.abort(m.epoch, m.reason), "abort")
        return transfer.AbortResponse(report=convert.report_to_wire(report))

    def _close(self, m: transfer.CloseRequest, _: grpc.ServicerContext) -> transfer.CloseResponse:
        self._ask(self._handler.close(m.epoch), "close")
        return transfer.CloseResponse()

    # ------------------------------------------------------------------ the stream
    def _stream(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        with answered(context):
            try:
                first = next(requests)
            except Exception:  # no message at all, or (gRPC's bare Exception) a call that is gone already
                return
            frame = unpack(first)
            pump = self._channel(frame.epoch, frame.channel)
            try:
                yield from self._carry(pump, first, requests, context)
            finally:
                pump.close()
                with self._pumps_lock:
                    self._pumps.pop((frame.epoch, frame.channel), None)
            if pump.error:
                raise pump.error

    def _channel(self, epoch: str, number: int) -> Pump:
        with self._pumps_lock:
            if (epoch, number) in self._pumps:
                raise ProtocolError("stream", f"channel {number} is open already")
        sock = self._ask(self._handler.channel(epoch, number), "stream")
        pump = Pump(sock, epoch=epoch, channel=number, ours="QEMU at the target", source=False)
        with self._pumps_lock:
            taken = self._pumps.setdefault((epoch, number), pump) is not pump
        if taken:
            pump.close()
            raise ProtocolError("stream", f"channel {number} is open already")
        return pump

    def _carry(self, pump: Pump, first: bytes, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        def feed() -> None:
            try:
                pump.feed(itertools.chain((first,), requests))
            except Exception as error:  # gRPC's iterator raises a bare Exception when the call is gone
                pump.close(UnreachableError("stream", f"the source's end broke: {error!r}"))

        if not context.add_callback(pump.close):
            return
        threading.Thread(target=feed, name="channel feed", daemon=True).start()
        yield from pump.outgoing()


def _unary(kind: type[Message], handle: Callable[[Any, grpc.ServicerContext], Message]) -> "grpc.RpcMethodHandler[Any, Any]":
    """A handler whose errors cross whole, whatever they are."""

    def answer(request: Message, context: grpc.ServicerContext) -> Message:
        with answered(context):
            return handle(request, context)
        raise AssertionError("answered ends the call")

    return grpc.unary_unary_rpc_method_handler(
        answer, request_deserializer=kind.FromString, response_serializer=lambda message: message.SerializeToString()
    )
