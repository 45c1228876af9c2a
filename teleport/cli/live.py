"""What a VM is doing now, as far as a look at its files and at the processes tells: no runner is asked, and none is believed.

What its runner wrote last (`state.json`) is true only while somebody can have kept it true:

- its guardian holds the machine's `lock`: the runner lives, and the file is believed;
- nobody holds it, but a QEMU of `run/qemu.json` lives (same pid, start time and boot): the guest lives on without a runner, in the
  state that was written last, and the next command on the VM brings a new guardian, which takes it up;
- neither: nothing of it runs. A saved state says `saved`; a state at rest stays; any other one was cut off: `aborted`.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any

from teleport.cli.running import lock_is_free
from teleport.errors import StateError, TeleportError
from teleport.machines.store import VmPaths
from teleport.model import VmState

STATE_FILE = "state.json"
_GUARDIAN_LOCK = "lock"
_QEMUS_FILE = "qemu.json"
# States in which no runner holds the VM.
AT_REST = frozenset({VmState.POWEROFF, VmState.SAVED, VmState.ABORTED, VmState.TELEPORTED})
_START_TICKS = 19  # field 22 of /proc/PID/stat (proc(5)), counted after the command's closing parenthesis


class Life(Enum):
    """Who of a VM lives."""

    NOTHING = "nothing"
    RUNNER = "runner"
    ORPHAN = "a QEMU without its runner"


@dataclass(frozen=True)
class LiveState:
    """A VM's state, and what its runner noted beside it (`detail`, `since`, …)."""

    state: VmState
    life: Life = Life.NOTHING
    details: Mapping[str, str | int] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def at_rest(self) -> bool:
        """Whether nothing of it runs."""
        return self.life is Life.NOTHING


def live_state(paths: VmPaths, name: str = "") -> LiveState:
    """What the runner says, or, where none answers, what it left: a state that needs a runner and has none has ended badly."""
    if not lock_is_free(paths):
        answer = _asked(paths, name)
        if answer is not None:
            return answer
    try:
        raw = json.loads((paths.folder / STATE_FILE).read_bytes())
        state = VmState(raw.pop("state"))
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return LiveState(VmState.POWEROFF)
    if state not in AT_REST and lock_is_free(paths):
        return LiveState(VmState.ABORTED, MappingProxyType({"detail": f"it was {state.value} when its runner died"}))
    return LiveState(state, MappingProxyType(raw))


def _asked(paths: VmPaths, name: str) -> LiveState | None:
    """The runner's own word; None when it does not answer (it begins, ends, or its agent is being replaced)."""
    from teleport.wire.control_client import ControlClient  # noqa: PLC0415 - gRPC takes 100 ms, only running VMs need it

    try:
        with ControlClient(paths.run / "control.sock", vm_name=name) as control:
            status = control.status()
    except TeleportError:
        return None
    details: dict[str, str | int] = {"detail": status.detail, **dict(status.properties)}
    if status.teleporter_port:
        details["teleporterport"] = status.teleporter_port
    if status.qemu_pid:
        details["qemu_pid"] = status.qemu_pid
    return LiveState(VmState(status.state), MappingProxyType(details))


def require_at_rest(paths: VmPaths, name: str, what: str) -> None:
    """Raises StateError when the VM runs or waits, or has a saved state that a change would spoil."""
    now = live_state(paths)
    if not now.at_rest:
        raise StateError(what, f"the VM {name!r} is {now.state.value}", f"`teleport controlvm {name} poweroff` first")
    if now.state is VmState.SAVED:
        raise StateError(
            what, f"the VM {name!r} has a saved state, which needs the machine as it is", _leave_saved(name)
        )


def require_running(paths: VmPaths, name: str, what: str) -> LiveState:
    """Its state. Raises StateError when nothing of it runs, with what to do."""
    now = live_state(paths)
    if now.at_rest:
        saved = now.state is VmState.SAVED
        raise StateError(
            what, f"the VM {name!r} is {now.state.value}", _leave_saved(name) if saved else f"`teleport startvm {name}` first"
        )
    return now


def _leave_saved(name: str) -> str:
    return f"`teleport startvm {name}` goes on from it, `teleport discardstate {name}` drops it"


def _written(paths: VmPaths) -> tuple[VmState, dict[str, Any]]:
    try:
        raw = json.loads((paths.folder / STATE_FILE).read_bytes())
        return VmState(raw.pop("state")), raw
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return VmState.POWEROFF, {}


def _life(paths: VmPaths) -> Life:
    if _is_held(paths.folder / _GUARDIAN_LOCK):
        return Life.RUNNER
    return Life.ORPHAN if any(_lives(entry) for entry in _qemus(paths.run / _QEMUS_FILE)) else Life.NOTHING


def _is_held(lock: Path) -> bool:
    """Whether somebody holds it alone. A guardian that begins just now tries again for a moment, so that a look never stops it."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _qemus(path: Path) -> list[dict[str, Any]]:
    """The processes that a guardian of this boot started; [] when there is nothing whole."""
    try:
        content = json.loads(path.read_bytes())
        if content["boot_id"] != Path("/proc/sys/kernel/random/boot_id").read_text().strip():
            return []
        return [entry["process"] for entry in content["qemus"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _lives(process: Mapping[str, Any]) -> bool:
    with contextlib.suppress(OSError, KeyError, IndexError, ValueError):
        fields = Path(f"/proc/{int(process['pid'])}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return fields[0] not in "ZX" and int(fields[_START_TICKS]) == process["start_ticks"]
    return False
