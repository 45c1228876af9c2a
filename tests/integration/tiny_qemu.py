"""Small real QEMUs for tests of the host's side: 64 MiB, TCG, no guest but the firmware."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from teleport.host.guest import QmpGuest
from teleport.host.process import start_ticks
from teleport.model import QemuProcess

RAM_BYTES = 64 << 20
SOURCE_CAPABILITIES = {"events": True, "return-path": True, "pause-before-switchover": True}
TARGET_CAPABILITIES = {"events": True, "return-path": True, "late-block-activate": True}


def arguments(folder: Path, name: str, *extra: str, ram_path: str = "") -> list[str]:
    """A q35 with VGA and two monitors in `folder`; RAM from `ram_path` (a /proc/self/fd path) or private."""
    ram = (
        ["-object", f"memory-backend-file,id=ram0,size={RAM_BYTES},mem-path={ram_path},share=on"]
        if ram_path
        else ["-object", f"memory-backend-ram,id=ram0,size={RAM_BYTES}"]
    )
    return [
        *("qemu-system-x86_64", "-name", name, "-nodefaults", "-display", "none", "-vga", "std"),
        *("-machine", "q35,accel=tcg,memory-backend=ram0", "-m", str(RAM_BYTES >> 20), *ram),
        *("-chardev", f"socket,id=main,path={folder}/{name}.qmp,server=on,wait=off", "-mon", "chardev=main,mode=control"),
        *("-chardev", f"socket,id=oob,path={folder}/{name}.oob,server=on,wait=off", "-mon", "chardev=oob,mode=control"),
        *extra,
    ]


@contextlib.asynccontextmanager
async def tiny_qemu(folder: Path, name: str, *extra: str, ram_fd: int | None = None) -> AsyncIterator[QmpGuest]:
    """A running one, connected; dead and reaped at the end."""
    ram_path = "" if ram_fd is None else f"/proc/self/fd/{ram_fd}"
    command = arguments(folder, name, *extra, ram_path=ram_path)
    async with connected(folder, name, command, pass_fds=() if ram_fd is None else (ram_fd,), ram_bytes=RAM_BYTES) as guest:
        yield guest


@contextlib.asynccontextmanager
async def connected(
    folder: Path, name: str, command: Sequence[str], *, pass_fds: Sequence[int] = (), ram_bytes: int = 0
) -> AsyncIterator[QmpGuest]:
    """A QEMU of this command line, whose monitors are NAME.qmp and NAME.oob in the folder; dead and reaped at the end."""
    stderr_path = folder / f"{name}.stderr"
    with stderr_path.open("wb") as stderr:
        child = subprocess.Popen(  # noqa: ASYNC220 - takes a millisecond, and pass_fds as production does
            command, stderr=stderr, stdin=subprocess.DEVNULL, pass_fds=pass_fds
        )
    try:
        ticks = start_ticks(child.pid)
        assert ticks is not None
        process = QemuProcess(pid=child.pid, start_ticks=ticks, label=name, ram_bytes=ram_bytes)
        guest = await QmpGuest.connect(folder / f"{name}.qmp", folder / f"{name}.oob", process, stderr_path)
        try:
            yield guest
        finally:
            await guest.close()
    finally:
        if child.poll() is None:
            child.kill()
        await asyncio.get_running_loop().run_in_executor(None, child.wait)


def memfd() -> int:
    """RAM for one guest; the test closes it."""
    descriptor = os.memfd_create("test-ram")
    os.ftruncate(descriptor, RAM_BYTES)
    return descriptor


async def migrate(source: QmpGuest, target: QmpGuest, path: Path) -> None:
    """Native precopy over a unix socket, up to both `completed`; the target stays paused."""
    await source.configure_migration(SOURCE_CAPABILITIES, {"max-bandwidth": 1 << 40, "downtime-limit": 1000})
    await target.configure_migration(TARGET_CAPABILITIES, {"announce-rounds": 0})
    await target.migrate_incoming(f"unix:{path}")
    await source.migrate(f"unix:{path}")
    assert await source.wait_migration("pre-switchover") == "pre-switchover"
    await source.migrate_continue()
    assert await source.wait_migration() == "completed"
    assert await target.wait_migration() == "completed"
