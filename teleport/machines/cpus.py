"""The CPU models that a VM can have: QEMU's names, pinned by the machine's version to one set of features each.

`host` and `max` are refused: they differ from host to host, and a guest that sees its CPU change crashes later (machines.md).
"""

import difflib

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
