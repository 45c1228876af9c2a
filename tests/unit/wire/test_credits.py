"""The window on simulated paths: it settles near what the path holds and a small queue, whatever its rate and round trip."""

from collections import deque

import pytest

from teleport.wire.credits import CEILING_BYTES, FIRST_BYTES, FLOOR_BYTES, QUEUE_SECONDS, CreditWindow

FRAME_BYTES = 128 << 10
STEP_SECONDS = 0.001


def carry(window: CreditWindow, *, rate: float, round_trip: float, seconds: float, start: float = 0.0) -> tuple[float, float]:
    """Sends as fast as the window lets it over a path of `rate` bytes/s; returns the rate reached in the second half, and the end."""
    now, sent, bucket = start, window._sent_bytes, 0.0
    base = sent
    left = window._acknowledged_bytes
    queue: deque[int] = deque(range(left + FRAME_BYTES, sent, FRAME_BYTES))  # what an earlier call left on its way
    queue.extend([sent] if sent > left else [])
    acks: deque[tuple[float, int]] = deque()
    half = base
    while now < start + seconds:
        while (room := window.room_bytes()) > 0:
            count = min(room, FRAME_BYTES)
            window.sent(count, now)
            sent += count
            queue.append(sent)
        bucket = min(bucket + rate * STEP_SECONDS, rate * 0.01 + FRAME_BYTES)
        previous = window._acknowledged_bytes if not acks else acks[-1][1]
        while queue and queue[0] - previous <= bucket:
            bucket -= queue[0] - previous
            previous = queue.popleft()
            acks.append((now + round_trip, previous))
        while acks and acks[0][0] <= now:
            window.acknowledged(acks.popleft()[1], now)
        if now < start + seconds / 2:
            half = window._acknowledged_bytes
        now += STEP_SECONDS
    return (window._acknowledged_bytes - half) / (seconds / 2), now


@pytest.mark.parametrize(
    ("rate", "round_trip"),
    [(12.5e6, 0.001), (125e6, 0.001), (125e6, 0.02), (125e6, 0.08), (50e6, 0.1), (1.2e9, 0.0005)],
)
def test_the_path_is_filled_and_little_waits(rate: float, round_trip: float) -> None:
    window = CreditWindow()
    reached, _ = carry(window, rate=rate, round_trip=round_trip, seconds=6.0)
    wanted = min(CEILING_BYTES, rate * round_trip + rate * QUEUE_SECONDS)
    assert reached >= 0.85 * min(rate, CEILING_BYTES / round_trip)
    assert window.bytes <= max(FLOOR_BYTES, 2.0 * wanted + 2 * FRAME_BYTES)


def test_a_path_that_gets_slower_gets_a_smaller_window() -> None:
    window = CreditWindow()
    _, now = carry(window, rate=400e6, round_trip=0.001, seconds=4.0)
    wide = window.bytes
    carry(window, rate=20e6, round_trip=0.001, seconds=4.0, start=now)
    assert window.bytes < wide / 4


def test_a_sender_with_little_to_say_learns_nothing() -> None:
    window = CreditWindow()
    now = 0.0
    for _ in range(100):
        window.sent(1000, now)
        window.acknowledged(window._sent_bytes, now + 0.001)
        now += 0.05
    assert window.bytes == FIRST_BYTES


def test_without_acknowledgement_nothing_more_than_the_window_is_sent() -> None:
    window = CreditWindow(first_bytes=1000)
    window.sent(1000, 0.0)
    assert window.room_bytes() == 0
    window.acknowledged(400, 0.1)
    assert window.room_bytes() == 400
    window.acknowledged(300, 0.2)  # older news
    assert window.in_flight_bytes == 600


def test_more_than_was_sent_cannot_be_acknowledged() -> None:
    window = CreditWindow()
    window.sent(10, 0.0)
    with pytest.raises(ValueError, match="more than was sent"):
        window.acknowledged(11, 0.1)


def test_a_sender_waits_for_room_that_is_worth_a_message() -> None:
    window = CreditWindow(first_bytes=4 << 20)
    window.sent((4 << 20) - 1000, 0.0)
    assert window.room_bytes() == 1000
    assert not window.holds_back
    assert window.room_bytes(worth_bytes=1 << 20) == 0
    assert window.holds_back
    window.acknowledged(1 << 20, 0.01)
    assert window.room_bytes(worth_bytes=1 << 20) == (1 << 20) + 1000
    assert not window.holds_back


def test_of_a_small_window_half_is_worth_it() -> None:
    window = CreditWindow(first_bytes=1 << 20)
    window.sent(600 << 10, 0.0)
    assert window.room_bytes(worth_bytes=1 << 20) == 0
    window.acknowledged(100 << 10, 0.01)
    assert window.room_bytes(worth_bytes=1 << 20) == 524 << 10
