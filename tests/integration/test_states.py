"""Saved states, and what is true of a VM whose runner, QEMU or host died: with real QEMUs and the test guest.

One guest goes through all of it, in the order of the tests: a boot takes far longer than a saved state.
"""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness.guest import Check, GuestConsole, Load
from tests.harness.home import Home
from tests.harness.host import Host

pytestmark = pytest.mark.qemu
LOAD = Load(resident_mb=8, rewrite_mb=4, dirty_mb_s=5, disk=True)


@dataclass(frozen=True)
class Scene:
    """A host with the VM S, whose guest runs, an outsider's ear on it, and how its memory was at the beginning."""

    host: Host
    console: GuestConsole
    before: Check

    @property
    def folder(self) -> Path:
        return Path(self.host.home.info("S")["CfgFile"]).parent

    def goes_on(self) -> None:
        """The guest runs, and did all the time: no word is missing, none was said twice."""
        assert self.host.state == "running"
        last = self.console.last_tick
        assert last is not None
        self.console.wait_for_tick(60, after_counter=last.counter, count=20)
        continuity = self.console.continuity(0)
        assert continuity.is_whole, continuity

    def is_whole(self) -> None:
        """... and its memory and disk are what they were."""
        self.goes_on()
        check = self.console.check()
        assert check.ok, check.bad
        assert check.digest == self.before.digest
        assert self.console.disk() > 0

    def pids(self) -> dict[str, int]:
        """The guardian, the agent and the QEMU of the one VM of this home."""
        found = {}
        for pid, command in self.host.home.processes().items():
            kind = "guardian" if "teleport.runner.guardian" in command else "agent" if "teleport.runner " in command else "qemu"
            found[kind] = pid
        return found


def a_host(home: Home, folder: Path, *, name: str = "S", options: tuple[str, ...] = ()) -> Host:
    host = Host(name, home)
    host.define(load=LOAD, memory_mb=128, disk=folder / "disk.qcow2", options=options)
    return host


def running_scene(home: Home, folder: Path, *, options: tuple[str, ...] = ()) -> Iterator[Scene]:
    host = a_host(home, folder, options=options)
    host.start()
    with GuestConsole(host.endpoint) as console:
        console.wait_ready(120)
        console.disk()
        yield Scene(host, console, console.check("before"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def scene(folder: Path) -> Iterator[Scene]:
    home = Home("s")
    try:
        yield from running_scene(home, folder)
    finally:
        home.end()


def wait_for(true: Callable[[], bool], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_a_saved_guest_goes_on_where_it_was(scene: Scene) -> None:
    host = scene.host
    host.run("controlvm", "S", "savestate")
    assert host.home.processes() == {}
    assert host.state == "saved"
    assert host.home.teleport("list", "runningvms").out == ""
    for refused in (("modifyvm", "S", "--memory", 256), ("storagectl", "S", "--name", "Disks", "--remove")):
        ran = host.run(*refused, check=False)
        assert ran.code == 1
        assert "saved state" in ran.err
        assert "discardstate" in ran.err
    host.run("modifyvm", "S", "--description", "what does not reach the guest may change")
    ran = host.run("controlvm", "S", "teleport", "--host", "localhost", "--port", "1", check=False)
    assert ran.code == 1
    assert "saved" in ran.err
    host.run("modifyvm", "S", "--teleporter", "on")
    ran = host.run("startvm", "S", check=False)
    assert ran.code == 1
    assert "modifyvm S --teleporter off goes on from it" in ran.err
    host.run("modifyvm", "S", "--teleporter", "off")
    host.start()
    scene.is_whole()
    assert not (scene.folder / "saved").exists()
    assert not (scene.folder / "saved.used").exists()


def test_private_memory_is_saved_too_and_a_paused_guest_stays_paused(
    make_home: Callable[[str], Home], shared_folder: Path
) -> None:
    for private in running_scene(make_home("p"), shared_folder, options=("--ram", "private")):
        host = private.host
        host.run("controlvm", "S", "savestate")
        host.start()
        private.is_whole()
        host.run("controlvm", "S", "pause")
        host.run("controlvm", "S", "savestate")
        host.start()
        assert host.state == "paused"
        host.run("controlvm", "S", "savestate")
        host.run("discardstate", "S")
        assert host.state == "poweroff"
        assert "has no saved state" in host.run("discardstate", "S", check=False).err
        (newest,) = sorted(Path(f"{shared_folder}/disk.qcow2.teleport").glob("*.owner"))[-1:]
        assert json.loads(newest.read_text())["owner"]["vm_uuid"] == ""  # whoever comes first may start the guest now


def test_a_state_that_cannot_be_written_is_not_made(scene: Scene) -> None:
    in_the_way = scene.folder / "saved.new"
    in_the_way.write_text("a file where a folder must be")
    ran = scene.host.run("controlvm", "S", "savestate", check=False)
    assert ran.code == 1, ran
    assert "saved.new" in ran.err
    in_the_way.unlink()
    scene.goes_on()


def test_a_state_that_cannot_be_loaded_is_kept(scene: Scene) -> None:
    host = scene.host
    host.run("controlvm", "S", "savestate")
    stream = scene.folder / "saved/stream"
    whole = stream.read_bytes()
    stream.write_bytes(whole[: len(whole) // 2])
    ran = host.run("startvm", "S", check=False)
    assert ran.code == 1
    assert "startvm from the saved state" in ran.err
    assert host.home.processes() == {}
    assert host.state == "saved"
    stream.write_bytes(whole)
    host.start()
    scene.goes_on()


def test_a_save_whose_agent_dies_leaves_the_guest(scene: Scene) -> None:
    folder, agent = scene.folder, scene.pids()["agent"]
    saving = scene.host.home.start("controlvm", "S", "savestate")
    wait_for(lambda: (folder / "saved.new").exists() or (folder / "saved").exists(), "nothing is saved")
    with contextlib.suppress(ProcessLookupError):
        os.kill(agent, signal.SIGKILL)
    saving.communicate(timeout=60)
    wait_for(lambda: scene.host.state in ("running", "saved") and len(scene.pids()) != 1, f"it is {scene.host.state}")
    if scene.host.state == "saved":  # the cut came too late
        wait_for(lambda: scene.host.home.processes() == {}, "its runner is still there")
        scene.host.start()
    scene.is_whole()


def test_a_runner_that_died_is_replaced_by_the_next_command(scene: Scene) -> None:
    host = scene.host
    before = scene.pids()
    # The guardian and the agent die at once: the guest lives on; a look says so and changes nothing.
    os.kill(before["guardian"], signal.SIGKILL)
    os.kill(before["agent"], signal.SIGKILL)
    wait_for(lambda: set(scene.pids()) == {"qemu"}, "the runner is still there")
    assert host.state == "running"
    assert '"S"' in host.home.teleport("list", "runningvms").out
    assert host.run("modifyvm", "S", "--memory", 256, check=False).code == 1
    assert set(scene.pids()) == {"qemu"}
    # A command that needs a runner brings one.
    host.run("controlvm", "S", "pause")
    assert host.state == "paused"
    assert scene.pids()["qemu"] == before["qemu"]
    host.run("controlvm", "S", "resume")
    scene.goes_on()
    # Only the guardian dies: its agent leaves by itself, and startvm takes the guest up, too, once.
    os.kill(scene.pids()["guardian"], signal.SIGKILL)
    wait_for(lambda: set(scene.pids()) == {"qemu"}, "the agent is still there")
    assert "has a new one" in host.run("startvm", "S").out
    assert set(scene.pids()) == {"qemu", "agent", "guardian"}
    scene.goes_on()


def test_a_saved_guest_is_still_this_vms_and_does_not_go_on_over_a_disk_that_did(
    scene: Scene, folder: Path, make_home: Callable[[str], Home]
) -> None:
    host = scene.host
    host.run("controlvm", "S", "savestate")
    other = a_host(make_home("b"), folder, name="T")
    ran = other.run("startvm", "T", check=False)
    assert ran.code == 1
    assert "belongs to VM 'S'" in ran.err
    other.run("startvm", "T", "--take-over")
    other.run("controlvm", "T", "poweroff")
    ran = host.run("startvm", "S", check=False)
    assert ran.code == 1
    assert "does not fit its disk any more" in ran.err
    assert host.state == "saved"
    host.run("discardstate", "S")


def test_the_death_of_qemu_and_of_the_whole_host_is_seen(scene: Scene) -> None:
    host = scene.host
    host.start()
    os.kill(scene.pids()["qemu"], signal.SIGKILL)
    wait_for(lambda: host.home.processes() == {}, "the runner outlives its QEMU")
    assert host.state == "aborted"
    assert host.home.teleport("list", "runningvms").out == ""
    # As after a power cut: what was written says running, and no process of it lives.
    host.start()
    for pid in scene.pids().values():
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: host.home.processes() == {}, "something survived")
    assert json.loads((scene.folder / "state.json").read_text())["state"] == "running"
    assert host.state == "aborted"
    assert host.home.teleport("list", "runningvms").out == ""
    host.start()
    assert host.state == "running"
    host.run("controlvm", "S", "poweroff")
    assert host.state == "poweroff"
