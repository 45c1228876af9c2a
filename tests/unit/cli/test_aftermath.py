"""What a command says of a teleport whose runner died: by the VM's state, and never more than it says."""

import pytest

from teleport.cli.aftermath import judged
from teleport.cli.life import Life
from teleport.cli.live import LiveState
from teleport.errors import GuestLostError, HypervisorError, InDoubtError, TeleportError
from teleport.model import Outcome, OutcomeKind, VmState


def judge(state: VmState, life: Life, detail: str = "") -> Outcome | None:
    return judged(LiveState(state, life, {"detail": detail}), name="S", target="h:6000")


def test_it_moved() -> None:
    outcome = judge(VmState.TELEPORTED, Life.NOTHING, "to T at h:6000")
    assert outcome is not None
    assert (outcome.kind, outcome.message[:14]) == (OutcomeKind.MOVED, "to T at h:6000")


@pytest.mark.parametrize("state", [VmState.TELEPORTING, VmState.STARTING, VmState.POWEROFF, VmState.TELEPORTED])
def test_nothing_is_settled_while_the_runner_goes_on(state: VmState) -> None:
    """A state at rest beside a runner that lives: it is just ending, or its agent has not said its own yet."""
    assert judge(state, Life.RUNNER) is None


@pytest.mark.parametrize(
    ("state", "life", "detail", "error", "says"),
    [
        (VmState.RUNNING, Life.RUNNER, "", HypervisorError, "the guest runs on here"),
        (VmState.PAUSED, Life.RUNNER, "", HypervisorError, "the guest runs on here"),
        (VmState.IN_DOUBT, Life.RUNNER, "the target is silent", InDoubtError, "teleport resolve S"),
        (VmState.POWEROFF, Life.NOTHING, "", HypervisorError, "poweroff now"),
        (VmState.ABORTED, Life.NOTHING, "QEMU died: killed", GuestLostError, "QEMU died: killed"),
        (VmState.ABORTED, Life.NOTHING, "it was teleporting when its runner died", InDoubtError, "the owner record"),
    ],
)
def test_it_did_not_or_nobody_knows(state: VmState, life: Life, detail: str, error: type[TeleportError], says: str) -> None:
    with pytest.raises(error) as raised:
        judge(state, life, detail)
    assert says in str(raised.value)
