"""One row of the table of options: everything that any part of Teleport knows about a setting."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as attribute
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from teleport.errors import UsageError
from teleport.machines.definition import Definition
from teleport.machines.options.kinds import Kind, one_word
from teleport.machines.text import describe

# A definition on its way from one valid value to the next: `Definition.model_dump()`, in which options set their fields.
Draft = dict[str, Any]
Setter = Callable[[Draft, int, Any], None]
Getter = Callable[[Definition, int], Any]


@dataclass(frozen=True)
class Option:
    """An option of `modifyvm`.

    `name` is what is typed after the dashes, `where` the field of the definition that it sets. Where `most` is not 0 a number
    from 1 to `most` follows the name (`--nic1`). `label` is how people read it in `showvminfo`, `key` its name with
    `--machinereadable` (default: the name), `about` its help. `hardware` says that the guest sees it, so that both ends of a
    teleport must agree; `live` that it may change while the VM runs; `relevant` whether it means anything for a definition;
    `also` other spellings. `repeats`: each use adds to the last one.
    `unit` follows its value for people, `machine_words` are VirtualBox's words for values with `--machinereadable` where ours differ.
    `hardware_value` and `mend` say how it is compared, and which options set it, where that is not simply the option itself.
    """

    name: str
    where: str
    kind: Kind
    label: str
    about: str
    get: Getter
    set: Setter
    group: str
    most: int = 0
    key: str = ""
    unit: str = ""
    machine_words: Mapping[str, str] = attribute(default_factory=lambda: MappingProxyType({}))
    hardware: bool = True
    live: bool = False
    shown: bool = True
    repeats: bool = False
    also: tuple[str, ...] = ()
    relevant: Callable[[Definition, int], bool] = lambda _, __: True
    hardware_value: Callable[[Definition, int], str] | None = None
    mend: Callable[[Definition, int], str] | None = None

    @property
    def numbers(self) -> range:
        """The numbers that follow the name; (0,) for an option without."""
        return range(1, self.most + 1) if self.most else range(1)

    def flag(self, number: int) -> str:
        """As it is typed, e.g. ``--nic1``."""
        return f"--{self.name}{number or ''}"

    def machine_key(self, number: int) -> str:
        """Its key in `showvminfo --machinereadable`."""
        return f"{self.key or self.name}{number or ''}"

    def text(self, definition: Definition, number: int) -> str:
        """Its value as a person writes it."""
        return self.kind.show(self.get(definition, number))

    def spoken(self, definition: Definition, number: int) -> tuple[str, ...]:
        """The words that follow its flag to set it so."""
        text = self.text(definition, number)
        if self.kind.words is one_word:
            return (text,)
        words = text.split(" ")
        count = self.kind.words(words)
        return (*words[: count - 1], " ".join(words[count - 1 :]))

    def wanted(self, definition: Definition, number: int) -> str:
        """Its value as the guest sees it, for the comparison of two ends."""
        return self.hardware_value(definition, number) if self.hardware_value else self.text(definition, number)

    def apply(self, draft: Draft, number: int, words: Sequence[str]) -> None:
        """Sets it in a draft. Raises UsageError for words that it doesn't take."""
        try:
            self.set(draft, number, self.kind.parse(words))
        except ValueError as error:
            raise UsageError(self.flag(number), str(error)) from error


@dataclass(frozen=True)
class Use:
    """One use of an option on a command line."""

    option: Option
    number: int
    words: tuple[str, ...]


def applied(definition: Definition, uses: Sequence[Use]) -> Definition:
    """The definition with these options set in their order and checked as a whole. Raises UsageError; `definition` is as it was."""
    draft = draft_of(definition)
    for use in uses:
        use.option.apply(draft, use.number, use.words)
    return checked(draft, "modifyvm")


def draft_of(definition: Definition) -> Draft:
    """A draft to change. The display's settings stay the value that its own module changes."""
    return definition.model_dump() | {"vrde": definition.vrde}


def checked(draft: Draft, what: str) -> Definition:
    """The definition that a draft makes. Raises UsageError with everything that doesn't fit together."""
    try:
        return Definition.model_validate(draft)
    except ValidationError as error:
        raise UsageError(what, describe(error)) from error


def field(section: str, name: str) -> tuple[Getter, Setter]:
    """Reads and writes one field of a section (`""`: of the definition itself)."""

    def get(definition: Definition, _: int) -> Any:
        return getattr(getattr(definition, section) if section else definition, name)

    def put(draft: Draft, _: int, value: Any) -> None:
        (draft[section] if section else draft)[name] = value

    return get, put


def numbered(draft: Draft, collection: str, number: int, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of that number in one of the draft's lists (nics, serial), made from `defaults` where there is none."""
    entries: list[dict[str, Any]] = sorted(draft[collection], key=lambda each: int(each["number"]))
    for entry in entries:
        if entry["number"] == number:
            draft[collection] = entries
            return entry
    entry = {"number": number, **defaults}
    draft[collection] = sorted([*entries, entry], key=lambda each: int(each["number"]))
    return entry
