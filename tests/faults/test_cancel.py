"""A person changes their mind, at every stage: the guest runs on where it ran, the target waits on."""

import time

import pytest

from tests.harness.scene import Scene, Teleporting, until

pytestmark = pytest.mark.qemu


def interrupt(scene: Scene, teleport: Teleporting) -> None:
    """Ctrl-C at the command."""
    del scene
    teleport.interrupt()


def ask(scene: Scene, teleport: Teleporting) -> None:
    """`controlvm NAME teleport-cancel`, from elsewhere."""
    del teleport
    said = scene.here.run("controlvm", scene.here.name, "teleport-cancel").out
    assert "the guest runs on here" in said


CANCELS = {"Ctrl-C": interrupt, "teleport-cancel": ask}


def check_cancelled(scene: Scene, teleport: Teleporting, began: float) -> None:
    """It ended, the guest never stopped for good, and the same target takes it in all the same."""
    assert teleport.end(60) == 1, teleport.error
    assert "cancelled" in teleport.error
    assert "the guest runs on here" in teleport.error
    assert "Traceback" not in teleport.error
    assert [event["kind"] for event in teleport.events if event["event"] == "error"] == ["cancelled"]
    scene.runs_only_here(since_seconds=began)
    until(lambda: scene.there.state == "teleportingin", "the target does not wait on")
    until(lambda: not scene.there.home.qemus(), "the target's QEMU lives on")


@pytest.mark.parametrize(
    ("how", "plan", "point"),
    [
        ("Ctrl-C", "raw", "record.probe"),  # checking
        ("teleport-cancel", "shared", "record.probe"),
        ("Ctrl-C", "shared", "source.migrate"),
        ("teleport-cancel", "raw", "source.migrate-continue"),  # switching over
        ("Ctrl-C", "shared", "source.check-target"),
    ],
)
def test_cancelled_at_a_step(scene: Scene, how: str, plan: str, point: str) -> None:
    began = time.monotonic()
    port = scene.wait_there()
    with scene.hold(scene.here, point) as held, scene.begin(port, "--plan", plan) as teleport:
        held.reached()
        CANCELS[how](scene, teleport)
        if how == "Ctrl-C":
            teleport.wait_for(lambda event: "cancelling" in event.get("text", ""))
        held.release()
        check_cancelled(scene, teleport, began)
    scene.here.teleport(port, "--plan", plan)
    scene.swap()
    scene.runs_only_here(since_seconds=began)


@pytest.mark.parametrize("how", CANCELS)
def test_cancelled_while_memory_is_copied(scene: Scene, how: str) -> None:
    began = time.monotonic()
    port = scene.wait_there()
    with scene.begin(port, "--plan", "raw", "--max-bandwidth", "8000000") as teleport:
        teleport.copying()
        CANCELS[how](scene, teleport)
        check_cancelled(scene, teleport, began)
    continuity = scene.console.continuity(began)
    assert continuity.endpoints == (scene.here.name,)
    scene.here.teleport(port, "--plan", "raw")
    scene.swap()
    scene.runs_only_here(since_seconds=began)


def test_too_late(scene: Scene) -> None:
    """From COMMIT on the target decides: a cancel says so, and the teleport goes on."""
    began = time.monotonic()
    port = scene.wait_there()
    with scene.hold(scene.there, "target.claim") as held, scene.begin(port) as teleport:
        held.reached()
        assert "too late" in scene.here.run("controlvm", scene.here.name, "teleport-cancel").out
        teleport.interrupt()
        teleport.wait_for(lambda event: "too late" in event.get("text", ""))
        held.release()
        assert teleport.end(60) == 0, teleport.error
        assert teleport.outcome["kind"] == "moved"
    scene.swap()
    scene.runs_only_here(since_seconds=began)
