"""QEMU's own stream and return path through the peer API, without an agent: two bare QEMUs, one channel."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from teleport.errors import TeleportError
from teleport.host.pipe import UnixListener, connect_unix
from teleport.wire.transfer_client import Carrier, TransferClient
from teleport.wire.transfer_server import TransferServer
from tests.fakes.transfer_target import EPOCH, FakeTarget
from tests.fakes.until import until
from tests.harness.bare import BareQemu
from tests.harness.guest import GuestImage

pytestmark = pytest.mark.qemu

CAPABILITIES = [{"capability": name, "state": True} for name in ("events", "return-path")]
# Slow from the beginning: a guest that has just been started holds so little that a busy test would come too late to break it off.
_SLOW = 200_000


class QemuTarget(FakeTarget):
    """Channels end in a real QEMU."""

    def __init__(self, incoming: str) -> None:
        super().__init__()
        self._incoming = incoming

    async def channel(self, epoch: str, number: int) -> socket.socket:
        return connect_unix(self._incoming)


@contextlib.asynccontextmanager
async def migrating(source: BareQemu, target: BareQemu, *, bytes_per_second: int = 1 << 40) -> AsyncIterator[Carrier]:
    """The source's `migrate` under way to the target, which must not go on by itself."""
    incoming = str(target.folder / "in.sock")
    for qemu in (source, target):
        qemu.qmp("migrate-set-capabilities", capabilities=CAPABILITIES)
    source.qmp("migrate-set-parameters", max_bandwidth=bytes_per_second)
    target.qmp("migrate-incoming", channels=[_channel(incoming)], exit_on_error=False)
    server = TransferServer(QemuTarget(incoming), address="localhost", port=0, insecure=False)
    await server.start()
    client = TransferClient("localhost", server.port)
    try:
        await client.connect(timeout_seconds=10, insecure=False)
        with UnixListener(source.folder / "out.sock") as listener:
            source.qmp("migrate", channels=[_channel(str(listener.path))])
            sock = await listener.accept()
        yield client.carry(EPOCH, 0, sock)
    finally:
        await client.close_channel()
        await server.stop()


def _channel(path: str) -> dict[str, Any]:
    return {"channel-type": "main", "addr": {"transport": "socket", "type": "unix", "path": path}}


def _status(qemu: BareQemu) -> str:
    return str(qemu.qmp("query-migrate").get("status", ""))


def test_a_guest_goes_through_the_wire(guest: GuestImage) -> None:
    async def work(source: BareQemu, target: BareQemu) -> None:
        async with migrating(source, target) as carrier:
            await until(lambda: _status(source) in ("completed", "failed"))
            assert _status(source) == "completed", source.errors
            await until(lambda: _status(target) == "completed")  # by the return path the source knew it already
            async with asyncio.timeout(20):
                await carrier.wait()  # QEMU ends both directions
            assert carrier.sent_bytes > 1 << 20
            assert carrier.received_bytes > 0

    with BareQemu(guest, name="source") as source, BareQemu(guest, name="target", incoming=True) as target:
        asyncio.run(work(source, target))


def test_a_carrier_that_is_closed_fails_both_migrations_at_once_and_the_guest_goes_on(guest: GuestImage) -> None:
    async def work(source: BareQemu, target: BareQemu) -> None:
        async with migrating(source, target, bytes_per_second=_SLOW) as carrier:
            await until(lambda: carrier.sent_bytes > 100_000)
            carrier.close()
            await until(lambda: _status(source) == "failed" and _status(target) == "failed")
            await until(lambda: source.qmp("query-status")["status"] == "running")

    with BareQemu(guest, name="source") as source, BareQemu(guest, name="target", incoming=True) as target:
        asyncio.run(work(source, target))


def test_a_target_that_dies_fails_the_sources_migration(guest: GuestImage) -> None:
    async def work(source: BareQemu, target: BareQemu) -> None:
        async with migrating(source, target, bytes_per_second=_SLOW) as carrier:
            await until(lambda: carrier.sent_bytes > 100_000)
            target.process.kill()
            await until(lambda: _status(source) == "failed")
            with pytest.raises(TeleportError, match="QEMU at the target"):
                await carrier.wait()
            await until(lambda: source.qmp("query-status")["status"] == "running")

    with BareQemu(guest, name="source") as source, BareQemu(guest, name="target", incoming=True) as target:
        asyncio.run(work(source, target))
