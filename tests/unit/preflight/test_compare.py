from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleport.model import Fact, Finding
from teleport.preflight.compare import (
    COMMON_NAMES_AREAS,
    DESCRIPTIVE_AREAS,
    KNOWN_AREAS,
    MISSING,
    compare_facts,
    mending_command,
)

STRICT_AREAS = tuple(area for area in KNOWN_AREAS if area not in COMMON_NAMES_AREAS)
words = st.text(alphabet="abc019./-_ ", min_size=1, max_size=6)
facts_strategy = st.lists(
    st.builds(Fact, area=st.sampled_from(STRICT_AREAS), subject=words, name=words, value=words),
    unique_by=lambda fact: (fact.area, fact.subject, fact.name),
    max_size=30,
)
any_facts = st.lists(
    st.builds(Fact, area=st.sampled_from((*KNOWN_AREAS, *DESCRIPTIVE_AREAS, "future")), subject=words, name=words, value=words),
    max_size=30,
)

MEMORY = Fact("definition", "memory", "", "1024 MiB", "--memory 1024")
NIC = Fact("device", "nic1", "driver", "e1000")


def test_every_difference_comes_at_once_in_the_tables_order() -> None:
    here = (Fact("block", "disk10", "size", "9"), Fact("block", "disk2", "size", "7"), NIC, MEMORY)
    there = (
        replace(MEMORY, value="512 MiB", mend="--memory 512"),
        Fact("block", "disk2", "size", "8"),
        replace(NIC, value="rtl8139"),
        Fact("block", "disk10", "size", "1"),
    )
    assert compare_facts(here, there, mend_vm="T") == (
        Finding("memory", "1024 MiB", "512 MiB", "teleport modifyvm T --memory 1024"),
        Finding("device nic1 driver", "e1000", "rtl8139"),
        Finding("block disk2 size", "7", "8"),
        Finding("block disk10 size", "9", "1"),
    )


def test_a_subject_that_one_side_lacks_is_one_row() -> None:
    nic2 = (Fact("device", "nic2", "driver", "e1000"), Fact("device", "nic2", "addr", "04.0"))
    assert compare_facts((NIC,), (NIC, *nic2), mend_vm="T") == (Finding("device nic2", MISSING, "e1000"),)
    assert compare_facts((NIC, *nic2), (NIC,), mend_vm="T") == (Finding("device nic2", "e1000", MISSING),)


def test_a_fact_that_one_side_lacks_is_not_an_empty_fact() -> None:
    here = (NIC, Fact("device", "nic1", "romfile", ""))
    assert compare_facts(here, (NIC,), mend_vm="T") == (Finding("device nic1 romfile", "", MISSING),)


def test_descriptive_areas_may_differ_and_unknown_ones_only_where_both_have_them() -> None:
    assert (
        compare_facts((Fact("descriptive", "vm", "name", "S"),), (Fact("descriptive", "vm", "name", "T"),), mend_vm="T") == ()
    )
    newer = Fact("future", "x", "y", "1")
    assert compare_facts((newer,), (), mend_vm="T") == ()
    assert compare_facts((newer,), (replace(newer, value="2"),), mend_vm="T") == (Finding("future x y", "1", "2"),)


def test_properties_are_compared_where_both_sides_know_them() -> None:
    here = (
        Fact("property", "nic1", "addr", "03.0"),
        Fact("property", "nic1", "x-new", "on"),
        Fact("property", "nic2", "addr", "04.0"),
    )
    there = (Fact("property", "nic1", "addr", "05.0"),)
    assert compare_facts(here, there, mend_vm="T") == (Finding("property nic1 addr", "03.0", "05.0"),)


def test_cpu_features_show_what_each_side_has_beyond_the_other() -> None:
    def features(value: str) -> Fact:
        return Fact("cpu", "", "features", value)

    assert compare_facts((features("fpu sse sse2 vmx"),), (features("fpu svm"),), mend_vm="T") == (
        Finding("cpu features", "with sse, sse2, vmx", "with svm"),
    )
    assert compare_facts((features("fpu sse"),), (features("fpu"),), mend_vm="T") == (
        Finding("cpu features", "with sse", "without"),
    )


def test_a_whole_area_that_is_missing_is_found() -> None:
    assert compare_facts((Fact("cpu", "", "model", "Nehalem"),), (), mend_vm="T") == (Finding("cpu", "Nehalem", MISSING),)


@pytest.mark.parametrize(
    ("mend", "command"),
    [
        ("", ""),
        ("--memory 1024", "teleport modifyvm 'my vm' --memory 1024"),
        ("--memory", "teleport modifyvm 'my vm' --memory '1 GiB'"),
        ("teleport storagectl {vm} --name SATA --remove", "teleport storagectl 'my vm' --name SATA --remove"),
    ],
)
def test_the_mending_command_can_be_pasted(mend: str, command: str) -> None:
    assert mending_command("my vm", Fact("definition", "memory", "", "1 GiB", mend)) == command


@given(facts_strategy)
def test_identical_sides_have_no_findings_whatever_the_order(facts: list[Fact]) -> None:
    assert compare_facts(facts, list(reversed(facts)), mend_vm="T") == ()


@given(any_facts, any_facts)
def test_it_is_symmetric(here: list[Fact], there: list[Fact]) -> None:
    forth = compare_facts(here, there, mend_vm="T")
    back = compare_facts(there, here, mend_vm="T")
    assert [(f.what, f.here, f.there) for f in forth] == [(f.what, f.there, f.here) for f in back]


@given(facts_strategy.filter(bool), st.data())
def test_each_single_change_of_a_value_is_exactly_that_finding(facts: list[Fact], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(facts) - 1))
    changed = facts.copy()
    changed[index] = replace(facts[index], value=facts[index].value + "'")
    (finding,) = compare_facts(facts, changed, mend_vm="T")
    assert (finding.here, finding.there) == (facts[index].value, changed[index].value)
    assert facts[index].name in finding.what


@given(facts_strategy.filter(bool), st.data())
def test_each_single_fact_left_out_is_exactly_one_finding(facts: list[Fact], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(facts) - 1))
    (finding,) = compare_facts(facts, facts[:index] + facts[index + 1 :], mend_vm="T")
    assert finding.there == MISSING
