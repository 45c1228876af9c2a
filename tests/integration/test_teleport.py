"""A guest moves: over both data paths, to every name of this host, in one home and between two, again and again."""

import asyncio
import time
from itertools import cycle
from pathlib import Path

import pytest

from teleport.host.owner_record import FolderOwnerRecord
from teleport.model import RecordView
from tests.harness.home import CommandFailedError
from tests.harness.proof import proven_move
from tests.harness.scene import Scene

pytestmark = pytest.mark.qemu

PLANS = ("shared", "raw")


def commands(scene: Scene) -> str:
    """The command line of the only QEMU."""
    return Path(f"/proc/{scene.only_process_here()}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def record_of(scene: Scene) -> RecordView:
    """The guest's owner record as it is now."""
    return asyncio.run(FolderOwnerRecord(Path(f"{scene.disk}.teleport")).read())


@pytest.mark.parametrize(
    ("plan", "address"),
    [("shared", "localhost"), ("raw", "127.0.0.1"), ("shared", "::1"), ("raw", "::1"), ("auto", "localhost")],
)
def test_a_guest_moves_with_its_memory_disk_and_network(scene: Scene, plan: str, address: str) -> None:
    before = scene.console.check("before")
    assert before.ok
    move = proven_move(scene.here, scene.there, scene.console, before, options=("--plan", plan, "--verify-ram"), host=address)
    scene.swap()
    assert move.outcome["kind"] == "moved"
    assert move.outcome["plan"] == ("shared" if plan == "auto" else plan)
    assert len(move.outcome["ram_verified"]) == 64, "--verify-ram: the digest that both sides found"
    assert move.outcome["target_vm"] == scene.here.name
    memory_bytes = 160 << 20
    if move.outcome["plan"] == "shared":
        assert move.outcome["sent_bytes"] < 4 << 20, "the guest's memory travelled although both sides share it"
    else:
        assert move.outcome["sent_bytes"] > memory_bytes // 4


def test_twelve_times_there_and_back(scene: Scene) -> None:
    began = time.monotonic()
    check = scene.console.check("before")
    for plan, _ in zip(cycle(PLANS), range(12), strict=False):
        scene.move("--plan", plan)
        scene.runs_only_here(since_seconds=began)
        scene.nobody_hurries()
    after = scene.console.check("after")
    assert after.ok
    assert after.digest == check.digest
    whole = scene.console.continuity(began)
    assert whole.is_whole, str(whole)


@pytest.mark.parametrize("plan", PLANS)
def test_a_paused_guest_arrives_paused_and_goes_on_when_told(scene: Scene, plan: str) -> None:
    began = time.monotonic()
    scene.here.run("controlvm", scene.here.name, "pause")
    silent = scene.console.settled_tick()
    outcome = scene.move("--plan", plan, "--verify-ram")
    assert len(outcome["ram_verified"]) == 64
    assert scene.here.state == "paused"
    assert scene.there.state == "teleported"
    scene.only_process_here()
    assert scene.console.last_tick == silent, "it ticked although it was paused"
    scene.here.run("controlvm", scene.here.name, "resume")
    scene.runs_only_here(since_seconds=began)
    assert scene.console.check("after").ok
    assert scene.console.disk() > 0, "its disk can be written after it arrived paused"


def test_the_target_owns_the_guest_and_is_to_the_guest_what_the_source_was(scene: Scene) -> None:
    before = record_of(scene)
    source, target = (each.home.info(each.name) for each in (scene.here, scene.there))
    assert source["UUID"] != target["UUID"]
    seen_before = commands(scene)
    identity = [word for word in seen_before.split() if "mac=" in word or seen_before.split("-uuid ")[1].startswith(word)]
    scene.move()
    after = record_of(scene)
    assert after.generation == before.generation + 1
    assert (after.owner.vm_name, after.owner.vm_uuid) == (scene.here.name, target["UUID"])
    assert after.owner.home == str(scene.here.home.folder)
    assert after.started
    seen_after = commands(scene)
    for word in identity:
        # the device's other properties may name what is this host's own
        mac = next((part for part in word.split(",") if part.startswith("mac=")), word)
        assert mac in seen_after, f"the guest sees another {word}"
    # Whoever started it first gives it its identity for as long as it runs: also on the way back.
    scene.move()
    assert all(word in commands(scene) for word in identity if "mac=" not in word)
    assert record_of(scene).owner.vm_name == scene.here.name


def test_a_guest_that_moved_cannot_be_started_here_but_one_that_was_shut_down_can(scene: Scene) -> None:
    scene.move()
    left, has = scene.there, scene.here
    left.run("modifyvm", left.name, "--teleporter", "off")
    scene.forget_teleporter(left)
    refused = left.run("startvm", left.name, check=False)
    assert refused.code == 1
    assert f"the guest on this disk belongs to VM '{has.name}'" in refused.err
    assert "Traceback" not in refused.err
    assert left.state in ("teleported", "poweroff")
    scene.runs_only_here(since_seconds=time.monotonic())
    has.run("controlvm", has.name, "poweroff")
    assert has.state == "poweroff"
    left.run("startvm", left.name)
    scene.swap()
    scene.console.wait_for_tick(60, endpoint=left.name, count=20)
    assert left.state == "running"
    assert not has.home.qemus()


def test_when_the_command_returns_the_old_runner_is_gone(scene: Scene) -> None:
    port = scene.wait_there()
    scene.here.teleport(port)
    scene.swap()
    old = scene.there
    assert not old.home.processes(), "the old runner is still there"
    assert not old.home.ports()
    assert not list(old.home.runtime.glob("teleport/*")), "its runtime folder is still there"
    old.run("modifyvm", old.name, "--description", "its locks are free")
    scene.runs_only_here(since_seconds=0)


def test_a_dry_run_checks_all_and_leaves_nothing(scene: Scene) -> None:
    began = time.monotonic()
    before, files = record_of(scene), sorted(scene.folder.rglob("*"))
    port = scene.wait_there()
    said = scene.here.run("controlvm", scene.here.name, "teleport", "--host", "localhost", "--port", port, "--dry-run")
    assert "Nothing was moved" in said.out
    assert record_of(scene) == before
    assert sorted(scene.folder.rglob("*")) == files, "the storage proofs are still there"
    assert not scene.there.home.qemus()
    assert scene.there.state == "teleportingin"
    scene.runs_only_here(since_seconds=began)
    scene.here.teleport(port)
    scene.swap()
    scene.runs_only_here(since_seconds=began)


def test_nothing_waits_any_more_at_a_port_whose_guest_has_arrived(scene: Scene) -> None:
    port = scene.wait_there()
    scene.here.teleport(port)
    scene.swap()
    with pytest.raises(CommandFailedError) as refused:
        scene.here.teleport(port, "--timeout", "3")
    assert "Traceback" not in str(refused.value)
    scene.runs_only_here(since_seconds=0)
