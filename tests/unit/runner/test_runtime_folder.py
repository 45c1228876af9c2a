import os
from pathlib import Path

import pytest

from teleport.errors import StateError
from teleport.runner.runtime_folder import open_runtime_folder, remove_runtime_folder


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "xdg").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "xdg"))
    monkeypatch.setattr("teleport.runner.runtime_folder._LONGEST_BASE", 300)  # pytest's folders are long
    (tmp_path / "machine").mkdir()
    return tmp_path / "machine"


def test_private_found_again_and_removed(machine: Path) -> None:
    folder = open_runtime_folder(machine)
    assert folder.parent == machine.parent / "xdg" / "teleport"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (machine / "run").readlink() == folder
    assert open_runtime_folder(machine) == folder
    remove_runtime_folder(machine, folder)
    assert not folder.exists()
    assert not (machine / "run").is_symlink()


def test_a_link_is_followed_although_the_environment_changed(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = open_runtime_folder(machine)
    (machine.parent / "other").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(machine.parent / "other"))
    assert open_runtime_folder(machine) == folder
    folder.rmdir()  # gone with the session of a user who logged out
    assert open_runtime_folder(machine).is_relative_to(machine.parent / "other")


@pytest.mark.parametrize("spoilt", ["link", "open", "file"])
def test_what_others_prepared_is_refused(machine: Path, spoilt: str) -> None:
    folder = open_runtime_folder(machine)
    remove_runtime_folder(machine, folder)
    match spoilt:
        case "link":
            (machine.parent / "elsewhere").mkdir(mode=0o700)
            folder.symlink_to(machine.parent / "elsewhere")
        case "open":
            folder.mkdir()
            folder.chmod(0o755)
        case _:
            folder.touch()
    with pytest.raises(StateError, match="only you can enter"):
        open_runtime_folder(machine)


def test_without_a_usable_runtime_dir_the_folder_is_below_tmp(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine.parent / "xdg").chmod(0o755)
    folder = open_runtime_folder(machine)
    try:
        assert folder.parent == Path(f"/tmp/teleport-{os.geteuid()}")
        assert len(str(folder)) < 64
    finally:
        remove_runtime_folder(machine, folder)
