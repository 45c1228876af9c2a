"""Freed memory is kept while a stream runs: gRPC allocates and frees a message of 1 MiB a thousand times a second, and glibc would
give each back to the kernel and fault it in again (tried: a fifth of both sides' CPU time)."""

import ctypes
import functools

# glibc's malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT_BYTES = 32 << 20


@functools.cache
def keep_freed_memory() -> None:
    """Sets it for this process, once. Other C libraries than glibc do without."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, 2 * _KEPT_BYTES)
