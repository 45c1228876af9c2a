"""What must hold in every state, and how it may end."""

from tests.explorer.world import World

_LOST_AT_THE_TARGET = frozenset({"T QEMU killed", "T agent and QEMU killed", "T host gone"})
_LOST_AT_THE_SOURCE = frozenset({"S QEMU killed", "S agent and QEMU killed", "S host gone"})


def broken_rule(w: World, *, shared: bool) -> str:
    """The rule that this state breaks; "" when all is well."""
    if w.sq == "run" and w.tq == "run":
        return "TWO RUNNING"
    if w.sq == "run" and w.tran:
        return "STALE RESUME"
    if shared and w.sq == "run" and w.stopped and w.tq in ("loaded", "active", "run"):
        return "SOURCE RUNS WHILE ITS RAM IS MAPPED"
    return ""


def end_of(w: World, *, record: bool) -> str:
    """How an exploration ended that ends in this state."""
    if (w.sq == "run") + (w.tq == "run") == 1:
        return "one runs"
    if _crashed(w):
        return "the guest crashed with its QEMU or host"
    if w.sq == "paused" and not w.sdisk and record:
        return "waits at the source for its storage, copy kept"
    if w.sq == "paused":
        return "in doubt, copy kept"
    return "LOST"


def is_wrong(end: str, w: World, *, record: bool) -> bool:
    """Whether so few faults must not end so."""
    if end == "LOST":
        return True
    # without a record one fault may end in doubt: silence after COMMIT cannot be told apart (handover.md)
    return end == "in doubt, copy kept" and len(w.faults) < (2 if record else 1)


def _crashed(w: World) -> bool:
    """A fault took the only QEMU that held the guest, or the only host that could go on with it."""
    hit = set(w.faults)
    if (w.tran or w.tj == "intent") and _LOST_AT_THE_TARGET & hit:
        return True
    if w.g1 == "T" and w.g2 == "" and "T host gone" in hit:
        return True  # it owned the guest; the source's paused copy is kept for `resolve`
    return bool(_LOST_AT_THE_SOURCE & hit) and w.tq != "run"
