"""What a VM is doing now, as far as a look at its files tells: no runner is asked."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from teleport.errors import StateError
from teleport.machines.store import VmPaths
from teleport.model import VmState

STATE_FILE = "state.json"
# States in which no runner holds the VM and its definition may change.
AT_REST = frozenset({VmState.POWEROFF, VmState.SAVED, VmState.ABORTED, VmState.TELEPORTED})


@dataclass(frozen=True)
class LiveState:
    """A VM's state, and what its runner noted beside it (`vrdeport`, `teleporterport`, …)."""

    state: VmState
    details: Mapping[str, str | int] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def at_rest(self) -> bool:
        """Whether nothing of it runs."""
        return self.state in AT_REST


def live_state(paths: VmPaths) -> LiveState:
    """Reads what the runner of this VM wrote last; a VM without one is off."""
    try:
        raw = json.loads((paths.run / STATE_FILE).read_bytes())
    except (OSError, ValueError):
        return LiveState(VmState.POWEROFF)
    state = VmState.POWEROFF
    with contextlib.suppress(ValueError, AttributeError, TypeError):
        state = VmState(raw.pop("state"))
        return LiveState(state, MappingProxyType(raw))
    return LiveState(state)


def require_at_rest(paths: VmPaths, name: str, what: str) -> None:
    """Raises StateError when the VM runs or waits."""
    now = live_state(paths)
    if not now.at_rest:
        raise StateError(what, f"the VM {name!r} is {now.state.value}", f"`teleport controlvm {name} poweroff` first")
