"""What a VM is doing now: its runner's word, or, where none answers, what can be true of what it left.

`teleport.cli.life` says who lives. A QEMU without its runner is in the state that was written last; where nothing lives, a saved
state says `saved`, a state at rest stays, and any other one was cut off: `aborted`.
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from teleport.cli.life import Life, life
from teleport.errors import StateError, TeleportError
from teleport.machines.store import VmPaths
from teleport.model import VmState

STATE_FILE = "state.json"
Details = Mapping[str, str | int]
_NUMBERS = frozenset({"vrdeport", "vrdeviewers"})  # unquoted, as VirtualBox shows numbers
# States in which no runner holds the VM.
AT_REST = frozenset({VmState.POWEROFF, VmState.SAVED, VmState.ABORTED, VmState.TELEPORTED})


@dataclass(frozen=True)
class LiveState:
    """A VM's state, and what its runner said or noted beside it (`detail`, `teleporterport`, …)."""

    state: VmState
    life: Life = Life.NOTHING
    details: Details = field(default_factory=lambda: MappingProxyType({}))

    @property
    def at_rest(self) -> bool:
        """Whether no process of it lives: its definition may change."""
        return self.life is Life.NOTHING

    @property
    def runs(self) -> bool:
        """Whether a guest, or a runner that waits for one, is there."""
        return self.state not in AT_REST


def live_state(paths: VmPaths, name: str = "") -> LiveState:
    """How the VM is. Changes nothing: a runner that is gone is replaced by the next command that needs one."""
    alive = life(paths)
    if alive is Life.RUNNER and (answer := _asked(paths, name)):
        return answer
    state, details = _written(paths)
    if alive is Life.ORPHAN:
        details["detail"] = "its runner is gone; the next command on this VM brings a new one"
        state = VmState.RUNNING if state in AT_REST else state
    elif alive is Life.NOTHING and paths.saved.is_dir():
        state = VmState.SAVED
    elif alive is Life.NOTHING and state is VmState.SAVED:
        state = VmState.POWEROFF  # it was discarded
    elif alive is Life.NOTHING and state not in AT_REST:
        details["detail"] = f"it was {state.value} when its runner died"
        state = VmState.ABORTED
    return LiveState(state, alive, MappingProxyType(details))


def _written(paths: VmPaths) -> tuple[VmState, dict[str, str | int]]:
    try:
        raw = json.loads((paths.folder / STATE_FILE).read_bytes())
        return VmState(raw.pop("state")), raw
    except FileNotFoundError:
        return VmState.POWEROFF, {}
    except (OSError, ValueError, AttributeError, TypeError, KeyError):  # the power went while, or just after, it was written
        return VmState.ABORTED, {"detail": f"{STATE_FILE} is not whole: it was cut off"}


def _asked(paths: VmPaths, name: str) -> LiveState | None:
    """The runner's own word; None when it does not answer (it begins, ends, or its agent is being replaced)."""
    from teleport.wire.control_client import ControlClient  # noqa: PLC0415 - gRPC takes 100 ms, only running VMs need it

    try:
        with ControlClient(paths.run / "control.sock", vm_name=name) as control:
            status = control.status()
    except TeleportError:
        return None
    details: dict[str, str | int] = {"detail": status.detail}
    # sorted: they come in another order each time
    details |= {name: int(value) if name in _NUMBERS else value for name, value in sorted(status.properties.items())}
    if status.teleporter_port:
        details["teleporterport"] = status.teleporter_port
    if status.qemu_pid:
        details["qemu_pid"] = status.qemu_pid
    return LiveState(VmState(status.state), Life.RUNNER, MappingProxyType(details))


def require_changeable(paths: VmPaths, name: str, what: str) -> None:
    """As `require_at_rest`, but a VM that waits for a teleport may change: its runner reads the definition for each session, so that
    the preflight's mending commands work as they are pasted."""
    if live_state(paths, name).state is not VmState.TELEPORTING_IN:
        require_at_rest(paths, name, what)


def require_at_rest(paths: VmPaths, name: str, what: str) -> None:
    """Raises StateError when the VM runs or waits, or has a saved state that a change would spoil."""
    now = live_state(paths, name)
    if not now.at_rest:
        raise StateError(
            what, f"the VM {name!r} is {now.state.value}", f"`teleport controlvm {shlex.quote(name)} poweroff` first"
        )
    if now.state is VmState.SAVED:
        raise StateError(
            what,
            f"the VM {name!r} has a saved state, which needs the machine as it is",
            f"`teleport startvm {shlex.quote(name)}` goes on from it, `teleport discardstate {shlex.quote(name)}` drops it",
        )


def keeps_saved_state(paths: VmPaths, name: str) -> bool:
    """Whether the VM is saved and nothing of it lives."""
    now = live_state(paths, name)
    return now.at_rest and now.state is VmState.SAVED
