"""QEMU's stream between two real gRPC ends: bytes, ends, credits, and what breaks them."""

import asyncio
import contextlib
import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from teleport.errors import ProtocolError, TeleportError, UnreachableError
from teleport.wire.credits import CEILING_BYTES, FLOOR_BYTES, CreditWindow
from teleport.wire.frames import Frame, pack, unpack
from teleport.wire.options import SERVICE
from teleport.wire.transfer_client import Carrier, TransferClient
from teleport.wire.transfer_server import TransferServer
from tests.fakes.transfer_target import EPOCH, FakeTarget
from tests.fakes.until import until

ROOT = Path(__file__).parents[3]


class Ends:
    """A carrier between `source` (where QEMU at the source would be) and `target` (QEMU at the target)."""

    def __init__(self, fake: FakeTarget, client: TransferClient) -> None:
        self.fake = fake
        self.client = client
        self.carriers: list[Carrier] = []
        self.sources: list[socket.socket] = []

    async def carry(self, number: int = 0, epoch: str = EPOCH) -> tuple[Carrier, socket.socket]:
        ours, carried = socket.socketpair()
        carrier = self.client.carry(epoch, number, carried)
        self.carriers.append(carrier)
        self.sources.append(ours)
        return carrier, ours

    async def target(self, number: int = 0) -> socket.socket:
        await until(lambda: number in self.fake.qemu)
        return self.fake.qemu[number]


@contextlib.asynccontextmanager
async def ends(address: str = "localhost") -> AsyncIterator[Ends]:
    fake = FakeTarget()
    server = TransferServer(fake, address=address, port=0, insecure=False)
    await server.start()
    client = TransferClient(address, server.port)
    both = Ends(fake, client)
    try:
        await client.connect(timeout_seconds=10, insecure=False)
        yield both
    finally:
        await client.close_channel()
        await server.stop()
        fake.end()
        for source in both.sources:
            source.close()


def run(work: Callable[[Ends], Coroutine[Any, Any, None]], address: str = "localhost") -> None:
    async def whole() -> None:
        async with asyncio.timeout(100), ends(address) as both:
            await work(both)

    asyncio.run(whole())


def read_all(sock: socket.socket) -> bytes:
    parts = []
    while part := sock.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


def read(sock: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count and (part := sock.recv(count - len(found))):
        found += part
    return found


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_bytes_both_ways_and_an_end_of_each_direction(address: str) -> None:
    async def work(both: Ends) -> None:
        carrier, source = await both.carry()
        target = await both.target()
        data = os.urandom(5 << 20)
        feeding = threading.Thread(target=lambda: (source.sendall(data), source.shutdown(socket.SHUT_WR)))
        feeding.start()
        assert await asyncio.to_thread(read_all, target) == data
        feeding.join()
        # the return path is still there after the source's end, and goes on as long as the target's QEMU wants
        for word in (b"PONG", b"SHUT"):
            target.sendall(word)
            assert await asyncio.to_thread(read, source, 4) == word
        target.close()
        assert await asyncio.to_thread(read_all, source) == b""
        await carrier.wait()
        assert (carrier.sent_bytes, carrier.received_bytes) == (len(data), 8)

    run(work, address)


def test_the_return_path_is_there_while_nothing_was_sent_yet() -> None:
    async def work(both: Ends) -> None:
        _, source = await both.carry()
        target = await both.target()
        target.sendall(b"first")
        assert await asyncio.to_thread(read, source, 5) == b"first"

    run(work)


def test_twenty_thousand_small_messages() -> None:
    async def work(both: Ends) -> None:
        carrier, source = await both.carry()
        target = await both.target()
        sums: dict[str, str] = {}

        def say() -> None:
            digest = hashlib.sha256()
            for number in range(20_000):
                message = number.to_bytes(4) * (1 + number % 9)
                digest.update(message)
                source.sendall(message)
            source.shutdown(socket.SHUT_WR)
            sums["said"] = digest.hexdigest()

        def hear() -> None:
            digest = hashlib.sha256()
            count = 0
            while part := target.recv(4096):
                digest.update(part)
                count += 1
                target.sendall(b"." if count < 5000 else b"")
            sums["heard"] = digest.hexdigest()
            target.close()

        threads = [threading.Thread(target=each) for each in (say, hear)]
        for thread in threads:
            thread.start()
        await asyncio.to_thread(read_all, source)
        await carrier.wait()
        for thread in threads:
            thread.join()
        assert sums["said"] == sums["heard"]

    run(work)


def test_several_channels_at_once() -> None:
    async def work(both: Ends) -> None:
        datas = [os.urandom(200_000) for _ in range(5)]
        sources = [(await both.carry(number))[1] for number in range(5)]
        for number, data in enumerate(datas):
            target = await both.target(number)
            feeding = threading.Thread(target=lambda source=sources[number], data=data: source.sendall(data))
            feeding.start()
            assert await asyncio.to_thread(read, target, len(data)) == data
            feeding.join()

    run(work)


def test_a_receiver_that_stops_reading_stops_the_sender() -> None:
    async def work(both: Ends) -> None:
        carrier, source = await both.carry()
        target = await both.target()
        source.setblocking(False)
        loop = asyncio.get_running_loop()
        offered = 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                while offered < 8 * CEILING_BYTES:
                    await loop.sock_sendall(source, bytes(1 << 20))
                    offered += 1 << 20
        assert 0 < carrier.in_flight_bytes <= CEILING_BYTES
        stuck = carrier.sent_bytes
        assert (await both.client.query(EPOCH, "")).qemu_pid == 7  # heartbeats pass all the same
        assert carrier.sent_bytes == stuck
        source.setblocking(True)
        source.shutdown(socket.SHUT_WR)
        assert len(await asyncio.to_thread(read_all, target)) >= stuck

    run(work)


def test_heartbeats_and_the_loop_stay_quick_while_a_stream_saturates() -> None:
    async def work(both: Ends) -> None:
        _, source = await both.carry()
        target = await both.target()
        stop = threading.Event()

        def blast() -> None:
            chunk = bytes(1 << 20)
            with contextlib.suppress(OSError):
                while not stop.is_set():
                    source.sendall(chunk)

        def sink() -> None:
            with contextlib.suppress(OSError):
                while target.recv(1 << 20):
                    pass

        threads = [threading.Thread(target=each) for each in (blast, sink)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            async with asyncio.timeout(5):
                await both.client.query(EPOCH, "")
        stop.set()
        source.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(10)

    run(work)


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


def test_a_cancelled_wait_leaves_the_carrier() -> None:
    async def work(both: Ends) -> None:
        carrier, source = await both.carry()
        target = await both.target()
        waiting = asyncio.ensure_future(carrier.wait())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        source.sendall(b"goes on")
        assert await asyncio.to_thread(read, target, 7) == b"goes on"

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
    from teleport.wire.status import from_rpc_error  # noqa: PLC0415 - beside its only use

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


@pytest.mark.parametrize("pause_seconds", [0.0, 0.3])
def test_what_arrived_is_acknowledged_however_little_and_late(pause_seconds: float) -> None:
    async def work(both: Ends) -> None:
        heard: list[Frame] = []
        release = threading.Event()

        def frames() -> Iterator[bytes]:
            yield pack(Frame(EPOCH))
            time.sleep(pause_seconds)  # until the target waits without end for something to say
            yield pack(Frame(EPOCH, data=bytes(100_000)))
            release.wait(20)

        def talk() -> None:
            with grpc.insecure_channel(f"127.0.0.1:{both.client._port}") as channel:
                call = channel.stream_stream(f"/{SERVICE}/Stream")(frames(), timeout=30)
                for raw in call:
                    heard.append(unpack(raw))
                    if heard[-1].acknowledged == 100_000:
                        release.set()
                        call.cancel()
                        return

        talking = asyncio.ensure_future(asyncio.to_thread(talk))
        assert len(await asyncio.to_thread(read, await both.target(), 100_000)) == 100_000
        await talking
        assert heard[-1].acknowledged == 100_000

    run(work)


def test_a_sender_with_the_smallest_window_is_never_left_without_an_answer() -> None:
    async def work(both: Ends) -> None:
        carrier, source = await both.carry()
        carrier._pump._window = CreditWindow(first_bytes=FLOOR_BYTES, ceiling_bytes=FLOOR_BYTES)
        sent = random.Random(5).randbytes(5_000_000)

        def write() -> None:
            for at in range(0, len(sent), 600_000):  # more than half a window stays unsaid at the target each time
                source.sendall(sent[at : at + 600_000])
                time.sleep(0.02)
            source.shutdown(socket.SHUT_WR)

        target = await both.target()
        writing = asyncio.ensure_future(asyncio.to_thread(write))
        assert await asyncio.to_thread(read_all, target) == sent
        await writing

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
        blasting = asyncio.ensure_future(asyncio.to_thread(_blast, source))
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
        blasting = asyncio.ensure_future(asyncio.to_thread(_blast, source))
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


def _blast(source: socket.socket) -> str:
    try:
        while True:
            source.sendall(bytes(1 << 20))
    except OSError:
        return "broken"


def test_no_descriptor_and_no_thread_stays_behind() -> None:
    async def one(both: Ends, number: int) -> None:
        carrier, source = await both.carry(number)
        target = await both.target(number)
        source.sendall(b"x" * 1000)
        match number % 3:
            case 0:
                carrier.close()
            case 1:
                target.close()
            case 2:
                source.shutdown(socket.SHUT_WR)
                await asyncio.to_thread(read_all, target)
        target.close()
        source.close()
        with contextlib.suppress(TeleportError):
            await carrier.wait()

    def held() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), len(
            [each for each in threading.enumerate() if "channel" in each.name]
        )

    async def work(both: Ends) -> None:
        await one(both, 0)
        await both.client.query(EPOCH, "")  # both connections stand now
        await until(lambda: not held()[1])
        before = held()[0]
        for number in range(1, 30):
            await one(both, number)
        await until(lambda: held()[0] <= before and not held()[1])

    run(work)
