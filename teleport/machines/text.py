"""A definition as the TOML file that people may edit: reading with errors that name line and field, writing that keeps comments."""

import contextlib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import tomlkit
from pydantic import ValidationError
from tomlkit.items import AoT, Table

from teleport.errors import StorageError
from teleport.machines.definition import Definition

_NEW_LINE = b"\n"
_HEAD = "A virtual machine of Teleport. `teleport modifyvm` changes it; edit it by hand only while the VM is off."
# What tells one entry of a list from another, so that comments stay with theirs.
KEYS = {
    "controllers": ("bus",),
    "nics": ("number",),
    "serial": ("number",),
    "attachments": ("port", "device"),
    "cpuid": ("leaf", "subleaf"),
    "forwards": ("name",),
    "usb_filters": ("name",),
}


def parse_definition(content: bytes, path: Path) -> Definition:
    """The definition in a file's content. Raises StorageError that names file, line or field, and what to do."""
    what = f"the definition {path}"
    try:
        raw = tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        raise StorageError(what, f"is not a text file in UTF-8 (byte {error.start})", "restore or correct it") from error
    except tomllib.TOMLDecodeError as error:
        reason = str(error).replace("at end of document", f"at line {content.count(_NEW_LINE) + 1}, the end")
        raise StorageError(what, f"is not valid TOML: {reason}", "correct that line") from error
    except RecursionError as error:
        raise StorageError(what, "is nested too deeply", "restore or correct it") from error
    version = raw.get("format")
    if isinstance(version, int) and version > Definition.model_fields["format"].default:
        raise StorageError(what, f"has format {version}, which a newer Teleport wrote", "use that one")
    try:
        return Definition.model_validate(raw)
    except ValidationError as error:
        raise StorageError(what, describe(error), "correct the file by hand, or restore it") from error


def describe(error: ValidationError) -> str:
    """Every problem as ``field: reason``, joined; fields as they stand in the file, lists counted from 1."""
    lines = []
    for each in error.errors(include_url=False):
        place = ".".join(str(part + 1) if isinstance(part, int) else part for part in each["loc"])
        reason = each["msg"].removeprefix("Value error, ")
        if each["type"] == "extra_forbidden":
            reason = "there is no such setting"
        elif each["type"] == "missing":
            reason = "is missing"
        elif each["type"] != "value_error":
            reason = f"{_shown(each['input'])}: {reason[0].lower()}{reason[1:]}"
        elif isinstance(each["input"], str) and reason.startswith(("is ", "must ")):
            reason = f"{_shown(each['input'])} {reason}"
        lines.append(f"{place}: {reason}" if place else reason)
    return "; ".join(lines)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def render_definition(definition: Definition, old: bytes | None = None) -> bytes:
    """The file's content; comments and order of `old` (the content that it replaces) are kept where their fields are."""
    wanted = definition.model_dump(mode="json")
    if old is not None:
        document = tomlkit.parse(old)
        _merge(document, wanted)
        content = tomlkit.dumps(document)
        with contextlib.suppress(tomllib.TOMLDecodeError, ValidationError):
            # tomlkit places some edits wrongly; then the comments go rather than the values
            if Definition.model_validate(tomllib.loads(content)) == definition:
                return content.encode()
    document = tomlkit.document()
    document.add(tomlkit.comment(_HEAD))
    document.add(tomlkit.nl())
    _merge(document, wanted)
    return tomlkit.dumps(document).encode()


def _merge(table: Any, wanted: Mapping[str, Any]) -> None:  # tomlkit's containers share no useful type
    for key in [key for key in table if key not in wanted]:
        table.remove(key)
    plain = {key: value for key, value in wanted.items() if not _is_table(value)}
    for key, value in (plain | {key: value for key, value in wanted.items() if key not in plain}).items():
        old = table.get(key)
        if isinstance(value, Mapping):
            if not isinstance(old, Mapping):
                table[key] = tomlkit.table()
            _merge(table[key], value)
        elif _is_table(value) or key in KEYS:
            _merge_list(table, key, cast(Sequence[Mapping[str, Any]], value))
        elif old is None or type(getattr(old, "unwrap", lambda old=old: old)()) is not type(value) or old != value:
            table[key] = value


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0 and isinstance(value[0], Mapping)
    )


def _merge_list(table: Any, key: str, wanted: Sequence[Mapping[str, Any]]) -> None:
    """Lists of tables: each entry goes on with the old one that has the same place; untouched where only values change."""
    names = KEYS[key]
    present = table.get(key)
    old: dict[tuple[Any, ...], Table] = {}
    if isinstance(present, AoT):
        old = {tuple(each.get(name) for name in names): each for each in present}
    places = [tuple(value[name] for name in names) for value in wanted]
    if isinstance(present, AoT) and places[: len(old)] == list(old):
        for value, place in zip(wanted, places, strict=True):
            if place not in old:
                present.append(tomlkit.table())
            _merge(present[places.index(place)], value)
        return
    if key in table:
        table.remove(key)
    if not wanted:
        return
    entries = tomlkit.aot()
    for value, place in zip(wanted, places, strict=True):
        entry = old.get(place) or tomlkit.table()
        _merge(entry, value)
        entries.append(entry)
    table.append(key, entries)
