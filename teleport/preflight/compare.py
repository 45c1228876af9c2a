"""Compares what two sides say of one machine: every difference at once, ordered, each with the command that mends it.

Rules:

- Facts are matched by (area, subject, name). A subject that one side lacks altogether is one row, not one a fact.
- In the area "property" a name or subject that one side lacks isn't compared: another version of QEMU knows other properties of
  the same machine type, and a device that is missing is a row of the area "device" already.
- Descriptive areas may differ. Areas that this build doesn't know (a newer peer's) are compared only when both sides have them.
- `here` is the source and `there` the target: it is the target that is mended, towards the source's value.
"""

import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from teleport.model import Fact, Finding

# In the order of the table. What a person set comes before what QEMU made of it.
KNOWN_AREAS = ("definition", "machine", "memory", "cpu", "firmware", "device", "property", "block")
# May differ: names, paths, host ports, and what the target takes over from the source (commands.md).
DESCRIPTIVE_AREAS = frozenset({"descriptive", "identity", "host"})
# Compared name by name where both sides have it (see above).
COMMON_NAMES_AREAS = frozenset({"property"})
# Facts whose value is a set of words: the row shows what each side has beyond the other.
_SETS = frozenset({("cpu", "features")})
MISSING = "missing"
NONE_BEYOND = "without"
# The names of the facts that say best what a subject is, when a whole subject is missing on the other side.
_TELLING_NAMES = ("type", "driver", "model", "format")
_SUMMARY_CHARACTERS = 60
# Names of the area "definition" (`teleport.machines.settings`): a controller, a place at one, and the value of an empty place.
_CONTROLLER = "controller "
PLACE = re.compile(r"(?P<bus>[a-z-]+)-(?P<port>[0-9]{1,4})-(?P<device>[0-9]{1,4})", re.ASCII)
_EMPTY_PLACE = "none"

Mender = Callable[[str, Fact], str]


def mending_command(vm: str, wanted: Fact) -> str:
    """The command that gives VM `vm` the value of `wanted`, by the form of `wanted.mend`; "" when none is known.

    "--memory 1024" (options of `modifyvm`, complete), "--memory" (the fact's value is appended), or a whole command in which
    `{vm}` stands for the VM's name.
    """
    mend = wanted.mend.strip()
    if not mend:
        return ""
    name = shlex.quote(vm)
    if not mend.startswith("--"):
        return mend.replace("{vm}", name)
    if " " not in mend and "=" not in mend and wanted.value:
        mend = f"{mend} {shlex.quote(wanted.value)}"
    return f"teleport modifyvm {name} {mend.replace('{vm}', name)}"


def compare_facts(
    here: Iterable[Fact], there: Iterable[Fact], *, mend_vm: str, mender: Mender = mending_command
) -> tuple[Finding, ...]:
    """Every difference between the source's facts (`here`) and the target's, ordered by area, subject and name.

    `mend_vm` is the VM that the mending commands change (the target's); `mender` makes such a command from it and the
    source's fact.
    """
    ours, theirs = _by_subject(here), _by_subject(there)
    our_areas, their_areas = {area for area, _ in ours}, {area for area, _ in theirs}
    findings = []
    for subject_key in sorted(ours.keys() | theirs.keys(), key=_order):
        area = subject_key[0]
        if area in DESCRIPTIVE_AREAS:
            continue
        if area not in KNOWN_AREAS and not (area in our_areas and area in their_areas):
            continue
        mine, other = ours.get(subject_key), theirs.get(subject_key)
        if mine is None or other is None:
            if area in COMMON_NAMES_AREAS:
                continue
            present = [fact for facts in (mine or other or {}).values() for fact in facts]
            commands = dict.fromkeys(filter(None, (mender(mend_vm, fact) for fact in present))) if mine else {}
            summary = _summary(present)
            findings.append(
                Finding(
                    what=_what(*subject_key, ""),
                    here=summary if mine else MISSING,
                    there=MISSING if mine else summary,
                    mend=" && ".join(commands),
                )
            )
            continue
        findings.extend(_compare_subject(mine, other, mend_vm=mend_vm, mender=mender))
    return tuple(findings)


def _compare_subject(
    mine: Mapping[str, Sequence[Fact]], other: Mapping[str, Sequence[Fact]], *, mend_vm: str, mender: Mender
) -> Iterable[Finding]:
    """The differences within one subject that both sides have."""
    for name in sorted(mine.keys() | other.keys(), key=natural_order):
        our_facts, their_facts = mine.get(name, ()), other.get(name, ())
        here, there = _value(our_facts), _value(their_facts)
        example = (our_facts or their_facts)[0]
        if here == there or (example.area in COMMON_NAMES_AREAS and (here is None or there is None)):
            continue
        if (example.area, name) in _SETS and here is not None and there is not None:
            here, there = _beyond(here, there), _beyond(there, here)
        commands = dict.fromkeys(filter(None, (mender(mend_vm, fact) for fact in our_facts)))
        if commands and example.area == "definition" and name.startswith(_CONTROLLER):
            commands = dict.fromkeys((*_detaching(name.removeprefix(_CONTROLLER), mine, other, mend_vm), *commands))
        yield Finding(
            what=_what(example.area, example.subject, name),
            here=MISSING if here is None else here,
            there=MISSING if there is None else there,
            mend=" && ".join(commands),
        )


def _detaching(bus: str, mine: Iterable[str], other: Mapping[str, Sequence[Fact]], vm: str) -> Iterable[str]:
    """The commands that empty the target's places that the source's controller has not: while something is attached there, the
    controller cannot have fewer ports."""
    for name in sorted(other.keys() - set(mine), key=natural_order):
        place = PLACE.fullmatch(name)
        if place and place["bus"] == bus and _value(other[name]) != _EMPTY_PLACE:
            where = f"--storagectl {bus} --port {place['port']} --device {place['device']}"
            yield f"teleport storageattach {shlex.quote(vm)} {where} --medium none"


def _by_subject(facts: Iterable[Fact]) -> dict[tuple[str, str], dict[str, list[Fact]]]:
    """(area, subject) → name → facts. Several facts of one name (which nobody should send) are kept and compared as a set."""
    subjects: dict[tuple[str, str], dict[str, list[Fact]]] = defaultdict(lambda: defaultdict(list))
    for fact in facts:
        subjects[fact.area, fact.subject][fact.name].append(fact)
    return {key: dict(names) for key, names in subjects.items()}


def _value(facts: Sequence[Fact]) -> str | None:
    """The value as shown and compared; None when there is no such fact, which is not the same as an empty value."""
    return ", ".join(sorted(fact.value for fact in facts)) if facts else None


def _beyond(value: str, other: str) -> str:
    """The words of one set that the other lacks."""
    more = sorted(set(value.split()) - set(other.split()))
    return f"with {', '.join(more)}" if more else NONE_BEYOND


def _summary(facts: Sequence[Fact]) -> str:
    """What a subject is, in a few words: its telling facts, or all."""
    telling = [fact for name in _TELLING_NAMES for fact in facts if fact.name == name] or sorted(facts, key=lambda f: f.name)
    text = ", ".join(fact.value for fact in telling if fact.value) or "present"
    return text if len(text) <= _SUMMARY_CHARACTERS else text[: _SUMMARY_CHARACTERS - 1] + "…"


def _what(area: str, subject: str, name: str) -> str:
    """The row's title. The area "definition" is what people set themselves: its settings speak without it."""
    return " ".join(part for part in ("" if area == "definition" else area, subject, name) if part) or area


def _order(subject_key: tuple[str, str]) -> tuple[int, str, tuple[tuple[int, int, str], ...]]:
    area, subject = subject_key
    rank = KNOWN_AREAS.index(area) if area in KNOWN_AREAS else len(KNOWN_AREAS)
    return rank, area, natural_order(subject)


def natural_order(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts nic2 before nic10."""
    parts = re.split(r"([0-9]+)", text)
    return tuple((0, int(part), part) if part.isdecimal() and part.isascii() else (1, 0, part) for part in parts)
