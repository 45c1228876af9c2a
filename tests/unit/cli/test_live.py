"""What a VM is, by what its runner left and by who lives: locks and processes of this test play guardians and QEMUs."""

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from teleport.cli.life import Life, life, lock_is_free
from teleport.cli.live import live_state, require_at_rest
from teleport.errors import StateError
from teleport.host.process import boot_id, start_ticks
from teleport.machines.store import VmPaths
from teleport.model import VmState


@pytest.fixture
def paths(tmp_path: Path) -> VmPaths:
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    folder = tmp_path / "S"
    folder.mkdir()
    (folder / "run").symlink_to(runtime)
    return VmPaths(folder)


@pytest.fixture
def guardian(paths: VmPaths) -> Iterator[None]:
    """Somebody holds the VM's lock."""
    with (paths.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def wrote(paths: VmPaths, state: str) -> None:
    (paths.folder / "state.json").write_text(json.dumps({"state": state, "detail": "", "since": "then"}))


def has_qemu(paths: VmPaths, *, ticks: int = 0, boot: str = "") -> None:
    """This very process, as a QEMU."""
    process = {"pid": os.getpid(), "start_ticks": ticks or start_ticks(os.getpid()), "label": "main"}
    content = {"qemus": [{"process": process, "fds": {}}], "boot_id": boot or boot_id()}
    (paths.run / "qemu.json").write_text(json.dumps(content))


def test_a_vm_that_never_ran_is_off(paths: VmPaths) -> None:
    assert live_state(paths).state is VmState.POWEROFF
    assert lock_is_free(paths)


@pytest.mark.parametrize("content", ["", '{"state": "runn', "[]", '{"state": "flying"}'])
def test_a_state_that_a_power_cut_tore_was_cut_off(paths: VmPaths, content: str) -> None:
    (paths.folder / "state.json").write_text(content)
    now = live_state(paths)
    assert now.state is VmState.ABORTED
    assert not now.runs
    assert "cut off" in str(now.details["detail"])


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("poweroff", VmState.POWEROFF),
        ("aborted", VmState.ABORTED),
        ("teleported", VmState.TELEPORTED),
        ("running", VmState.ABORTED),
        ("starting", VmState.ABORTED),
        ("teleportingin", VmState.ABORTED),
        ("indoubt", VmState.ABORTED),
        ("saved", VmState.POWEROFF),  # and no saved state: it was discarded
    ],
)
def test_where_nothing_lives_a_state_that_needs_a_runner_was_cut_off(paths: VmPaths, written: str, shown: VmState) -> None:
    wrote(paths, written)
    now = live_state(paths)
    assert (now.state, now.life, now.runs, now.at_rest) == (shown, Life.NOTHING, False, True)


def test_a_saved_state_is_the_truth_whatever_was_written(paths: VmPaths) -> None:
    wrote(paths, "running")
    paths.saved.mkdir()
    assert live_state(paths).state is VmState.SAVED
    with pytest.raises(StateError, match="discardstate"):
        require_at_rest(paths, "S", "modifyvm")


@pytest.mark.usefixtures("guardian")
def test_with_a_guardian_what_is_written_is_believed(paths: VmPaths) -> None:
    wrote(paths, "running")
    now = live_state(paths)
    assert (now.state, now.life, now.at_rest) == (VmState.RUNNING, Life.RUNNER, False)
    with pytest.raises(StateError, match="is running"):
        require_at_rest(paths, "S", "modifyvm")


def test_a_qemu_without_its_guardian_lives_on(paths: VmPaths) -> None:
    wrote(paths, "paused")
    has_qemu(paths)
    now = live_state(paths)
    assert (now.state, now.life, now.runs) == (VmState.PAUSED, Life.ORPHAN, True)
    assert "its runner is gone" in str(now.details["detail"])


def test_another_process_or_another_boot_is_no_qemu_of_this_vm(paths: VmPaths) -> None:
    wrote(paths, "running")
    has_qemu(paths, ticks=1)
    assert life(paths) is Life.NOTHING
    has_qemu(paths, boot="another")
    assert life(paths) is Life.NOTHING
    assert live_state(paths).state is VmState.ABORTED


def test_two_who_look_at_once_do_not_take_each_other_for_a_guardian(paths: VmPaths) -> None:
    with (paths.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        assert lock_is_free(paths)
