"""A guest's RAM as a file in memory: made here, populated ahead, given back."""

import asyncio
import ctypes
import fcntl
import mmap
import os
import threading
from collections.abc import Callable

from teleport.errors import HypervisorError

_MADV_POPULATE_WRITE = 23  # linux/mman.h, since Linux 5.14
_CHUNK_BYTES = 64 << 20
_FALLOC_FL_KEEP_SIZE, _FALLOC_FL_PUNCH_HOLE = 1, 2  # linux/falloc.h

_libc = ctypes.CDLL(None, use_errno=True)


def create_ram(size_bytes: int) -> int:
    """A memfd of this size (pages come when touched), close-on-exec, sealed against a change of size. Raises HypervisorError.

    QEMU maps it by `memory-backend-file` on ``/proc/self/fd/N`` and lives with the seals (tried, 10.0.2): nobody who was passed
    the descriptor can shrink it under the guest.
    """
    try:
        fd = os.memfd_create("teleport-ram", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, size_bytes)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    except OSError as error:
        raise HypervisorError(
            "guest memory", f"{size_bytes >> 20} MiB: {error.strerror}", "free some, or give the VM less"
        ) from error
    return fd


def resident_bytes(fd: int) -> int:
    """How much of the file takes memory now."""
    return os.fstat(fd).st_blocks * 512


async def populate(fd: int) -> None:
    """Takes all pages of the file now (a cold target page costs as much as copying it). Cancellable between 64 MiB chunks.

    Raises HypervisorError when memory runs out; on kernels that cannot do it, returns without having done it.
    """
    stop = threading.Event()
    work = asyncio.get_running_loop().run_in_executor(None, _populate, fd, stop.is_set)
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait({work})
        raise


def _populate(fd: int, stopped: Callable[[], bool]) -> None:
    size_bytes = os.fstat(fd).st_size
    for offset in range(0, size_bytes, _CHUNK_BYTES):
        if stopped():
            return
        length = min(_CHUNK_BYTES, size_bytes - offset)
        with mmap.mmap(fd, length, offset=offset) as mapping:
            start = ctypes.c_char.from_buffer(mapping)
            answer = _libc.madvise(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(length), _MADV_POPULATE_WRITE)
            number = ctypes.get_errno()
            del start  # a mapping with a view of it cannot be closed
        if answer == 0:
            continue
        if number == 22:  # EINVAL: a kernel before 5.14
            return
        raise HypervisorError(
            "guest memory", f"{size_bytes >> 20} MiB: {os.strerror(number)}", "free some, or give the VM less"
        )
