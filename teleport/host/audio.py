"""What this host's QEMU can do for a guest that records."""

import functools
import subprocess

_PROBE_SECONDS = 10


@functools.lru_cache(maxsize=4)
def has_microphone(qemu: str) -> bool:
    """Whether that QEMU takes sound from a viewer: its modules for SPICE are there. Blocks for some 20 ms, once."""
    try:
        answer = subprocess.run(
            [qemu, "-audiodev", "help"], capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "spice" in answer.stdout.split()
