"""The CPU models that a VM can have: QEMU's names, pinned by the machine's version to one set of features each.

`host` and `max` are refused: they differ from host to host, and a guest that sees its CPU change crashes later (machines.md).
"""

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Protocol

from teleport.preflight.cpuid import FEATURE_NAMES, Word

DEFAULT_PROFILE = "Nehalem"  # the newest but one that needs nothing TCG lacks; any host of the last 15 years has it

# `qemu-system-x86_64 -cpu help` of QEMU 10.0, without versioned names (the machine's version pins them), base, host and max.
PROFILES = (
    *("486", "pentium", "pentium2", "pentium3", "athlon", "coreduo", "core2duo", "n270", "phenom"),
    *("qemu32", "qemu64", "kvm32", "kvm64", "Conroe", "Penryn", "Nehalem", "Nehalem-IBRS", "Westmere", "Westmere-IBRS"),
    *("SandyBridge", "SandyBridge-IBRS", "IvyBridge", "IvyBridge-IBRS", "Haswell", "Haswell-IBRS", "Haswell-noTSX"),
    *("Haswell-noTSX-IBRS", "Broadwell", "Broadwell-IBRS", "Broadwell-noTSX", "Broadwell-noTSX-IBRS", "Skylake-Client"),
    *("Skylake-Client-IBRS", "Skylake-Client-noTSX-IBRS", "Skylake-Server", "Skylake-Server-IBRS"),
    *("Skylake-Server-noTSX-IBRS", "Cascadelake-Server", "Cascadelake-Server-noTSX", "Cooperlake", "Icelake-Server"),
    *("Icelake-Server-noTSX", "SapphireRapids", "GraniteRapids", "SierraForest", "ClearwaterForest", "Denverton"),
    *("Snowridge", "KnightsMill", "Opteron_G1", "Opteron_G2", "Opteron_G3", "Opteron_G4", "Opteron_G5", "EPYC"),
    *("EPYC-IBPB", "EPYC-Rome", "EPYC-Milan", "EPYC-Genoa", "Dhyana", "YongFeng"),
)
_BY_WORD = {name.lower(): name for name in PROFILES}


def checked_profile(word: str) -> str:
    """QEMU's spelling of a CPU model, whatever the case. Raises ValueError for one that cannot be had."""
    if word.lower() in ("host", "max"):
        raise ValueError(
            f"{word!r} is another CPU on every host, and a guest must not see its CPU change; name a model, e.g. {DEFAULT_PROFILE}"
        )
    name = _BY_WORD.get(word.lower())
    if name is None:
        near = difflib.get_close_matches(word.lower(), _BY_WORD, n=3)
        meant = f" (did you mean {' or '.join(_BY_WORD[each] for each in near)}?)" if near else ""
        raise ValueError(f"is not a CPU model{meant}; `teleport list cpu-profiles` names them")
    return name


# What `--cpuid-portability-level` takes away, each level with those below it. VirtualBox's selection as far as QEMU has names.
MOST_PORTABLE = 3
_PORTABLE: Mapping[int, tuple[str, ...]] = MappingProxyType(
    {
        1: (
            *(
                "ssse3",
                "sse4.1",
                "sse4.2",
                "popcnt",
                "aes",
                "pclmulqdq",
                "movbe",
                "f16c",
                "fma",
                "xsave",
                "avx",
                "avx2",
                "rdrand",
            ),
            *(
                "rdseed",
                "bmi1",
                "bmi2",
                "fsgsbase",
                "pcid",
                "invpcid",
                "vmx",
                "cx16",
                "cr8legacy",
                "svm",
                "abm",
                "sse4a",
                "xop",
            ),
            *("misalignsse", "3dnowprefetch", "tbm", "fma4", "mmxext", "3dnow", "3dnowext", "fxsr-opt", "rdtscp", "pdpe1gb"),
        ),
        2: ("pni", "lahf-lm"),
        3: ("sse", "sse2", "clflush", "cmov"),
    }
)
# Bits that follow from other settings, or that the guest's kernel switches: never forced. With invtsc no guest can migrate.
_HYPERVISOR = range(0x40000000, 0x40000100)
_POWER, _INVTSC = 0x80000007, 1 << 8
FOLLOWING = frozenset({"apic", "ht", "hypervisor", "osxsave", "ospke", "x2apic", "invtsc", "-"})


class Leaf(Protocol):
    """One override of a CPUID leaf (`definition.CpuidLeaf`)."""

    leaf: int
    subleaf: int
    eax: int
    ebx: int
    ecx: int
    edx: int


def check_leaf(leaf: int, subleaf: int) -> None:
    """Raises ValueError for a leaf in which QEMU lets nothing be set."""
    if leaf == 1 and subleaf in (-1, 0):
        return
    if leaf in _HYPERVISOR:
        raise ValueError(
            f"CPUID leaf {leaf:x} is no processor's: QEMU tells there how it runs the guest (40000001 is KVM's, and TCG has none), "
            "and what it tells is the same on hosts with one accelerator"
        )
    if not any(word.leaf == leaf and subleaf in (word.subleaf, max(word.subleaf, 0)) for word in FEATURE_NAMES):
        known = sorted({(word.leaf, word.subleaf) for word in FEATURE_NAMES})
        names = ", ".join(f"{number:x}{f':{sub}' if sub >= 0 else ''}" for number, sub in known)
        raise ValueError(
            f"QEMU lets nothing be set in CPUID leaf {leaf:x}{f':{subleaf}' if subleaf >= 0 else ''}; it does in {names}"
        )


def check_values(leaf: int, *, edx: int) -> None:
    """Raises ValueError for a bit that no VM here can have."""
    if leaf == _POWER and edx & _INVTSC:
        raise ValueError(
            f"bit 8 of EDX in CPUID leaf {leaf:x} is invtsc, a clock that runs alike for ever: no guest that has it can migrate, "
            "QEMU refuses it"
        )


def portable_features(level: int) -> dict[str, bool]:
    """The features that a portability level switches off."""
    return {name: False for each in range(1, level + 1) for name in _PORTABLE[each]}


def leaf_features(leaves: Iterable[Leaf]) -> dict[str, bool]:
    """The named feature bits of overridden leaves, on or off."""
    features: dict[str, bool] = {}
    for each in leaves:
        for word, names in FEATURE_NAMES.items():
            if word.leaf == each.leaf and each.subleaf in (word.subleaf, max(word.subleaf, 0)):
                value = _register(each, word)
                for bit, name in enumerate(names.split()):
                    if name not in FOLLOWING:
                        features[name] = bool(value >> bit & 1)
    return features


def signature(leaves: Iterable[Leaf]) -> dict[str, int]:
    """Family, model and stepping that an override of leaf 1 says in EAX (Intel's and AMD's encoding); empty without one."""
    for each in leaves:
        if each.leaf == 1 and each.eax:
            base = each.eax >> 8 & 0xF
            family = base + (each.eax >> 20 & 0xFF) if base == 0xF else base
            model = each.eax >> 4 & 0xF
            if base in (0x6, 0xF):
                model |= (each.eax >> 16 & 0xF) << 4
            return {"family": family, "model": model, "stepping": each.eax & 0xF}
    return {}


def undecided_bits(leaf: Leaf) -> list[str]:
    """The registers of an override in which bits are set that QEMU decides by itself, e.g. ``ebx``; for a word to the person."""
    registers = []
    for register in ("eax", "ebx", "ecx", "edx"):
        word = next(
            (
                each
                for each in FEATURE_NAMES
                if each.leaf == leaf.leaf
                and leaf.subleaf in (each.subleaf, max(each.subleaf, 0))
                and each.register.lower() == register
            ),
            None,
        )
        if word is None:
            if getattr(leaf, register) and not (leaf.leaf == 1 and register == "eax"):
                registers.append(register)
            continue
        names = FEATURE_NAMES[word].split()
        settable = sum(1 << bit for bit, name in enumerate(names) if name not in FOLLOWING)
        if getattr(leaf, register) & ~settable:
            registers.append(register)
    return registers


def _register(leaf: Leaf, word: Word) -> int:
    return int(getattr(leaf, word.register.lower()))
