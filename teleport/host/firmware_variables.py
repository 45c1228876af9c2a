"""The EFI variables of a guest that arrived paused, into the target's own file.

QEMU writes the store of a guest that arrived only when its vCPUs first run (hw/block/pflash_cfi01.c, postload_update_cb). A guest
that stays paused and is then powered off would leave the target's old variables on disk, so we write them ourselves.
"""

import asyncio
import os
from pathlib import Path

from teleport.errors import HypervisorError, StorageError
from teleport.host.guest import QmpGuest
from teleport.host.ram import read_ram_block

_BLOCK = "system.flash1"  # QEMU's name of the second flash chip, `pflash1` (hw/i386/pc_sysfw.c)


async def write_variables(guest: QmpGuest, file: Path) -> None:
    """Makes `file`, which QEMU has open as `pflash1`, what the paused guest's flash memory holds; durable when this returns.

    It is written in place: a renamed file would leave QEMU at the old one. A power cut in the middle leaves a mixture, as it does when
    QEMU writes it itself. Raises HypervisorError, StorageError.
    """
    content = await read_ram_block(guest, _BLOCK)
    try:
        await asyncio.to_thread(_replace_content, file, content)
    except OSError as error:
        raise StorageError(f"writing {file}", error.strerror or str(error), "check free space and permissions") from error


def _replace_content(file: Path, content: bytes) -> None:
    descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        size_bytes = os.fstat(descriptor).st_size
        if size_bytes != len(content):
            raise HypervisorError(
                "EFI variables",
                f"the guest's are {len(content)} bytes, {file} has {size_bytes}",
                "install the same ovmf on both hosts",
            )
        if os.pread(descriptor, size_bytes, 0) == content:
            return
        written = 0
        while written < len(content):
            written += os.pwrite(descriptor, content[written:], written)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
