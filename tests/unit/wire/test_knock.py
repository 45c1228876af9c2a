"""Whoever sits at a wrong port is named, at once; nobody is waited for longer than was said."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from teleport.errors import ProtocolError, UnreachableError
from teleport.wire.knock import knock
from teleport.wire.transfer_server import TransferServer
from tests.fakes.transfer_target import FakeTarget

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def stranger(answer: Answer, address: str = "127.0.0.1") -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await answer(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, address, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def says(words: bytes) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(words)
        await writer.drain()
        await reader.read(100)

    return answer


async def hangs_up(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    pass


async def listens(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    while await reader.read(100):
        pass


def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        pytest.param(says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "an HTTP server", id="http"),
        pytest.param(says(b"RFB 003.008\n"), "a VNC server", id="vnc"),
        pytest.param(says(b"SSH-2.0-OpenSSH_9.2\r\n"), "an SSH server", id="ssh"),
        pytest.param(says(b"\x15\x03\x01\x00\x02\x02\x46"), "a TLS server", id="tls"),
        pytest.param(says(b'{"QMP": {"version": {}}}\r\n'), "QEMU's monitor", id="qmp"),
        pytest.param(says(b"\x00\x01\x02 what is this?"), "something else", id="unknown"),
        pytest.param(says(b"ab"), "something else", id="short"),
        pytest.param(hangs_up, "hangs up without a word", id="hangs-up"),
    ],
)
def test_a_stranger_is_named(answer: Answer, named: str) -> None:
    async def run() -> None:
        async with stranger(answer) as port:
            with pytest.raises(ProtocolError, match=named) as caught:
                await knock("127.0.0.1", port, timeout_seconds=5)
            assert caught.value.what == f"Failed to connect to port {port} on '127.0.0.1'"

    asyncio.run(run())


def test_pythons_http_server_which_answers_without_a_status_line() -> None:
    class Quiet(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with pytest.raises(ProtocolError, match="an HTTP server"):
            asyncio.run(knock("127.0.0.1", server.server_port, timeout_seconds=5))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_silent_port_is_given_three_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("teleport.wire.knock.ANSWER_SECONDS", 0.2)

    async def run() -> None:
        async with stranger(listens) as port:
            with pytest.raises(UnreachableError, match="says nothing"):
                await knock("127.0.0.1", port, timeout_seconds=5)

    asyncio.run(run())


def test_a_closed_port_is_said_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(UnreachableError, match=r"Failed to connect to port \d+ on 'localhost'.*refused"):
        asyncio.run(knock("localhost", closed_port(), timeout_seconds=60))
    assert time.monotonic() - began < 20  # it does not use the time-out up


def test_a_refused_port_is_tried_again_when_asked() -> None:
    async def run() -> None:
        port = closed_port()
        knocking = asyncio.ensure_future(knock("127.0.0.1", port, timeout_seconds=30, retry_refused=True))
        await asyncio.sleep(0.2)
        assert not knocking.done()
        target = TransferServer(FakeTarget(), address="127.0.0.1", port=port, insecure=False)
        await target.start()
        assert await knocking == "127.0.0.1"
        await target.stop()

    asyncio.run(run())


def test_trying_again_ends_with_the_time_out() -> None:
    with pytest.raises(UnreachableError):
        asyncio.run(knock("127.0.0.1", closed_port(), timeout_seconds=0.5, retry_refused=True))


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 300, "not a host", "-"])
def test_a_name_that_does_not_resolve(host: str) -> None:
    with pytest.raises(UnreachableError, match="Failed to connect to port 6000"):
        asyncio.run(knock(host, 6000, timeout_seconds=3))


def test_localhost_is_ipv6_too() -> None:
    async def run() -> None:
        target = TransferServer(FakeTarget(), address="::1", port=0, insecure=False)
        await target.start()
        assert await knock("localhost", target.port, timeout_seconds=5) == "::1"
        await target.stop()

    asyncio.run(run())


def test_knocking_can_be_cancelled() -> None:
    async def run() -> None:
        async with stranger(listens) as port:
            knocking = asyncio.ensure_future(knock("127.0.0.1", port, timeout_seconds=30))
            await asyncio.sleep(0.05)
            knocking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await knocking

    asyncio.run(run())
