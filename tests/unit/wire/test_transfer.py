"""The peer API between two real gRPC ends on loopback: calls, errors, versions, limits."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from teleport.errors import (
    BusyError,
    InDoubtError,
    ProtocolError,
    RefusedError,
    StateError,
    TeleportError,
    UnreachableError,
    UsageError,
)
from teleport.model import (
    Fact,
    Finding,
    GuestIdentity,
    LiveReport,
    Owner,
    PrepareOrder,
    Proposal,
    TargetPhase,
    TargetReport,
)
from teleport.preflight.session import check_target
from teleport.wire import transfer_server
from teleport.wire.options import SERVICE
from teleport.wire.transfer_client import TransferClient
from teleport.wire.transfer_server import TransferServer
from tests.fakes.transfer_target import EPOCH, FakeTarget, source_hello
from tests.fakes.until import until

PROPOSAL = Proposal(
    facts=(Fact("memory", "", "size", "1 GiB", "--memory"),),
    media=(),
    snapshots=("a", "b"),
    owner=Owner("h", "/home", "uuid", "S", EPOCH),
    generation=3,
    memory_bytes=1 << 30,
    identity=GuestIdentity("u", ((1, "08:00:27:00:00:01"),)),
    plan="raw",
    paused=True,
)


@contextlib.asynccontextmanager
async def two_ends(address: str = "localhost", host: str = "localhost") -> AsyncIterator[tuple[FakeTarget, TransferClient]]:
    target = FakeTarget()
    server = TransferServer(target, address=address, port=0, insecure=False)
    await server.start()
    client = TransferClient(host, server.port)
    try:
        await client.connect(timeout_seconds=10, insecure=False)
        yield target, client
    finally:
        await client.close_channel()
        await server.stop()
        target.end()


def run(work: Callable[[FakeTarget, TransferClient], Coroutine[Any, Any, None]], **ends: str) -> None:
    async def whole() -> None:
        async with asyncio.timeout(60), two_ends(**ends) as (target, client):
            await work(target, client)

    asyncio.run(whole())


@pytest.mark.parametrize("ends", [{}, {"address": "127.0.0.1", "host": "127.0.0.1"}, {"address": "::1", "host": "::1"}])
def test_every_call_arrives_and_is_answered(ends: dict[str, str]) -> None:
    async def work(target: FakeTarget, client: TransferClient) -> None:
        hello = source_hello()
        answer = await client.open(hello)
        assert (answer.version, answer.vm_name) == (1, "T")
        assert target.peers[0].startswith(("127.0.0.1:", "[::1]:"))
        assert (await client.propose(EPOCH, PROPOSAL)).facts == PROPOSAL.facts
        order = PrepareOrder("raw", PROPOSAL.facts, (("node", "secret"),), verify_ram=True)
        assert await client.prepare(EPOCH, order) == LiveReport(
            facts=(Fact("machine", "", "type", "pc-q35-10.0"),), findings=(Finding("a", "b", "c", "d"),)
        )
        assert await client.query(EPOCH, "{}") == TargetReport(TargetPhase.PREPARED, qemu_pid=7)
        commit = await client.commit(EPOCH, "digest")
        assert commit == TargetReport(TargetPhase.STARTED, ram_digest="digest", cont_monotonic_ns=1 << 60)
        assert (await client.abort(EPOCH, "why")).reason == "why"
        await client.close(EPOCH)
        assert target.asked == [
            hello,
            (EPOCH, PROPOSAL),
            (EPOCH, order),
            (EPOCH, "{}"),
            (EPOCH, "digest"),
            (EPOCH, "why"),
            EPOCH,
        ]

    run(work, **ends)


ROWS = tuple((f"what {number}", "here" * 10, "there" * 10, "mend it") for number in range(500))


@pytest.mark.parametrize(
    "error",
    [
        BusyError("teleport", "another is under way", "later"),
        StateError("w", "y"),
        InDoubtError("w", "y", "h"),
        RefusedError("preflight", "500 differences", findings=ROWS),
        ProtocolError("Ümläut", "日本 " * 300),
        TeleportError("plain", ""),
    ],
    ids=lambda error: error.kind,
)
def test_the_targets_errors_cross_whole(error: TeleportError) -> None:
    async def work(target: FakeTarget, client: TransferClient) -> None:
        target.fails_with = error
        with pytest.raises(type(error)) as caught:
            await client.prepare(EPOCH, PrepareOrder("raw"))
        assert type(caught.value) is type(error)
        assert vars(caught.value) == vars(error)

    run(work)


def test_an_unforeseen_error_there_is_named_here_and_logged_there(caplog: pytest.LogCaptureFixture) -> None:
    async def work(target: FakeTarget, client: TransferClient) -> None:
        target.fails_with = KeyError("oops")
        with pytest.raises(TeleportError, match=r"KeyError.*oops"):
            await client.query(EPOCH, "")
        target.fails_with = TimeoutError()
        with pytest.raises(UnreachableError, match="waited in vain"):
            await client.query(EPOCH, "")

    run(work)
    assert "oops" in caplog.text


def test_an_older_or_newer_source_gets_a_clear_answer() -> None:
    async def work(_: FakeTarget, client: TransferClient) -> None:
        assert (await client.open(source_hello(versions=(1, 9)))).version == 1
        for versions in ((0, 0), (7, 9)):
            with pytest.raises(RefusedError) as caught:
                await client.open(source_hello(versions=versions))
            assert caught.value.findings[0][0] == "protocol version"
            assert str(versions[1]) in caught.value.findings[0][1]

    run(work)


def test_unknown_capabilities_are_ignored_and_unknown_required_ones_refused_by_name() -> None:
    async def work(_: FakeTarget, client: TransferClient) -> None:
        await client.open(source_hello(capabilities=frozenset({"time-travel"})))
        with pytest.raises(RefusedError) as caught:
            await client.open(source_hello(required=frozenset({"time-travel"})))
        assert "time-travel" in caught.value.findings[0][1]

    run(work)


def test_what_a_newer_target_requires_is_refused_by_name_here() -> None:
    async def work(_: FakeTarget, client: TransferClient) -> None:
        answer = await client.open(source_hello())
        newer = type(answer)(**{**vars(answer), "required": frozenset({"warp"})})
        finding = check_target(newer, versions=(1, 1), capabilities=frozenset())
        assert finding
        assert "warp" in finding.there

    run(work)


def test_a_cancelled_call_leaves_the_client_usable_and_the_target_finishing_what_it_began() -> None:
    async def work(target: FakeTarget, client: TransferClient) -> None:
        target.waits = asyncio.Event()
        asking = asyncio.ensure_future(client.commit(EPOCH, "d"))
        await until(lambda: target.asked)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        target.waits.set()
        assert (await client.query(EPOCH, "")).phase is TargetPhase.PREPARED

    run(work)


def test_a_handler_that_never_answers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer_server, "_ANSWER_SECONDS", 0.2)

    async def work(target: FakeTarget, client: TransferClient) -> None:
        target.waits = asyncio.Event()
        with pytest.raises(UnreachableError, match=r"query: the other side did not finish it within 0\.2 s"):
            await client.query(EPOCH, "")

    run(work)


def test_a_target_that_ends_releases_whoever_asks() -> None:
    async def whole() -> None:
        target = FakeTarget()
        target.waits = asyncio.Event()
        server = TransferServer(target, address="", port=0, insecure=False)
        await server.start()
        client = TransferClient("localhost", server.port)
        await client.connect(timeout_seconds=10, insecure=False)
        asking = asyncio.ensure_future(client.query(EPOCH, ""))
        await until(lambda: target.asked)
        await server.stop()
        with pytest.raises(UnreachableError):
            await asking
        with pytest.raises(UnreachableError, match="does not answer"):
            await client.query(EPOCH, "")
        await client.close_channel()

    asyncio.run(whole())


def test_after_the_channel_was_closed_it_connects_anew() -> None:
    async def work(_: FakeTarget, client: TransferClient) -> None:
        await client.query(EPOCH, "")
        await client.close_channel()
        assert (await client.query(EPOCH, "")).qemu_pid == 7

    run(work)


def test_a_client_that_never_knocked_finds_its_target_by_name() -> None:
    async def work(_: FakeTarget, client: TransferClient) -> None:
        successor = TransferClient("localhost", client._port)
        assert (await successor.query(EPOCH, "")).qemu_pid == 7
        await successor.close_channel()

    run(work)


def test_a_port_in_use() -> None:
    async def whole() -> None:
        first = TransferServer(FakeTarget(), address="", port=0, insecure=False)
        await first.start()
        second = TransferServer(FakeTarget(), address="127.0.0.1", port=first.port, insecure=False)
        with pytest.raises(BusyError, match=f"teleporter port {first.port}"):
            await second.start()
        await first.stop()
        await second.start()  # the port is free again at once
        await second.stop()

    asyncio.run(whole())


def test_all_addresses_need_insecure_and_serve_loopback_too() -> None:
    async def whole() -> None:
        with pytest.raises(UsageError, match="plain text"):
            await TransferServer(FakeTarget(), address="0.0.0.0", port=0, insecure=False).start()
        server = TransferServer(FakeTarget(), address="", port=0, insecure=True)
        await server.start()
        for host in ("127.0.0.1", "::1"):
            client = TransferClient(host, server.port)
            await client.connect(timeout_seconds=10, insecure=False)
            await client.query(EPOCH, "")
            await client.close_channel()
        await server.stop()

    asyncio.run(whole())


def test_the_health_service_answers() -> None:
    async def work(_: FakeTarget, client: TransferClient) -> None:
        def ask() -> int:
            with grpc.insecure_channel(f"127.0.0.1:{client._port}") as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                return int(stub.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=10).status)

        assert await asyncio.to_thread(ask) == health_pb2.HealthCheckResponse.SERVING

    run(work)


@contextlib.contextmanager
def _foreign_grpc(handlers: dict[str, Any]) -> Any:
    server = grpc.server(ThreadPoolExecutor(2))
    if handlers:
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait()


def test_another_grpc_server_at_the_port() -> None:
    async def ask(port: int) -> None:
        client = TransferClient("127.0.0.1", port)
        await client.connect(timeout_seconds=10, insecure=False)
        try:
            await client.open(source_hello())
        finally:
            await client.close_channel()

    with _foreign_grpc({}) as port, pytest.raises(ProtocolError, match="does not know this call"):
        asyncio.run(ask(port))

    def garbage(_: bytes, __: Any) -> bytes:
        return b"\xff\xff\xff"

    with _foreign_grpc({"Open": grpc.unary_unary_rpc_method_handler(garbage)}) as port, pytest.raises(ProtocolError):
        asyncio.run(ask(port))

    def fails(_: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata((("teleport-failure-bin", b"\xff\xff"),))
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no room")
        return b""

    with (
        _foreign_grpc({"Open": grpc.unary_unary_rpc_method_handler(fails)}) as port,
        pytest.raises(ProtocolError, match="no room"),
    ):
        asyncio.run(ask(port))


def test_garbage_in_a_call_is_refused_and_the_target_lives_on() -> None:
    async def work(_: FakeTarget, client: TransferClient) -> None:
        def ask() -> None:
            with grpc.insecure_channel(f"127.0.0.1:{client._port}") as channel:
                with pytest.raises(grpc.RpcError):
                    channel.unary_unary(f"/{SERVICE}/Propose")(b"\xff\xff\xff", timeout=10)
                with pytest.raises(grpc.RpcError):
                    channel.unary_unary(f"/{SERVICE}/Nonsense")(b"", timeout=10)
                with pytest.raises(grpc.RpcError):
                    list(channel.stream_stream(f"/{SERVICE}/Stream")(iter([b"\xff\xff\xff"]), timeout=10))
                assert list(channel.stream_stream(f"/{SERVICE}/Stream")(iter([]), timeout=10)) == []

        await asyncio.to_thread(ask)
        assert (await client.query(EPOCH, "")).qemu_pid == 7

    run(work)


def test_bytes_that_are_no_http_2_leave_the_target_living() -> None:
    async def work(_: FakeTarget, client: TransferClient) -> None:
        for words in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" + bytes(50), bytes(1000)):
            with socket.create_connection(("127.0.0.1", client._port), timeout=10) as stranger:
                stranger.sendall(words)
        assert (await client.query(EPOCH, "")).qemu_pid == 7

    run(work)
