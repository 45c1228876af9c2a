"""Two real gRPC ends of QEMU's stream, for the tests of what passes between them."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from teleport.wire.transfer_client import Carrier, TransferClient
from teleport.wire.transfer_server import TransferServer
from tests.fakes.transfer_target import EPOCH, FakeTarget
from tests.fakes.until import until


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


def blast(source: socket.socket) -> str:
    try:
        while True:
            source.sendall(bytes(1 << 20))
    except OSError:
        return "broken"
