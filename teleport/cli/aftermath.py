"""What became of a teleport whose runner died while the command waited for its end.

Its guardian starts another agent (and where the guardian died, this command brings another one), which finishes the handover by the
journal and the owner record. It is asked until the VM's state says how that ended; nothing is guessed.
"""

import shlex
import time
from collections.abc import Callable

from teleport.cli.life import Life
from teleport.cli.live import LiveState, live_state
from teleport.cli.running import adopt
from teleport.errors import GuestLostError, HypervisorError, InDoubtError, TeleportError
from teleport.machines.store import StoredVm
from teleport.model import Outcome, OutcomeKind, VmState

_LOOK_SECONDS = 0.1
_LIMIT_SECONDS = 90.0  # a handover that is in doubt is called so after 30 s; an agent's start and lost heartbeats come before
_DIED = "the runner's agent died while it teleported"


def what_became(vm: StoredVm, *, target: str, say: Callable[[str], None]) -> Outcome:
    """Waits for the end: an outcome of kind MOVED without measurements.

    Raises HypervisorError when the guest is where it was, InDoubtError, GuestLostError.
    """
    say("the runner's agent died: asking its successor what became of the teleport")
    deadline = time.monotonic() + _LIMIT_SECONDS
    while True:
        now = live_state(vm.paths, vm.name)
        if now.life is Life.ORPHAN:
            _bring_runner(vm)
        elif (end := judged(now, name=vm.name, target=target)) is not None:
            return end
        if time.monotonic() > deadline:
            name = shlex.quote(vm.name)
            raise InDoubtError(
                "teleport",
                f"{_DIED}, and after {_LIMIT_SECONDS:g} s nobody says how it ended (VM {vm.name!r} is {now.state.value})",
                f"teleport showvminfo {name} tells when it is settled, and the log of {vm.paths.log.parent} why it is not",
            )
        time.sleep(_LOOK_SECONDS)


def _bring_runner(vm: StoredVm) -> None:
    try:
        adopt(vm)
    except TeleportError as error:
        raise InDoubtError(
            "teleport",
            f"the runner died while it teleported, and another one cannot be started ({error})",
            f"teleport showvminfo {shlex.quote(vm.name)} tries again",
        ) from error


def judged(now: LiveState, *, name: str, target: str) -> Outcome | None:
    """What this state says of the teleport: None as long as nothing is settled; else as `what_became`."""
    quoted = shlex.quote(name)
    detail = str(now.details.get("detail", ""))
    if now.life is Life.RUNNER:
        if now.state in (VmState.RUNNING, VmState.PAUSED):
            raise HypervisorError(
                "teleport", f"{_DIED}: nothing was moved", "the guest runs on here, the teleport can be tried again"
            )
        if now.state is VmState.IN_DOUBT:
            raise InDoubtError("teleport", detail or _DIED, f"the paused copy is kept; teleport resolve {quoted}")
        return None  # a state at rest is the last agent's, or not yet set by the new one
    match now.state:
        case VmState.TELEPORTED:
            return Outcome(
                kind=OutcomeKind.MOVED,
                message=f"{detail or f'to {target}'}; {_DIED}, another one finished it, and nothing was measured",
                target=target,
            )
        case VmState.POWEROFF | VmState.SAVED:
            raise HypervisorError("teleport", f"{_DIED}: nothing was moved, and VM {name!r} is {now.state.value} now")
        case VmState.ABORTED if "when its runner died" not in detail:
            raise GuestLostError(
                "teleport", f"{_DIED}, and the guest is gone ({detail})", f"teleport startvm {quoted} starts it anew"
            )
    raise InDoubtError(
        "teleport",
        "the runner and its QEMU died while it teleported",
        f"teleport startvm {quoted} starts it where the owner record says that it is not the target's by now",
    )
