"""Teleports that must not happen: every difference is told with what mends it, nothing changes, and the next good one works."""

import re
import shlex
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness.home import Home, Ran
from tests.harness.host import Host
from tests.harness.scene import Scene

pytestmark = pytest.mark.qemu


@dataclass(frozen=True)
class Difference:
    """What is wrong at the target; what the refusal must name; the command that puts it right again."""

    wrong: Callable[[Scene], None]
    named: tuple[str, ...]
    right: Callable[[Scene], None]


def option(*words: str | int) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        scene.there.run("modifyvm", scene.there.name, *words)

    return change


def attach(medium: Callable[[Scene], Path]) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        place = ("--storagectl", "Disks", "--port", 0, "--device", 0, "--type", "hdd")
        scene.there.run("storageattach", scene.there.name, *place, "--medium", medium(scene))

    return change


def another_disk(scene: Scene) -> Path:
    """Of the same size and format, with other content; on no account the same storage."""
    path = scene.folder / "other.qcow2"
    if not path.exists():
        scene.there.run("createhd", "--filename", path, "--size", 64)
    return path


def gone(scene: Scene) -> None:
    """The disk's file is there when it is attached, and missing when the teleport comes."""
    attach(another_disk)(scene)
    another_disk(scene).unlink()


def nothing_attached(scene: Scene) -> None:
    place = ("--storagectl", "Disks", "--port", 0, "--device", 0, "--type", "hdd")
    scene.there.run("storageattach", scene.there.name, *place, "--medium", "none")


the_disk = attach(lambda scene: scene.disk)
DIFFERENCES = {
    "memory": Difference(option("--memory", 192), ("memory", "160", "192", "modifyvm"), option("--memory", 160)),
    "CPUs": Difference(option("--cpus", 2), ("cpu", "1", "2", "--cpus"), option("--cpus", 1)),
    "another NIC": Difference(option("--nic2", "nat"), ("nic", "nat", "none", "--nic2"), option("--nic2", "none")),
    "another model of NIC": Difference(
        option("--nictype1", "82540EM"), ("nic", "virtio", "82540EM", "--nictype1"), option("--nictype1", "virtio")
    ),
    "another disk of the same size": Difference(attach(another_disk), ("other.qcow2", "disk.qcow2", "storage"), the_disk),
    "a disk that is missing": Difference(gone, ("other.qcow2",), the_disk),
    "no disk at all": Difference(nothing_attached, ("disk.qcow2",), the_disk),
}


def refused(host: Host, port: int, *options: str) -> Ran:
    """A teleport that is refused: exit code 1, an error in one piece on stderr."""
    ran = host.run("controlvm", host.name, "teleport", "--host", "localhost", "--port", port, *options, check=False)
    assert ran.code == 1, ran.out + ran.err
    assert re.match(r"(?s)teleport: error: .+: .+", ran.err), ran.err
    assert "Traceback" not in ran.out + ran.err
    return ran


@pytest.mark.parametrize("kind", DIFFERENCES)
def test_a_difference_is_named_and_nothing_changes(scene: Scene, kind: str) -> None:
    began = time.monotonic()
    difference = DIFFERENCES[kind]
    difference.wrong(scene)
    try:
        port = scene.wait_there()
        ran = refused(scene.here, port)
        table = (ran.out + ran.err).lower()
        missing = [word for word in difference.named if word.lower() not in table]
        assert not missing, f"the refusal does not say {missing}: {ran.out}{ran.err}"
        scene.runs_only_here(since_seconds=began)
        assert scene.there.state == "teleportingin", "it does not wait any more"
        assert not scene.there.home.qemus(), "a QEMU was left at the target"
        assert not [path for path in scene.folder.rglob("*") if "proof" in path.name], "proofs of shared storage were left"
    finally:
        scene.there.run("controlvm", scene.there.name, "poweroff", check=False)
        difference.right(scene)


def test_all_differences_come_at_once_and_the_mending_commands_mend_them(scene: Scene) -> None:
    name = scene.there.name
    scene.there.run("modifyvm", name, "--memory", 192, "--cpus", 2, "--nic2", "nat", "--vram", 32)
    attach(another_disk)(scene)
    ran = refused(scene.here, scene.wait_there())
    scene.there.run("controlvm", name, "poweroff")
    mends = [
        line.strip()
        for line in ran.out.splitlines()
        if line.strip().startswith(("teleport modifyvm", "teleport storageattach"))
    ]
    assert len(mends) >= 5, ran.out
    for mend in mends:
        scene.there.run(*shlex.split(mend)[1:])
    scene.move()
    scene.runs_only_here(since_seconds=0)


def test_refusals_do_not_end_the_wait(scene: Scene, blank: Callable[..., Host]) -> None:
    other = blank("U", scene.here.home)
    other.start()
    port = scene.wait_there()
    for _ in range(2):
        refused(other, port)
        assert scene.there.state == "teleportingin"
        assert other.state == "running"
    scene.here.teleport(port)
    scene.swap()
    scene.runs_only_here(since_seconds=0)
    other.run("controlvm", other.name, "poweroff")


def test_a_snapshot_inside_the_image_is_refused_by_name(
    make_home: Callable[[str], Home], shared_folder: Path, blank: Callable[..., Host]
) -> None:
    disk = shared_folder / "disk.qcow2"
    source, target = blank("U", make_home("a"), disk), blank("V", make_home("b"), disk)
    subprocess.run(["qemu-img", "snapshot", "-c", "before-the-party", disk], check=True, timeout=30)
    source.start()
    port = target.wait_for_teleport()
    ran = refused(source, port)
    assert "before-the-party" in ran.out + ran.err
    assert (source.state, target.state) == ("running", "teleportingin")
    source.run("controlvm", source.name, "poweroff")
    subprocess.run(["qemu-img", "snapshot", "-d", "before-the-party", disk], check=True, timeout=30)
    source.start()
    source.teleport(port)
    assert (source.state, target.state) == ("teleported", "running")


def test_one_teleport_at_a_time(scene: Scene, blank: Callable[..., Host]) -> None:
    began = time.monotonic()
    other = blank("W", scene.here.home, memory_mb=160)
    other.start()
    port = scene.wait_there()
    with scene.hold(scene.here, "source.migrate") as held, scene.begin(port, "--plan", "raw") as teleport:
        held.reached()
        again = refused(scene.here, port)
        assert "already teleporting" in again.err
        assert "teleport-cancel" in again.err
        second = refused(other, port)
        assert f"is taking in '{scene.here.name}'" in second.err
        for words in (("pause",), ("poweroff",)):
            ran = scene.here.run("controlvm", scene.here.name, *words, check=False)
            assert ran.code == 1, words
            assert "a teleport is under way" in ran.err
        held.release()
        assert teleport.end() == 0, teleport.error
    scene.swap()
    scene.runs_only_here(since_seconds=began)
    other.run("controlvm", other.name, "poweroff")
