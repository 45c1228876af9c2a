"""--verify-ram: equal after a real migration, different after one byte, and no hole of a RAM file is filled by looking."""

import asyncio
import os
from pathlib import Path

import pytest

from teleport.host.guest import QmpGuest
from teleport.host.ram import hash_guest_ram, resident_bytes
from tests.integration.tiny_qemu import SOURCE_CAPABILITIES, TARGET_CAPABILITIES, memfd, migrate, tiny_qemu

pytestmark = pytest.mark.qemu

INCOMING = ("-S", "-incoming", "defer")


async def shared(source: QmpGuest, target: QmpGuest, path: Path) -> None:
    await source.configure_migration({**SOURCE_CAPABILITIES, "x-ignore-shared": True}, {})
    await target.configure_migration({**TARGET_CAPABILITIES, "x-ignore-shared": True}, {})
    await source.stop()
    await migrate(source, target, path)


@pytest.mark.parametrize("vga", ["std", "cirrus", "vmware", "virtio"])
def test_equal_after_a_copy_and_different_after_one_byte(tmp_path: Path, vga: str) -> None:
    async def scenario() -> None:
        devices = ("-vga", vga, "-device", "e1000,id=nic")
        fds = memfd(), memfd()
        try:
            async with (
                tiny_qemu(tmp_path, "source", *devices, ram_fd=fds[0]) as source,
                tiny_qemu(tmp_path, "target", *devices, *INCOMING, ram_fd=fds[1]) as target,
            ):
                await migrate(source, target, tmp_path / "stream")
                here, there = await hash_guest_ram(source), await hash_guest_ram(target)
                assert "ram0" in here.blocks
                assert any("vram" in name for name in here.blocks)
                assert here.blocks == there.blocks
                assert here.total == there.total
                byte = os.pread(fds[1], 1, 40 << 20)
                os.pwrite(fds[1], bytes([byte[0] ^ 1]), 40 << 20)
                changed = await hash_guest_ram(target)
                assert changed.total != here.total
                assert [name for name in here.blocks if here.blocks[name] != changed.blocks[name]] == ["ram0"]
        finally:
            for fd in fds:
                os.close(fd)

    asyncio.run(scenario())


def test_shared_memory_and_private_memory_are_read_the_same(tmp_path: Path) -> None:
    async def scenario() -> None:
        fd = memfd()
        try:
            async with (
                tiny_qemu(tmp_path, "source", ram_fd=fd) as source,
                tiny_qemu(tmp_path, "target", *INCOMING, ram_fd=fd) as target,
            ):
                await shared(source, target, tmp_path / "stream")
                before_bytes = resident_bytes(fd)
                assert before_bytes < 64 << 20
                here, there = await hash_guest_ram(source), await hash_guest_ram(target)
                assert here == there
                assert resident_bytes(fd) == before_bytes
                await target.activate_disks()
                await target.cont()
                await target.stop()
                async with tiny_qemu(tmp_path, "private", *INCOMING) as private:
                    await target.configure_migration({"x-ignore-shared": False, "late-block-activate": False}, {})
                    await migrate(target, private, tmp_path / "stream2")
                    assert await hash_guest_ram(private) == await hash_guest_ram(target)
        finally:
            os.close(fd)

    asyncio.run(scenario())
