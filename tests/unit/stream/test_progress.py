"""Progress and downtime steps: pure functions of what QEMU says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleport.model import MigrationInfo, Stage
from teleport.stream.progress import DowntimeSteps, Gauge, advance

LOOKS = st.lists(
    st.builds(
        MigrationInfo,
        status=st.just("active"),
        total_bytes=st.integers(0, 1 << 40),
        remaining_bytes=st.integers(0, 1 << 40),
        dirty_pages_per_second=st.integers(0, 1 << 24),
        rounds=st.integers(0, 50),
    ),
    min_size=1,
    max_size=20,
)


@given(LOOKS)
def test_the_percentage_never_goes_back_and_stays_below_the_switchover(looks: list[MigrationInfo]) -> None:
    gauge, last = Gauge(), 0
    for number, info in enumerate(looks, 1):
        gauge, progress = advance(gauge, info, now_seconds=float(number), sent_bytes=number * 1000, plan="raw")
        assert last <= progress.percent <= 95
        assert progress.stage is Stage.COPYING
        last = progress.percent


def test_a_guest_that_writes_faster_than_the_link_carries_does_not_converge() -> None:
    gauge = Gauge()
    info = MigrationInfo(status="active", total_bytes=1 << 30, remaining_bytes=1 << 29, dirty_pages_per_second=50_000, rounds=3)
    for second in range(1, 4):
        gauge, progress = advance(gauge, info, now_seconds=float(second), sent_bytes=second * 10_000_000, plan="raw")
    assert progress.rate_bytes_per_second == pytest.approx(10_000_000)
    assert progress.dirty_bytes_per_second == 50_000 * 4096
    assert not progress.converging
    assert progress.eta_seconds is None


def test_the_first_round_is_no_verdict() -> None:
    info = MigrationInfo(status="active", total_bytes=1 << 30, remaining_bytes=1 << 29, dirty_pages_per_second=50_000, rounds=1)
    gauge, _ = advance(Gauge(), info, now_seconds=1.0, sent_bytes=0, plan="raw")
    _, progress = advance(gauge, info, now_seconds=2.0, sent_bytes=10_000_000, plan="raw")
    assert progress.converging


def test_the_time_that_is_left_follows_from_rate_and_what_is_written_meanwhile() -> None:
    info = MigrationInfo(status="active", total_bytes=1 << 30, remaining_bytes=90_000_000, dirty_pages_per_second=0, rounds=1)
    gauge, _ = advance(Gauge(), info, now_seconds=1.0, sent_bytes=0, plan="raw")
    _, progress = advance(gauge, info, now_seconds=2.0, sent_bytes=30_000_000, plan="raw")
    assert progress.eta_seconds == pytest.approx(3.0)


@given(st.integers(1, 10_000), st.integers(0, 1000))
def test_the_downtime_limit_never_exceeds_what_was_allowed(allowed_ms: int, rounds: int) -> None:
    steps = DowntimeSteps(allowed_ms=allowed_ms)
    assert 0 < steps.limit_ms(rounds) <= allowed_ms
    assert steps.limit_ms(rounds) <= steps.limit_ms(rounds + 1)


def test_the_downtime_limit_begins_short_and_ends_at_what_was_allowed() -> None:
    steps = DowntimeSteps(allowed_ms=250)
    assert steps.limit_ms(0) == 50
    assert steps.limit_ms(100) == 250
