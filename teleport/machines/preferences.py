"""What holds for all VMs of one home: `setproperty` and `setextradata global`, kept in ``HOME/preferences.toml``.

The file is replaced whole and durably, as definitions are; a missing one is the defaults.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import tomlkit
from pydantic import Field, ValidationError

from teleport.errors import StorageError, UsageError
from teleport.machines.fields import Name, Part, Text
from teleport.machines.files import locked, make_folder, write_durably
from teleport.machines.text import describe
from teleport.machines.vrde import DEFAULT_AUTH_LIBRARY, AuthType, VrdeSettings, is_display_key

FILE = "preferences.toml"
_HEAD = "What holds for all VMs of this home. `teleport setproperty` and `teleport setextradata global` change it."


class Preferences(Part):
    """`vrde_auth_library` is VBoxAuth, VBoxAuthSimple, an entry point's name or a module's absolute path."""

    format: Literal[1] = 1
    vrde_auth_library: Name = DEFAULT_AUTH_LIBRARY
    extradata: dict[Name, Text] = Field(default_factory=dict)


def read(home: Path) -> Preferences:
    """Raises StorageError for a file that cannot be read or makes no sense."""
    path = home / FILE
    what = f"the preferences {path}"
    try:
        return Preferences.model_validate(tomllib.loads(path.read_bytes().decode()))
    except FileNotFoundError:
        return Preferences()
    except ValidationError as error:
        raise StorageError(what, describe(error), "correct the file by hand, or remove it") from error
    except (OSError, ValueError) as error:  # not readable, no UTF-8, no TOML
        raise StorageError(what, str(error), "correct the file by hand, or remove it") from error


def change(home: Path, wanted: Callable[[Preferences], Preferences]) -> Preferences:
    """Changes them under a lock of their own; nothing is written when `wanted` raises."""
    make_folder(home)
    with locked(home / "preferences.lock", what="the preferences"):
        old = read(home)
        new = wanted(old)
        if new != old:
            document = tomlkit.document()
            document.add(tomlkit.comment(_HEAD))
            document.update(new.model_dump())
            write_durably(home / FILE, tomlkit.dumps(document).encode())
        return new


def with_extradata(old: Mapping[str, str], key: str, value: str) -> dict[str, str]:
    """Extradata with one key set, or taken out by an empty value. Raises UsageError."""
    try:
        Preferences(extradata={key: value})
    except ValidationError as error:
        raise UsageError(f"setextradata {key!r}", describe(error)) from error
    return {name: text for name, text in old.items() if name != key} | ({key: value} if value else {})


def set_global_extradata(preferences: Preferences, key: str, value: str) -> Preferences:
    """`setextradata global`. Raises UsageError for the display's keys, which belong to a VM each."""
    if is_display_key(key):
        raise UsageError(
            f"setextradata global {key}", "the display's settings belong to one VM", "name the VM instead of global"
        )
    return preferences.model_copy(update={"extradata": with_extradata(preferences.extradata, key, value)})


def with_defaults(settings: VrdeSettings, home: Path) -> VrdeSettings:
    """A VM's display settings with the home's authentication library where the VM needs one and names none. Raises StorageError."""
    if settings.auth_library or settings.auth_type is not AuthType.EXTERNAL:
        return settings
    return replace(settings, auth_library=read(home).vrde_auth_library)
