"""Who of a VM lives, by its locks and processes: nobody is asked, and nobody is believed.

- The guardian holds the machine's `lock`: the runner lives.
- Nobody holds it, but a QEMU of `run/qemu.json` lives (same pid, start time and boot): the guest goes on without a runner, and the
  next command on the VM brings a new guardian, which takes it up.
- Neither: nothing of the VM runs, whatever was written down.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from teleport.machines.store import VmPaths

_QEMUS_FILE = "qemu.json"
_AGENT_FILE = "agent.json"
_START_TICKS = 19  # field 22 of /proc/PID/stat (proc(5)), counted after the command's closing parenthesis


class Life(Enum):
    """Who of a VM lives."""

    NOTHING = "nothing"
    RUNNER = "its runner"
    ORPHAN = "a QEMU without its runner"


def life(paths: VmPaths) -> Life:
    """Who lives now."""
    if not lock_is_free(paths):
        return Life.RUNNER
    return (
        Life.ORPHAN
        if any(_lives(entry["process"]) for entry in _of_this_boot(paths, _QEMUS_FILE).get("qemus", ()))
        else Life.NOTHING
    )


def lock_is_free(paths: VmPaths) -> bool:
    """Whether no guardian holds this VM. A guardian that begins just now tries again, so that a look never stops it."""
    try:
        descriptor = os.open(paths.folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def last_agent(paths: VmPaths) -> tuple[str, ...]:
    """The words by which a guardian of this boot started its agent; () when that is not known."""
    return tuple(_of_this_boot(paths, _AGENT_FILE).get("argv", ()))


def _of_this_boot(paths: VmPaths, name: str) -> dict[str, Any]:
    """What a guardian of this boot wrote; {} when there is nothing whole."""
    try:
        content = json.loads((paths.run / name).read_bytes())
        known = content["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return content if known else {}


def _lives(process: Mapping[str, Any]) -> bool:
    with contextlib.suppress(OSError, KeyError, IndexError, ValueError):
        fields = Path(f"/proc/{int(process['pid'])}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return fields[0] not in "ZX" and int(fields[_START_TICKS]) == process["start_ticks"]
    return False
