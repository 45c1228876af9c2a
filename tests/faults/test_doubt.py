"""Storage that fails at the handover, and teleports that end in doubt: a paused copy is kept, and a person decides."""

import time

import pytest

from tests.harness.host import Host
from tests.harness.link import Link
from tests.harness.scene import Scene, kill_hard, until

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(300)]


@pytest.mark.parametrize("plan", ["shared", "raw"])
def test_a_record_that_the_target_cannot_write_gives_the_guest_back(scene: Scene, plan: str) -> None:
    began = time.monotonic()
    port = scene.wait_there()
    scene.arm(scene.there, "record.link=raise:the storage is full")
    with scene.begin(port, "--plan", plan) as teleport:
        assert teleport.end(90) == 1, teleport.error
        assert "the owner record" in teleport.error
    scene.runs_only_here(since_seconds=began)
    until(lambda: scene.there.state == "teleportingin", "the target does not wait on")
    assert not scene.there.home.qemus()
    scene.arm(scene.there, "")
    scene.here.teleport(port, "--plan", plan)
    scene.swap()
    scene.runs_only_here(since_seconds=began)


def test_a_record_that_fails_once_is_tried_again(scene: Scene) -> None:
    began = time.monotonic()
    port = scene.wait_there()
    scene.arm(scene.there, "record.link@1=raise:a hiccup")
    outcome = scene.here.teleport(port)
    assert outcome["kind"] == "moved"
    scene.swap()
    scene.runs_only_here(since_seconds=began)


def in_doubt(scene: Scene, host: Host) -> None:
    """The VM says that it is in doubt, with a paused copy."""
    assert host.state == "indoubt"
    assert len(host.home.qemus()) == 1
    said = scene.here.run("resolve", host.name).out
    assert "owner record: generation" in said
    assert "prepared" in said, "the journal is not shown"


def test_in_doubt_and_resolved_here(scene: Scene) -> None:
    """The target claimed the guest, and its runner is gone before it ran it: nobody can say what became of it."""
    began = time.monotonic()
    source, target = scene.here, scene.there
    port = scene.wait_there()
    with scene.hold(target, "target.journal-intent") as held, scene.begin(port, "--plan", "raw") as teleport:
        held.reached()
        for pid in (*scene.guardians(target), *scene.agents(target)):  # in this order: nobody starts another agent
            kill_hard(pid)
        held.release()
        assert teleport.end(120) == 3, teleport.error
        assert f"teleport resolve '{source.name}'" in teleport.error or f"teleport resolve {source.name}" in teleport.error
    in_doubt(scene, source)
    refused = source.run("resolve", source.name, "--run-here", "--confirm", source.name, check=False)
    assert refused.code == 1, "the target's QEMU lives, and holds the disk"
    assert "still holds the disks" in refused.err
    (qemu,) = target.home.qemus()
    kill_hard(qemu)
    until(lambda: not target.home.qemus(), "the target's QEMU cannot be killed")
    unconfirmed = source.run("resolve", source.name, "--run-here", check=False)
    assert unconfirmed.code == 3
    assert "it will run twice" in unconfirmed.err
    assert source.state == "indoubt"
    source.run("resolve", source.name, "--run-here", "--confirm", source.name)
    scene.runs_only_here(since_seconds=began)
    # The target comes back late: the record has gone on without it.
    target.run("modifyvm", target.name, "--teleporter", "off")
    scene.forget_teleporter(target)
    late = target.run("startvm", target.name, check=False)
    assert late.code == 1
    assert f"belongs to VM '{source.name}'" in late.err
    scene.move()
    scene.runs_only_here(since_seconds=began)


def test_in_doubt_and_resolved_as_moved(scene: Scene) -> None:
    """The guest runs at the target, which can neither say so nor note it."""
    began = time.monotonic()
    source, target = scene.here, scene.there
    with Link(scene.wait_there()) as link, scene.hold(target, "target.tell") as held, scene.begin(link.port) as teleport:
        held.reached()
        link.cut()
        scene.arm(target, "record.note=raise:the storage is gone")
        held.go()
        assert teleport.end(120) == 3, teleport.error
        in_doubt(scene, source)
        refused = source.run("resolve", source.name, "--run-here", "--confirm", source.name, check=False)
        assert refused.code == 1
        assert "still holds the disks" in refused.err
        source.run("resolve", source.name, "--moved")
        assert source.state == "teleported"
        assert not source.home.processes()
    scene.swap()
    scene.runs_only_here(since_seconds=began)
