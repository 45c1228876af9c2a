import pytest

from teleport.model import Finding, SourceHello, TargetHello
from teleport.preflight.session import check_target, negotiate


def hello(versions: tuple[int, int], required: frozenset[str] = frozenset()) -> SourceHello:
    return SourceHello(
        epoch="e",
        versions=versions,
        capabilities=frozenset({"plan-raw", "telepathy"}),
        required=required,
        vm_name="S",
        host="h",
        software="0.1",
        plan="auto",
    )


def answer(version: int, required: frozenset[str] = frozenset()) -> TargetHello:
    return TargetHello(version=version, capabilities=frozenset(), required=required, vm_name="T", host="h", software="0.1")


@pytest.mark.parametrize(("theirs", "ours", "version"), [((1, 1), (1, 1), 1), ((1, 3), (2, 5), 3), ((2, 5), (1, 3), 3)])
def test_the_newest_common_version_is_chosen(theirs: tuple[int, int], ours: tuple[int, int], version: int) -> None:
    assert negotiate(hello(theirs), versions=ours, capabilities=frozenset({"plan-raw"})) == version


def test_no_common_version_says_both_ranges() -> None:
    assert negotiate(hello((1, 2)), versions=(3, 3), capabilities=frozenset()) == Finding("protocol version", "1 to 2", "3")
    assert negotiate(hello((4, 9)), versions=(3, 3), capabilities=frozenset()) == Finding("protocol version", "4 to 9", "3")


def test_a_required_capability_that_is_unknown_is_refused_by_name_and_a_mere_one_ignored() -> None:
    wish = hello((1, 1), required=frozenset({"plan-raw", "warp", "telepathy"}))
    assert negotiate(wish, versions=(1, 1), capabilities=frozenset({"plan-raw"})) == Finding(
        "capability", "required: telepathy, warp", "unknown"
    )


def test_the_source_checks_what_the_target_chose() -> None:
    assert check_target(answer(1), versions=(1, 1), capabilities=frozenset()) is None
    assert check_target(answer(2), versions=(1, 1), capabilities=frozenset()) == Finding("protocol version", "1", "2")
    assert check_target(answer(1, frozenset({"warp"})), versions=(1, 1), capabilities=frozenset({"plan-raw"})) == Finding(
        "capability", "unknown", "required: warp"
    )
