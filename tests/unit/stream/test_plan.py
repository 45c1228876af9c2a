import pytest

from teleport.errors import RefusedError, UsageError
from teleport.model import CAPABILITIES, PlanName
from teleport.stream.plan import choose_plan

OLD = frozenset({"plan-raw"})


@pytest.mark.parametrize(
    ("same_host", "ram", "target", "plan", "reason"),
    [
        (True, "shared", CAPABILITIES, PlanName.SHARED, "on one host"),
        (False, "shared", CAPABILITIES, PlanName.RAW, "not on one host"),
        (True, "private", CAPABILITIES, PlanName.RAW, "is private, not shared"),
        (True, "hugepages", CAPABILITIES, PlanName.RAW, "is hugepages"),
        (True, "shared", OLD, PlanName.RAW, "target cannot do plan-shared"),
    ],
)
def test_auto_takes_the_cheapest_that_is_safe(
    same_host: bool, ram: str, target: frozenset[str], plan: PlanName, reason: str
) -> None:
    chosen, why = choose_plan(
        "auto", same_host=same_host, ram=ram, source_capabilities=CAPABILITIES, target_capabilities=target
    )
    assert chosen is plan
    assert reason in why


def test_a_plan_that_was_asked_for_is_taken_or_refused_with_the_reason() -> None:
    both = {"source_capabilities": CAPABILITIES, "target_capabilities": CAPABILITIES}
    assert choose_plan("raw", same_host=True, ram="shared", **both)[0] is PlanName.RAW
    assert choose_plan(PlanName.SHARED, same_host=True, ram="shared", **both)[0] is PlanName.SHARED
    with pytest.raises(RefusedError, match=r"plan shared: the two ends are not on one host"):
        choose_plan("shared", same_host=False, ram="shared", **both)
    with pytest.raises(RefusedError, match=r"source cannot do plan-raw"):
        choose_plan("raw", same_host=True, ram="shared", source_capabilities=frozenset(), target_capabilities=CAPABILITIES)


def test_no_plan_at_all_says_why_for_each() -> None:
    with pytest.raises(RefusedError, match=r"shared: the source cannot.*raw: the source cannot"):
        choose_plan("auto", same_host=True, ram="shared", source_capabilities=frozenset(), target_capabilities=CAPABILITIES)


def test_a_word_that_is_no_plan_lists_the_plans() -> None:
    with pytest.raises(UsageError, match="one of auto, shared, raw"):
        choose_plan("warp", same_host=True, ram="shared", source_capabilities=CAPABILITIES, target_capabilities=CAPABILITIES)
