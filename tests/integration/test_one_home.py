"""Source and target are two VMs of one state folder."""

import time

import pytest

from tests.harness.scene import Scene

pytestmark = pytest.mark.qemu

PLANS = ("shared", "raw")


def test_the_target_is_another_vm_of_the_same_home() -> None:
    with Scene(one_home=True) as scene:
        began = time.monotonic()
        for plan in PLANS:
            outcome = scene.move("--plan", plan, "--verify-ram")
            assert outcome["plan"] == plan
            assert scene.here.home.qemus() == [outcome["target_qemu_pid"]]
            scene.runs_only_here(since_seconds=began)
            assert scene.there.state == "teleported"
        assert scene.console.check("after").ok
