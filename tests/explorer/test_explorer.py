"""The real handover tables through every interleaving with up to two faults; and known-bad variants, which the explorer must catch."""

import os
from collections.abc import Callable

import pytest

from teleport.handover.machine import Row
from teleport.handover.source import SOURCE, SourceEffect, SourceEvent, SourcePhase
from teleport.handover.target import TARGET, TargetEffect, TargetEvent, TargetStep
from tests.explorer.explore import Explorer, replaced

S, SE, SF = SourcePhase, SourceEvent, SourceEffect
T, TE, TF = TargetStep, TargetEvent, TargetEffect

FAULTS = int(os.environ.get("TELEPORT_EXPLORER_FAULTS", "2"))


@pytest.mark.parametrize(("shared", "record"), [(False, True), (True, True), (False, False), (True, False)])
@pytest.mark.timeout(1800)
def test_no_interleaving_breaks_a_rule(shared: bool, record: bool) -> None:
    rule, trace, ends, states = Explorer(shared=shared, record=record).run(FAULTS)
    assert not rule, "\n  ".join([rule, *trace])
    assert states > 100_000
    assert ends[0, "one runs"] > 0
    assert {kind for (faults, kind) in ends if faults == 0} == {"one runs"}


BAD_SOURCES = {
    "quits on a lost claim": {(S.DECIDING, SE.CLAIM_LOST): Row(S.MOVED, (SF.QUIT_QEMU, SF.JOURNAL_MOVED))},
    "resumes on silence after COMMIT": {(S.COMMITTED, SE.SILENCE): Row(S.MINE, (SF.SEND_ABORT, SF.RESUME))},
    "resumes after an unknown claim": {(S.DECIDING, SE.CLAIM_UNKNOWN): Row(S.MINE, (SF.SEND_ABORT, SF.KILL_TARGET, SF.RESUME))},
    "restarts as if nothing had been sent": {(S.PREPARED, SE.RESTARTED_PAUSED): Row(S.ABORTING, (SF.SEND_ABORT, SF.RESUME))},
    "quits before it knows STARTED": {(S.COMMITTED, SE.SAID_CLAIMED): Row(S.MOVED, (SF.QUIT_QEMU, SF.JOURNAL_MOVED))},
}
BAD_TARGETS = {
    "runs without a claim": {(T.ACTIVATING, TE.ACTIVATED): Row(T.CLAIMED, (TF.JOURNAL_INTENT, TF.CONT))},
    "runs on an unknown claim": {(T.CLAIMING, TE.CLAIM_UNKNOWN): Row(T.CLAIMED, (TF.JOURNAL_INTENT, TF.CONT))},
    "says aborted after its intent": {
        (T.LOADING, TE.RESTARTED_DEAD_AFTER_INTENT): Row(T.ABORTED, (TF.JOURNAL_ABORTED, TF.TELL))
    },
    "keeps no intent": {(T.CLAIMING, TE.CLAIM_WON): Row(T.CLAIMED, (TF.CONT,))},
    "says aborted with its QEMU alive and goes on": {
        (T.ACTIVATING, TE.ABORT): Row(T.ACTIVATING, (TF.TELL, TF.ACTIVATE)),
        (T.LOADED, TE.SILENCE): Row(T.LOADED, (TF.TELL,)),
        (T.CLAIMING, TE.CLAIM_LOST): Row(T.CLAIMED, (TF.JOURNAL_INTENT, TF.CONT)),
    },
}


def found_by(explorer: Callable[[bool], Explorer]) -> bool:
    """Whether some exploration breaks a rule; with as few faults as it takes."""
    return any(explorer(shared).run(faults)[0] for faults in (1, 2) for shared in (False, True))


@pytest.mark.parametrize("name", BAD_SOURCES)
def test_finds_the_bug_of_a_bad_source(name: str) -> None:
    source = replaced(SOURCE, BAD_SOURCES[name])
    assert found_by(lambda shared: Explorer(shared=shared, record=True, source=source))


@pytest.mark.parametrize("name", BAD_TARGETS)
def test_finds_the_bug_of_a_bad_target(name: str) -> None:
    target = replaced(TARGET, BAD_TARGETS[name])
    assert found_by(lambda shared: Explorer(shared=shared, record=True, target=target))


def test_finds_that_shared_ram_needs_a_dead_target() -> None:
    source = replaced(SOURCE, {(S.SWITCHING, SE.MIGRATION_FAILED): Row(S.ABORTING, (SF.RESUME,)),
                               (S.MINE, SE.TICK): Row(S.MINE, (SF.RESUME,)),
                               (S.DECIDING, SE.CLAIM_WON): Row(S.MINE, (SF.RESUME,))})  # fmt: skip
    explorer = Explorer(shared=True, record=True, source=source)
    explorer.shared = False  # the plan's own fence is left out, the RAM is mapped all the same
    explorer.broken_rule = lambda w: "MAPPED" if w.sq == "run" and w.stopped and w.tq in ("loaded", "active") else ""  # type: ignore[method-assign]
    assert explorer.run(1)[0]
