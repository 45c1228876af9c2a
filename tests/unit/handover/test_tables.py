"""The tables themselves: nothing dangling, the documentation current, unlisted events change nothing."""

import pytest

from teleport.handover.machine import Unlisted
from teleport.handover.source import HEARD, SOURCE, SourceEvent, SourcePhase
from teleport.handover.target import TARGET, TargetEffect, TargetEvent, TargetStep, word
from teleport.model import TargetPhase
from tests.unit.handover.diagrams import PAGE, current


def test_the_page_shows_todays_tables() -> None:
    text = PAGE.read_text()
    assert "stateDiagram-v2" in text
    assert current(text) == text, "run deploy/diagrams"


def test_every_phase_that_is_not_final_leads_somewhere() -> None:
    for table, phases in ((SOURCE, SourcePhase), (TARGET, TargetStep)):
        for phase in phases:
            leads = {row.phase for (here, _), row in table.rows.items() if here is phase} - {phase}
            assert bool(leads) != (phase in table.final), phase


def test_an_unlisted_event_raises() -> None:
    with pytest.raises(Unlisted):
        SOURCE.step(SourcePhase.COPYING, SourceEvent.CLAIM_WON, shared=False)
    with pytest.raises(Unlisted):
        TARGET.step(TargetStep.LOADING, TargetEvent.CONTINUED, shared=False)


def test_a_final_phase_takes_anything_and_stays() -> None:
    for event in SourceEvent:
        row = SOURCE.step(SourcePhase.MOVED, event, shared=True)
        assert (row.phase, row.effects) == (SourcePhase.MOVED, ())


def test_every_word_of_the_target_is_an_event_of_the_source() -> None:
    assert set(HEARD) == set(TargetPhase)


@pytest.mark.parametrize("step", TargetStep)
def test_no_word_to_act_on_is_said_before_it_is_told(step: TargetStep) -> None:
    assert word(step, (TargetEffect.KILL_QEMU, TargetEffect.TELL)) is TargetPhase.CLAIMED


def test_shared_only_effects_are_left_out_of_other_plans() -> None:
    row = SOURCE.step(SourcePhase.PREPARED, SourceEvent.START, shared=False)
    assert not set(row.effects) & SOURCE.shared_only
    assert set(SOURCE.step(SourcePhase.PREPARED, SourceEvent.START, shared=True).effects) & SOURCE.shared_only
