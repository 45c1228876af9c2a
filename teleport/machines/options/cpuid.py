"""Overrides of CPUID leaves: `--cpuid-set LEAF[:SUBLEAF] EAX EBX ECX EDX`, in hexadecimal as VirtualBox writes them."""

from collections.abc import Sequence
from typing import Any

from teleport.machines.cpus import check_leaf, check_values
from teleport.machines.definition import CpuidLeaf, Definition
from teleport.machines.options.kinds import Kind
from teleport.machines.options.option import Draft, Option

PROCESSOR = "Processor"
_REGISTERS = ("eax", "ebx", "ecx", "edx")
_NONE = "none"


def _hexadecimal(word: str, what: str) -> int:
    try:
        value = int(word, 16)
    except ValueError:
        value = -1
    if not 0 <= value <= 0xFFFFFFFF or "_" in word:
        raise ValueError(f"{word!r} is not {what} of up to 8 hexadecimal digits")
    return value


def _leaf(word: str) -> tuple[int, int]:
    leaf, colon, subleaf = word.partition(":")
    return _hexadecimal(leaf, "a leaf"), _hexadecimal(subleaf, "a subleaf") if colon else -1


def _parse_set(given: Sequence[str]) -> dict[str, int]:
    leaf, subleaf = _leaf(given[0])
    check_leaf(leaf, subleaf)
    values = [_hexadecimal(word, f"a value for {name}") for name, word in zip(_REGISTERS, given[1:], strict=True)]
    check_values(leaf, edx=values[-1])
    return {"leaf": leaf, "subleaf": subleaf} | dict(zip(_REGISTERS, values, strict=True))


def _written(leaf: int, subleaf: int) -> str:
    return f"{leaf:08x}{f':{subleaf:x}' if subleaf >= 0 else ''}"


def _one(each: CpuidLeaf) -> str:
    registers = " ".join(f"{getattr(each, name):08x}" for name in _REGISTERS)
    return f"{_written(each.leaf, each.subleaf)} {registers}"


def _show(value: tuple[CpuidLeaf, ...]) -> str:
    return ", ".join(_one(each) for each in sorted(value, key=lambda each: (each.leaf, each.subleaf))) or _NONE


def _get(definition: Definition, _: int) -> tuple[CpuidLeaf, ...]:
    return definition.cpu.cpuid


def _others(draft: Draft, leaf: int, subleaf: int) -> list[Any]:
    return [each for each in draft["cpu"]["cpuid"] if (each["leaf"], each["subleaf"]) != (leaf, subleaf)]


def _put_set(draft: Draft, _: int, value: dict[str, int]) -> None:
    leaves = [*_others(draft, value["leaf"], value["subleaf"]), value]
    draft["cpu"]["cpuid"] = tuple(sorted(leaves, key=lambda each: (each["leaf"], each["subleaf"])))


def _put_remove(draft: Draft, _: int, value: tuple[int, int]) -> None:
    left = _others(draft, *value)
    if len(left) == len(draft["cpu"]["cpuid"]):
        raise ValueError(f"{_written(*value)} is not overridden")
    draft["cpu"]["cpuid"] = tuple(left)


def _put_remove_all(draft: Draft, _: int, __: object) -> None:
    draft["cpu"]["cpuid"] = ()


def _mend(definition: Definition, _: int) -> str:
    return " ".join(["--cpuid-remove-all", *(f"--cpuid-set {_one(each)}" for each in definition.cpu.cpuid)])


CPUID = (
    Option(
        name="cpuid-set",
        where="cpu.cpuid",
        kind=Kind(metavar="LEAF[:SUBLEAF] EAX EBX ECX EDX", parse=_parse_set, show=_show, words=lambda _: 5),
        label="CPUID overrides",
        about="what the guest reads there, for every feature bit that QEMU has a name for; the other bits QEMU decides",
        get=_get,
        set=_put_set,
        group=PROCESSOR,
        key="cpuid",
        also=("cpuidset", "cpuid"),
        mend=_mend,
    ),
    Option(
        name="cpuid-remove",
        where="cpu.cpuid",
        kind=Kind(metavar="LEAF[:SUBLEAF]", parse=lambda given: _leaf(given[0]), show=_show),
        label="",
        about="takes one override back",
        get=_get,
        set=_put_remove,
        group=PROCESSOR,
        hardware=False,
        shown=False,
        also=("cpuidremove",),
    ),
    Option(
        name="cpuid-remove-all",
        where="cpu.cpuid",
        kind=Kind(metavar="", parse=lambda _: None, show=_show, words=lambda _: 0),
        label="",
        about="takes all overrides back",
        get=_get,
        set=_put_remove_all,
        group=PROCESSOR,
        hardware=False,
        shown=False,
        also=("cpuidremoveall",),
    ),
)
