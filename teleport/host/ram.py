"""A guest's RAM: made as a file in memory, populated ahead, and the digest of all that a paused QEMU holds (`--verify-ram`).

How the digest reads: HMP `info ramblock` says where each block (RAM, video memory, option ROMs, ACPI tables) lies in QEMU's address
space, and /proc/PID/mem reads there, whatever kind of memory it is (the same user may, as it may attach a debugger). A block that
is a memfd is read through QEMU's descriptor instead: read() of a hole gives zeros, a mapping would fill the hole.
"""

import asyncio
import ctypes
import errno
import fcntl
import mmap
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from teleport.errors import HypervisorError
from teleport.host.guest import QmpGuest
from teleport.model import QemuProcess

_MADV_POPULATE_WRITE = 23  # linux/mman.h, since Linux 5.14
_CHUNK_BYTES = 64 << 20
_HUGE_BYTES = 2 << 20
_HUGE_PAGES = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
_HASHED_BYTES = 4 << 20  # a piece; its digest is one of those that make the block's
# "0000:00:01.0/vga.vram    4 KiB  0x<offset> 0x<used> 0x<total> 0x<HVA>  rw"; the RO column is not in all versions
_RAM_BLOCK = re.compile(r"^\s*(\S+)\s+\d+ \S+\s+0x[0-9a-f]+\s+0x([0-9a-f]+)\s+0x[0-9a-f]+\s+0x([0-9a-f]+)", re.MULTILINE)

_libc = ctypes.CDLL(None, use_errno=True)


def create_ram(size_bytes: int, *, huge_pages: bool = False) -> int:
    """A memfd of this size (pages come when touched), close-on-exec, sealed against a change of size. Raises HypervisorError.

    `huge_pages`: of pages of 2 MiB, all reserved at once: a host that has too few says so here, not in the middle of the guest's life.

    QEMU maps it by `memory-backend-file` on ``/proc/self/fd/N`` and lives with the seals (tried, 10.0.2): nobody who was passed
    the descriptor can shrink it under the guest.
    """
    try:
        kind = os.MFD_HUGETLB | os.MFD_HUGE_2MB if huge_pages else 0
        fd = os.memfd_create("teleport-ram", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | kind)
        os.ftruncate(fd, size_bytes)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        if huge_pages:
            _reserve(fd, size_bytes)
    except OSError as error:
        if huge_pages:
            raise _too_few_huge_pages(size_bytes, error) from error
        raise HypervisorError(
            "guest memory", f"{size_bytes >> 20} MiB: {error.strerror}", "free some, or give the VM less"
        ) from error
    return fd


def _reserve(fd: int, size_bytes: int) -> None:
    """The kernel reserves a file's huge pages when they are mapped (hugetlbfs_reserv.rst), for as long as the file lives."""
    try:
        mmap.mmap(fd, size_bytes).close()
    except BaseException:
        os.close(fd)
        raise


def _too_few_huge_pages(size_bytes: int, error: OSError) -> HypervisorError:
    needed = -(-size_bytes // _HUGE_BYTES)
    counts = {}
    for name in ("nr", "free", "resv"):
        try:
            counts[name] = int((_HUGE_PAGES / f"{name}_hugepages").read_text())
        except (OSError, ValueError):
            counts[name] = 0
    free = max(0, counts["free"] - counts["resv"])
    return HypervisorError(
        "guest memory",
        f"{needed} huge pages of 2 MiB are needed, {free} are free ({error.strerror})",
        f"set more aside as root: sysctl vm.nr_hugepages={counts['nr'] + max(0, needed - free)}; or modifyvm NAME --ram shared",
    )


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
        try:
            _populate_chunk(fd, offset, min(_CHUNK_BYTES, size_bytes - offset))
        except OSError as error:
            if error.errno == errno.EINVAL:  # a kernel before 5.14
                return
            raise HypervisorError(
                "guest memory", f"{size_bytes >> 20} MiB: {error.strerror}", "free some, or give the VM less"
            ) from error


def _populate_chunk(fd: int, offset: int, length: int) -> None:
    with mmap.mmap(fd, length, offset=offset) as mapping:
        start = ctypes.c_char.from_buffer(mapping)
        answer = _libc.madvise(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(length), _MADV_POPULATE_WRITE)
        number = ctypes.get_errno()
        del start  # a mapping with a view of it cannot be closed
    if answer != 0:
        raise OSError(number, os.strerror(number))


@dataclass(frozen=True)
class RamDigest:
    """blake3 over 4 MiB pieces: `blocks` by QEMU's block name, `total` over names, sizes and digests of all."""

    total: str
    blocks: Mapping[str, str]


@dataclass(frozen=True)
class _Block:
    name: str
    bytes: int
    address: int


async def hash_guest_ram(guest: QmpGuest) -> RamDigest:
    """The digest of all memory of a guest that is paused (or whose migration has completed). Raises HypervisorError.

    Equal digests at source and target mean that RAM, video memory and ROMs arrived bit for bit. 1 GiB takes 0.2 to 0.35 s on two cores.
    """
    blocks = await _blocks(guest)
    if not blocks:
        raise HypervisorError("hashing guest memory", "QEMU does not say where it is")
    try:
        digests = await asyncio.to_thread(_hash_blocks, guest.process, blocks)
    except OSError as error:
        raise HypervisorError(
            "hashing guest memory",
            f"QEMU {guest.process.label} (pid {guest.process.pid}): {error.strerror or error}",
            "the agent must run as QEMU's user, or may not be kept from attaching to it (ptrace_scope)",
        ) from error
    total = blake3()
    for block in sorted(blocks, key=lambda block: block.name):
        total.update(f"{block.name} {block.bytes} {digests[block.name]}\n".encode())
    return RamDigest(total=total.hexdigest(), blocks=digests)


async def read_ram_block(guest: QmpGuest, name: str) -> bytes:
    """A small block of a paused guest's private memory, whole, whatever state its device is in. Raises HypervisorError."""
    block = next((each for each in await _blocks(guest) if each.name == name), None)
    if block is None:
        raise HypervisorError("reading guest memory", f"QEMU has no block {name}")
    try:
        return await asyncio.to_thread(_read_block, guest.process, block)
    except OSError as error:
        raise HypervisorError(
            "reading guest memory",
            f"QEMU {guest.process.label} (pid {guest.process.pid}): {error.strerror or error}",
            "the agent must run as QEMU's user, or may not be kept from attaching to it (ptrace_scope)",
        ) from error


async def _blocks(guest: QmpGuest) -> list[_Block]:
    return [
        _Block(name=name, bytes=int(used, 16), address=int(address, 16))
        for name, used, address in _RAM_BLOCK.findall(await guest.hmp("info ramblock"))
    ]


def _read_block(process: QemuProcess, block: _Block) -> bytes:
    with ExitStack() as opened:
        memory_fd = _open(opened, f"/proc/{process.pid}/mem")
        content = os.pread(memory_fd, block.bytes, block.address)
    if len(content) != block.bytes:
        raise OSError(0, "its memory ended too early")
    return content


def _hash_blocks(process: QemuProcess, blocks: list[_Block]) -> dict[str, str]:
    with ExitStack() as opened:
        memory_fd = _open(opened, f"/proc/{process.pid}/mem")
        files = {inode: _open(opened, path) for inode, path in _memfds(process.pid).items()}
        mappings = list(_shared_mappings(process.pid, files))
        pool = opened.enter_context(ThreadPoolExecutor(max_workers=os.cpu_count()))
        digests: dict[str, str] = {}
        for block in blocks:
            fd, start = memory_fd, block.address
            for first, last, inode, offset in mappings:
                if first <= block.address and block.address + block.bytes <= last:
                    fd, start = files[inode], offset + block.address - first
            pieces = [(fd, start + at, min(_HASHED_BYTES, block.bytes - at)) for at in range(0, block.bytes, _HASHED_BYTES)]
            whole = blake3()
            for digest in pool.map(_hash_piece, pieces):
                whole.update(digest)
            digests[block.name] = whole.hexdigest()
        return digests


def _open(opened: ExitStack, path: str) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    opened.callback(os.close, fd)
    return fd


def _hash_piece(piece: tuple[int, int, int]) -> bytes:
    fd, start, length = piece
    digest = blake3()
    while length > 0:
        data = os.pread(fd, length, start)
        if not data:
            raise OSError(0, "its memory ended too early")
        digest.update(data)
        start, length = start + len(data), length - len(data)
    return digest.digest()


def _memfds(pid: int) -> dict[int, str]:
    """The memfds that the process has open, by inode number."""
    found: dict[int, str] = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if str(path.readlink()).startswith("/memfd:"):
                found[path.stat().st_ino] = str(path)
        except FileNotFoundError:  # closed meanwhile
            continue
    return found


def _shared_mappings(pid: int, inodes: Mapping[int, object]) -> Iterator[tuple[int, int, int, int]]:
    """First address, end, inode and file offset of each mapping of one of these memfds (proc(5), /proc/PID/maps)."""
    for line in Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].startswith("/memfd:") and int(fields[4]) in inodes:
            first, _, last = fields[0].partition("-")
            yield int(first, 16), int(last, 16), int(fields[4]), int(fields[2], 16)
