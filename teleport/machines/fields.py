"""The kinds of fields that definitions are made of, each with its check and the words that it is refused with."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, PlainSerializer

from teleport.errors import UsageError
from teleport.machines.vrde import VrdeSettings
from teleport.machines.vrde import from_dict as vrde_from_dict
from teleport.machines.vrde import to_dict as vrde_to_dict


def _text(value: str) -> str:
    """What can stand in a file and on a terminal: valid UTF-8 without NUL."""
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("is not valid UTF-8") from None
    return value


def _one_line(value: str) -> str:
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in value):
        raise ValueError("must not contain control characters or line breaks")
    return _text(value)


def _name(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return _one_line(value)


def _uuid(value: str) -> str:
    try:
        return str(UUID(value))
    except ValueError:
        raise ValueError("is not a UUID such as 8f3c2a1e-5d0b-4c76-9b1f-0a7d3e6c5b42") from None


def checked_mac(value: str) -> str:
    """A MAC address as we write it (``08:00:27:1a:2b:3c``), from any of the usual spellings. Raises ValueError."""
    if not value:
        return value
    digits = value.replace(":", "").replace("-", "").lower()
    if not re.fullmatch(r"[0-9a-f]{12}", digits):
        raise ValueError("is not a MAC address of 12 hexadecimal digits such as 0800271A2B3C")
    if int(digits[1], 16) & 1:
        raise ValueError("is a multicast address: its second digit must be even")
    if not int(digits, 16):
        raise ValueError("is no adapter's address: guests refuse it")
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2))


def absolute_path(value: str) -> str:
    """An absolute path, or "" for none. Raises ValueError."""
    if value and not PurePosixPath(_one_line(value)).is_absolute():
        raise ValueError("must be an absolute path")
    return value


def _vrde(value: object) -> object:
    if not isinstance(value, dict):
        return value
    try:
        return vrde_from_dict(value)
    except UsageError as error:
        raise ValueError(str(error)) from error


Text = Annotated[str, AfterValidator(_text)]
Line = Annotated[str, AfterValidator(_one_line)]
Name = Annotated[str, AfterValidator(_name)]
Uuid = Annotated[str, AfterValidator(_uuid)]
Mac = Annotated[str, AfterValidator(checked_mac)]
FilePath = Annotated[str, AfterValidator(absolute_path)]
Vrde = Annotated[VrdeSettings, BeforeValidator(_vrde), PlainSerializer(vrde_to_dict, when_used="json")]


class Part(BaseModel):
    """A section of a definition: frozen, closed, without conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)


def require_unique(what: str, values: Sequence[str | int]) -> None:
    """Raises ValueError when a value is there twice."""
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"two {what} {value}")
