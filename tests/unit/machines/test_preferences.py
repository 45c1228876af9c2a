from dataclasses import replace
from pathlib import Path

import pytest

from teleport.errors import StorageError, UsageError
from teleport.machines import preferences
from teleport.machines.preferences import Preferences, change, read, set_global_extradata, with_defaults
from teleport.machines.vrde import AuthType, VrdeSettings

EXTERNAL = VrdeSettings(auth_type=AuthType.EXTERNAL)


def test_what_is_changed_is_read_again(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert read(home) == Preferences()
    change(home, lambda old: old.model_copy(update={"vrde_auth_library": "/a b/ünd.py"}))
    changed = change(home, lambda old: set_global_extradata(old, 'a/"b"', "c\nd ☃"))
    assert read(home) == changed == Preferences(vrde_auth_library="/a b/ünd.py", extradata={'a/"b"': "c\nd ☃"})
    assert not change(home, lambda old: set_global_extradata(old, 'a/"b"', "")).extradata
    assert (home / preferences.FILE).stat().st_mode & 0o777 == 0o600


def test_a_change_that_fails_leaves_the_file(tmp_path: Path) -> None:
    change(tmp_path, lambda old: set_global_extradata(old, "a", "b"))
    before = (tmp_path / preferences.FILE).read_bytes()
    for key in ("VBoxAuthSimple/users/john", "VRDP/Feature/Client/DisableInput", "", "a\nb"):
        with pytest.raises(UsageError):
            change(tmp_path, lambda old, key=key: set_global_extradata(old, key, "1"))
    assert (tmp_path / preferences.FILE).read_bytes() == before


@pytest.mark.parametrize("content", [b"\xff", b"[", b"colour = 1", b"format = 2", b'vrde_auth_library = ""', b"extradata = 1"])
def test_a_broken_file_is_named_and_not_written_over(content: bytes, tmp_path: Path) -> None:
    (tmp_path / preferences.FILE).write_bytes(content)
    with pytest.raises(StorageError, match=r"preferences\.toml"):
        change(tmp_path, lambda old: old)
    with pytest.raises(StorageError):
        with_defaults(EXTERNAL, tmp_path)
    assert (tmp_path / preferences.FILE).read_bytes() == content
    assert with_defaults(VrdeSettings(), tmp_path) == VrdeSettings()  # which needs no library


def test_a_vms_own_library_goes_before_the_homes(tmp_path: Path) -> None:
    assert with_defaults(EXTERNAL, tmp_path).auth_library == "VBoxAuth"
    change(tmp_path, lambda old: old.model_copy(update={"vrde_auth_library": "VBoxAuthSimple"}))
    assert with_defaults(EXTERNAL, tmp_path).auth_library == "VBoxAuthSimple"
    assert with_defaults(replace(EXTERNAL, auth_library="VBoxAuth"), tmp_path).auth_library == "VBoxAuth"
