"""What a person can do about a finding that no command of ours mends, by the finding's title."""

import re
from collections.abc import Iterable, Sequence

_SAME_MACHINE = "both hosts must make the same machine of it: use one version of QEMU and one --accelerator at both ends"
# The first that matches counts.
_ADVICE: tuple[tuple[str, str], ...] = (
    (r"memory at the (source|target)", r"end other programs or VMs on the \1's host until it has that much memory"),
    (r".* port", "end what holds that port on the target's host, or give the VM another one"),
    (
        r"owner record",
        "attach the same disks at both ends, or name one --ownerfolder: both hosts must read and write the same record",
    ),
    (r"protocol version|capability", "install the same release of Teleport on both hosts"),
    (
        r"medium .* (internal snapshots|backing file|format)",
        "shut the VM down and attach a flat copy at both ends (`teleport clonemedium disk`)",
    ),
    (r"medium .*", "both ends must have the same medium, usable, on storage that both hosts see"),
    (
        r"cpu (features|model|cpuid .*)",
        "choose a CPU that both hosts have: modifyvm --cpu-profile, `teleport list cpu-profiles`",
    ),
    (r"(machine|memory|cpu|firmware|device|property|block)( .*)?", _SAME_MACHINE),
)
_OTHERWISE = "make the target's VM like the source's: compare `teleport showvminfo` of both"


def advice(what: str) -> str:
    """One sentence for a finding titled `what`."""
    for pattern, sentence in _ADVICE:
        if match := re.fullmatch(pattern, what, re.DOTALL):
            return match.expand(sentence)
    return _OTHERWISE


def sentences(rows: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """For the rows (what, here, there, mend) without a mending command: the sentences, each once, with what they are about."""
    about: dict[str, list[str]] = {}
    for what, _, _, mend in rows:
        if not mend:
            about.setdefault(advice(what), []).append(what)
    return tuple(f"{', '.join(dict.fromkeys(whats))}: {sentence}" for sentence, whats in about.items())
