"""What breaks QEMU's stream between two real gRPC ends, and how both ends notice."""

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from teleport.errors import ProtocolError, TeleportError, UnreachableError
from teleport.wire.frames import Frame, pack
from teleport.wire.options import SERVICE
from teleport.wire.status import from_rpc_error
from teleport.wire.transfer_client import TransferClient
from tests.fakes.transfer_target import EPOCH
from tests.fakes.until import until
from tests.unit.wire.stream_ends import Ends, blast, read, read_all, run

ROOT = Path(__file__).parents[3]


def test_a_target_qemu_that_dies_ends_the_sources_migration() -> None:
    async def work(both: Ends) -> None:
        carrier, source = await both.carry()
        target = await both.target()
        source.sendall(b"begin")
        await asyncio.to_thread(read, target, 5)
        target.close()
        with pytest.raises(UnreachableError, match="QEMU at the target closed its end"):
            while True:
                try:
                    await asyncio.to_thread(source.sendall, b"more")
                except OSError:
                    await carrier.wait()
                await asyncio.sleep(0.01)

    run(work)


def test_a_source_qemu_that_dies_ends_the_targets_load() -> None:
    async def work(both: Ends) -> None:
        carrier, source = await both.carry()
        target = await both.target()
        source.sendall(b"begin")
        source.close()
        assert await asyncio.to_thread(read_all, target) == b"begin"
        target.sendall(b"what comes back for a QEMU that is gone is dropped")
        target.close()
        await carrier.wait()

    run(work)


def test_closing_a_carrier_breaks_both_ends_at_once() -> None:
    async def work(both: Ends) -> None:
        carrier, source = await both.carry()
        target = await both.target()
        source.sendall(b"begin")
        carrier.close()
        carrier.close()
        assert await asyncio.to_thread(read_all, source) == b""
        await asyncio.to_thread(read_all, target)
        await carrier.wait()

    run(work)


def test_the_channel_of_another_epoch_is_refused_and_qemu_notices() -> None:
    async def work(both: Ends) -> None:
        carrier, source = await both.carry(epoch="another")
        with pytest.raises(ProtocolError, match="has no session here"):
            await carrier.wait()
        assert await asyncio.to_thread(read_all, source) == b""

    run(work)


def test_a_channel_is_carried_once() -> None:
    async def work(both: Ends) -> None:
        await both.carry(3)
        await both.target(3)
        second, _ = await both.carry(3)
        with pytest.raises(ProtocolError, match="channel 3 is open already"):
            await second.wait()

    run(work)


def _say(port: int, frames: Iterator[bytes]) -> TeleportError | None:
    """A peer that speaks the frames itself; returns what the target answers to that."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            for _ in channel.stream_stream(f"/{SERVICE}/Stream")(frames, timeout=20):
                pass
        except grpc.RpcError as error:
            return from_rpc_error(error, where="there")
    return None


@pytest.mark.parametrize(
    ("second", "why"),
    [
        (Frame("another epoch", offset=3, data=b"x"), "another epoch"),
        (Frame(EPOCH, channel=1, offset=3, data=b"x"), "channel 1"),
        (Frame(EPOCH, offset=4, data=b"x"), "offset 4 came where 3"),
        (Frame(EPOCH, offset=2, data=b"x"), "offset 2 came where 3"),
        (Frame(EPOCH, offset=3, acknowledged=99, data=b"x"), "more than was sent"),
    ],
)
def test_foreign_and_misplaced_bytes_are_refused_and_never_reach_qemu(second: Frame, why: str) -> None:
    async def work(both: Ends) -> None:
        frames = iter([pack(Frame(EPOCH, data=b"abc")), pack(second)])
        answer = await asyncio.to_thread(_say, both.client._port, frames)
        assert isinstance(answer, ProtocolError)
        assert why in answer.why
        assert await asyncio.to_thread(read_all, await both.target()) == b"abc"

    run(work)


def test_bytes_after_the_end_are_refused() -> None:
    async def work(both: Ends) -> None:
        frames = iter([pack(Frame(EPOCH, data=b"abc", end=True)), pack(Frame(EPOCH, offset=3, data=b"x"))])
        answer = await asyncio.to_thread(_say, both.client._port, frames)
        assert isinstance(answer, ProtocolError)
        assert "after the end" in answer.why

    run(work)


def test_a_source_that_leaves_without_an_end_breaks_the_load() -> None:
    async def work(both: Ends) -> None:
        answer = await asyncio.to_thread(_say, both.client._port, iter([pack(Frame(EPOCH, data=b"abc"))]))
        assert isinstance(answer, UnreachableError)
        assert await asyncio.to_thread(read_all, await both.target()) == b"abc"

    run(work)


@contextlib.contextmanager
def target_process() -> Iterator[tuple[subprocess.Popen[str], int]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.transfer_target"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


def test_a_target_killed_in_the_stream_is_noticed_by_qemu_and_by_whoever_waits() -> None:
    async def work(process: subprocess.Popen[str], port: int) -> None:
        client = TransferClient("localhost", port)
        await client.connect(timeout_seconds=10, insecure=False)
        source, carried = socket.socketpair()
        carrier = client.carry(EPOCH, 0, carried)
        blasting = asyncio.ensure_future(asyncio.to_thread(blast, source))
        await until(lambda: carrier.sent_bytes >= 1 << 20)
        process.send_signal(signal.SIGKILL)
        async with asyncio.timeout(20):
            with pytest.raises(UnreachableError, match=r"port \d+ on 'localhost' does not answer"):
                await carrier.wait()
            assert await blasting == "broken"
            with pytest.raises(UnreachableError):
                await client.query(EPOCH, "")
        await client.close_channel()
        source.close()

    with target_process() as (process, port):
        asyncio.run(work(process, port))


def test_a_target_that_is_stopped_answers_no_heartbeat_and_closing_frees_qemu() -> None:
    async def work(process: subprocess.Popen[str], port: int) -> None:
        client = TransferClient("127.0.0.1", port)
        await client.connect(timeout_seconds=10, insecure=False)
        await client.query(EPOCH, "")
        source, carried = socket.socketpair()
        carrier = client.carry(EPOCH, 0, carried)
        blasting = asyncio.ensure_future(asyncio.to_thread(blast, source))
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await client.query(EPOCH, "")
        carrier.close()
        async with asyncio.timeout(20):
            assert await blasting == "broken"
            await carrier.wait()
        await client.close_channel()
        source.close()

    with target_process() as (process, port):
        asyncio.run(work(process, port))
