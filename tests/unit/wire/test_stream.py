"""QEMU's stream between two real gRPC ends: bytes, ends and credits."""

import asyncio
import contextlib
import hashlib
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from teleport.errors import TeleportError
from teleport.wire.credits import CEILING_BYTES, FLOOR_BYTES, CreditWindow
from teleport.wire.frames import Frame, pack, unpack
from teleport.wire.options import SERVICE
from tests.fakes.transfer_target import EPOCH
from tests.fakes.until import until
from tests.unit.wire.stream_ends import Ends, read, read_all, run


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
