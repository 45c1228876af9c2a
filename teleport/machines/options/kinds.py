"""Kinds of option values: how the words of a command line become a value of the definition, and how it is written back.

What `show` writes, `parse` reads. `parse` raises ValueError with the reason and the values that are allowed.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from teleport.machines.numbers import whole_number


def one_word(_: Sequence[str]) -> int:
    """Most options take one word."""
    return 1


@dataclass(frozen=True)
class Kind:
    """One kind of value.

    `words` says how many of the words that follow the option belong to it; `choices` are the first words that it takes, for
    completion; `quoted` says whether `--machinereadable` puts the value into quotes.
    """

    metavar: str
    parse: Callable[[Sequence[str]], Any]
    show: Callable[[Any], str]
    choices: tuple[str, ...] = ()
    words: Callable[[Sequence[str]], int] = one_word
    quoted: bool = True


def refuse(word: str, allowed: Sequence[str], *, reason: str = "") -> ValueError:
    """The error for a word that is none of `allowed`."""
    near = difflib.get_close_matches(word.lower(), [each.lower() for each in allowed], n=1, cutoff=0.7)
    meant = next((f"; did you mean {each}?" for each in allowed if near and each.lower() == near[0]), "")
    return ValueError(f"{word!r} is not possible{reason and f': {reason}'}; use {_listed(allowed)}{meant}")


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def choice(*words: str, also: Mapping[str, str] | None = None, refused: Mapping[str, str] | None = None) -> Kind:
    """One of some words, whatever the case. `also` maps other spellings; `refused` words of VirtualBox to why we don't take them."""
    canonical = {word.lower(): word for word in words} | {k.lower(): v for k, v in (also or {}).items()}
    reasons = {word.lower(): why for word, why in (refused or {}).items()}

    def parse(given: Sequence[str]) -> str:
        found = canonical.get(given[0].lower())
        if found is None:
            raise refuse(given[0], words, reason=reasons.get(given[0].lower(), ""))
        return found

    return Kind(metavar="|".join(words), parse=parse, show=str, choices=words)


def number(low: int, high: int, metavar: str = "N", *, unit: str = "", words: Mapping[str, int] | None = None) -> Kind:
    """A whole number in a range, decimal or 0x…; `words` are names for some numbers."""
    named = dict(words or {})
    also = "".join(f" or {word}" for word in named)

    def parse(given: Sequence[str]) -> int:
        if given[0].lower() in named:
            return named[given[0].lower()]
        return whole_number(given[0], low, high, unit=unit, also=also, hexadecimal=True)

    return Kind(metavar=metavar, parse=parse, show=str, quoted=False)


def _switch(given: Sequence[str]) -> bool:
    chosen = {"on": True, "off": False}.get(given[0].lower())
    if chosen is None:
        raise refuse(given[0], ("on", "off"))
    return chosen


SWITCH = Kind(metavar="on|off", parse=_switch, show=lambda value: "on" if value else "off", choices=("on", "off"))


def text(metavar: str = "TEXT") -> Kind:
    """Any text; what it must not contain the definition knows."""
    return Kind(metavar=metavar, parse=lambda given: given[0], show=str)


def _file(given: Sequence[str]) -> str:
    return str(Path(given[0]).absolute()) if given[0] and given[0].lower() != "none" else ""


FILE = Kind(metavar="FILE|none", parse=_file, show=lambda value: value or "none")
FOLDER = Kind(metavar="FOLDER|none", parse=_file, show=lambda value: value or "none")
