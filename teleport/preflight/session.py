"""Do two builds understand each other? The target answers the source's hello, the source checks the target's."""

from collections.abc import Iterable

from teleport.model import Finding, SourceHello, TargetHello

# No command mends it: for the hint of the error that carries such a finding.
UPGRADE = "install the same version of Teleport on both hosts"


def negotiate(hello: SourceHello, *, versions: tuple[int, int], capabilities: frozenset[str]) -> int | Finding:
    """The target's side: the newest wire version that both speak, or why there is none.

    `versions` (inclusive) and `capabilities` are this build's. A capability that the source requires and this build lacks
    is refused by name; one that it merely has is ignored.
    """
    version = min(hello.versions[1], versions[1])
    if version < max(hello.versions[0], versions[0]):
        return Finding(what="protocol version", here=_range(hello.versions), there=_range(versions))
    return _missing(hello.required, capabilities, required_by_source=True) or version


def check_target(hello: TargetHello, *, versions: tuple[int, int], capabilities: frozenset[str]) -> Finding | None:
    """The source's side: whether it can follow the version that the target chose and what the target requires; None if so."""
    if not versions[0] <= hello.version <= versions[1]:
        return Finding(what="protocol version", here=_range(versions), there=str(hello.version))
    return _missing(hello.required, capabilities, required_by_source=False)


def _missing(required: Iterable[str], offered: frozenset[str], *, required_by_source: bool) -> Finding | None:
    missing = ", ".join(sorted(set(required) - offered))
    if not missing:
        return None
    here, there = (f"required: {missing}", "unknown") if required_by_source else ("unknown", f"required: {missing}")
    return Finding(what="capability", here=here, there=there)


def _range(versions: tuple[int, int]) -> str:
    oldest, newest = versions
    return str(oldest) if oldest == newest else f"{oldest} to {newest}"
