"""What this host's CPU answers to CPUID, as `list hostcpuids` shows it.

Python has no such instruction, and Linux's own way to it, `/dev/cpu/0/cpuid`, needs a module and root. So 29 bytes of machine code are
called through ctypes: they are written into a memfd and mapped for reading and executing, never writable and executable at once.
Where a host forbids that as well, the device is tried, and then the reason is told.
"""

import ctypes
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from teleport.errors import HypervisorError

# VirtualBox's ranges (VBoxManageList.cpp, listHostInfo's neighbour): basic, extended, Centaur's; each with its greatest plausible end.
_RANGES = ((0x00000000, 0x0000007F), (0x80000000, 0x8000007F), (0xC0000000, 0xC000007F))
_DEVICE = Path("/dev/cpu/0/cpuid")
_PROT_READ, _PROT_EXEC, _MAP_PRIVATE = 1, 4, 2
# void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t registers[4]), System V ABI for x86-64
_CODE = bytes.fromhex(
    "53"  # push rbx
    "4989d0"  # mov r8, rdx
    "89f8"  # mov eax, edi
    "89f1"  # mov ecx, esi
    "0fa2"  # cpuid
    "418900"  # mov [r8], eax
    "41895804"  # mov [r8+4], ebx
    "41894808"  # mov [r8+8], ecx
    "4189500c"  # mov [r8+12], edx
    "5b"  # pop rbx
    "c3"  # ret
)
Cpuid = Callable[[int], tuple[int, int, int, int]]


@dataclass(frozen=True)
class Leaf:
    """One answer; leaves that have subleaves with their first."""

    leaf: int
    eax: int
    ebx: int
    ecx: int
    edx: int


def host_leaves() -> tuple[Leaf, ...]:
    """All leaves of the first CPU that this process may run on. Raises HypervisorError where they cannot be read."""
    if platform.machine() != "x86_64":
        raise HypervisorError("list hostcpuids", f"this host is {platform.machine()}: its CPU has no CPUID")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})  # some leaves hold the number of the CPU that answers
    try:
        return tuple(leaves(_reader()))
    finally:
        os.sched_setaffinity(0, before)


def leaves(cpuid: Cpuid) -> Iterator[Leaf]:
    """Every leaf of the ranges that this CPU has: the first of a range names the last."""
    for first, most in _RANGES:
        last = cpuid(first)[0]
        if first <= last <= most:
            for leaf in range(first, last + 1):
                yield Leaf(leaf, *cpuid(leaf))


def _reader() -> Cpuid:
    try:
        return _by_code()
    except OSError as refused:
        try:
            with _DEVICE.open("rb"):
                return _by_device
        except OSError as error:
            raise HypervisorError(
                "list hostcpuids",
                f"this host lets programs run no code of their own making ({refused.strerror}), and {_DEVICE}: {error.strerror}",
                "`modprobe cpuid`, and run it as root",
            ) from error


def _by_code() -> Cpuid:
    """Raises OSError where the kernel forbids it (SELinux's execmem, noexec)."""
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    descriptor = os.memfd_create("cpuid")
    try:
        os.write(descriptor, _CODE)
        address = library.mmap(None, len(_CODE), _PROT_READ | _PROT_EXEC, _MAP_PRIVATE, descriptor, 0)
    finally:
        os.close(descriptor)
    if address in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    function = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint32))(address)

    def read(leaf: int) -> tuple[int, int, int, int]:
        registers = (ctypes.c_uint32 * 4)()
        function(leaf, 0, registers)
        return registers[0], registers[1], registers[2], registers[3]

    return read


def _by_device(leaf: int) -> tuple[int, int, int, int]:
    """Its offset is the leaf (cpuid(4))."""
    with _DEVICE.open("rb", buffering=0) as device:
        answer = os.pread(device.fileno(), 16, leaf)
    eax, ebx, ecx, edx = (int.from_bytes(answer[at : at + 4], "little") for at in range(0, 16, 4))
    return eax, ebx, ecx, edx
