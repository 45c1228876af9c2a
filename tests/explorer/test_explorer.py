"""The real handover tables through every interleaving with up to two faults; and known-bad variants, which the explorer must catch."""

import os

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
    found = Explorer(shared=shared, record=record, faults=FAULTS).run()
    assert not found.rule, "\n  ".join([found.rule, *found.trace])
    assert found.states > 100_000
    assert found.ends[0, "one runs"] > 0
    assert {kind for (faults, kind) in found.ends if faults == 0} == {"one runs"}


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


def is_found(**tables: object) -> bool:
    """Whether some exploration breaks a rule; with as few faults as it takes."""
    return any(
        Explorer(shared=shared, record=True, faults=faults, **tables).run().rule
        for faults in (1, 2)
        for shared in (False, True)
    )


@pytest.mark.parametrize("name", BAD_SOURCES)
def test_finds_the_bug_of_a_bad_source(name: str) -> None:
    assert is_found(source=replaced(SOURCE, BAD_SOURCES[name]))


@pytest.mark.parametrize("name", BAD_TARGETS)
def test_finds_the_bug_of_a_bad_target(name: str) -> None:
    assert is_found(target=replaced(TARGET, BAD_TARGETS[name]))


@pytest.mark.parametrize(
    "unfenced", [(S.SWITCHING, SE.MIGRATION_FAILED), (S.SWITCHING, SE.SILENCE), (S.DECIDING, SE.CLAIM_WON)]
)
def test_finds_that_shared_ram_needs_a_dead_target(unfenced: tuple[SourcePhase, SourceEvent]) -> None:
    row = SOURCE.rows[unfenced]
    bad = Row(row.phase, tuple(effect for effect in row.effects if effect is not SF.KILL_TARGET))
    found = Explorer(shared=True, record=True, faults=1, source=replaced(SOURCE, {unfenced: bad})).run()
    assert found.rule == "SOURCE RUNS WHILE ITS RAM IS MAPPED"
