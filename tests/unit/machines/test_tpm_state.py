"""Where a TPM's content is: one folder is the VM's own, whatever arrives, fails or goes away."""

import shutil
from pathlib import Path

import pytest

from teleport.errors import StateError, UsageError
from teleport.machines import tpm_state
from teleport.machines.definition import Definition, Machine
from teleport.machines.snapshots import Snapshots
from teleport.machines.store import Store, StoredVm
from tests.unit.machines.cases import UUID


def _folders(vm: Path) -> set[str]:
    return {each.name for each in (vm / "tpm").iterdir() if each.is_dir() and not each.is_symlink()}


def _filled(state: Path, text: str) -> Path:
    (state / "tpm2-00.permall").write_text(text)
    return state


def _content(vm: Path) -> str:
    return (tpm_state.own(vm) / "tpm2-00.permall").read_text()


def test_a_vm_keeps_its_own(tmp_path: Path) -> None:
    _filled(tpm_state.own(tmp_path), "mine")
    assert _content(tmp_path) == "mine"
    assert (tmp_path / "tpm").stat().st_mode & 0o077 == 0


def test_what_arrives_becomes_its_own_when_it_runs(tmp_path: Path) -> None:
    _filled(tpm_state.own(tmp_path), "mine")
    arrived = _filled(tpm_state.arriving(tmp_path, "arrival-1"), "theirs")
    assert _content(tmp_path) == "mine"
    arrived = _filled(tpm_state.arriving(tmp_path, "arrival-2"), "theirs")
    tpm_state.adopt(arrived)
    tpm_state.adopt(arrived)  # a successor does it again
    assert _content(tmp_path) == "theirs"
    assert _folders(tmp_path) == {"arrival-2"}


@pytest.mark.parametrize("adopted", [False, True])
def test_what_never_ran_leaves_the_vms_own_as_it_was(tmp_path: Path, adopted: bool) -> None:
    _filled(tpm_state.own(tmp_path), "mine")
    arrived = _filled(tpm_state.arriving(tmp_path, "arrival-1"), "theirs")
    if adopted:
        tpm_state.adopt(arrived)
    tpm_state.drop(arrived)
    assert not arrived.exists()
    assert _content(tmp_path) == "mine"


def test_what_went_away_is_not_used_again(tmp_path: Path) -> None:
    tpm_state.require_here(tmp_path, name="S")
    _filled(tpm_state.own(tmp_path), "mine")
    for _ in range(2):
        tpm_state.gone(tmp_path, "to VM 'T' on there")
    assert _folders(tmp_path) == set()
    with pytest.raises(StateError, match=r"'S' went with its guest to VM 'T' on there.*startvm S --new-tpm"):
        tpm_state.require_here(tmp_path, name="S")


def test_it_comes_back(tmp_path: Path) -> None:
    tpm_state.gone(tmp_path, "to VM 'T'")
    never_ran = tpm_state.arriving(tmp_path, "arrival-1")
    tpm_state.adopt(never_ran)
    tpm_state.drop(never_ran)
    with pytest.raises(StateError):
        tpm_state.require_here(tmp_path, name="S")
    tpm_state.adopt(_filled(tpm_state.arriving(tmp_path, "arrival-2"), "back"))
    tpm_state.require_here(tmp_path, name="S")
    assert _content(tmp_path) == "back"


def test_a_new_one_replaces_only_one_that_has_left(tmp_path: Path) -> None:
    for _ in ("without any", "with its own"):
        with pytest.raises(UsageError, match="has not left it"):
            tpm_state.renew(tmp_path, name="S")
        _filled(tpm_state.own(tmp_path), "mine")
    assert _content(tmp_path) == "mine"
    tpm_state.gone(tmp_path, "to VM 'T'")
    with pytest.raises(StateError, match="teleport startvm 'S 1' --new-tpm"):
        tpm_state.require_here(tmp_path, name="S 1")
    tpm_state.renew(tmp_path, name="S")
    tpm_state.require_here(tmp_path, name="S")
    assert not list(tpm_state.own(tmp_path).iterdir())


def test_a_snapshot_has_it_and_gives_it_back(tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    definition = Definition(name="S", uuid=UUID, machine=Machine(tpm="2.0"))
    vm = StoredVm(definition, store.create(definition, register=True))
    folder = vm.paths.folder
    Snapshots(store, vm).take("before")
    _filled(tpm_state.own(folder), "then")
    Snapshots(store, vm).take("then")
    _filled(tpm_state.own(folder), "now")
    Snapshots(store, vm).restore("then")
    assert _content(folder) == "then"
    Snapshots(store, vm).restore("before")
    assert not any(each.exists() for each in tpm_state.snapshot_files(folder))
    shutil.rmtree(folder / tpm_state.FOLDER)
    Snapshots(store, vm).restore("then")
    assert _content(folder) == "then"
    Snapshots(store, vm).delete("then")
    assert not list(folder.glob("*permall*"))
