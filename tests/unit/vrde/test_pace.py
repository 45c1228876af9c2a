import pytest

from teleport.vrde.pace import STILL_SECONDS, Pacer, Quality
from teleport.vrde.rfb import Encoding, Rectangle

FORMAT_32 = bytes((32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0))
FORMAT_16 = bytes((16, 16, 0, 1, 0, 31, 0, 63, 0, 31, 11, 5, 0, 0, 0, 0))
PIXELS = bytes(range(256))  # 8x8 pixels


def square(x: int = 0, encoding: int = Encoding.RAW) -> Rectangle:
    return Rectangle(x, 0, 8, 8, encoding, PIXELS)


def test_quality_spans_frames_and_colours():
    assert Quality.of(100) == Quality(30, 8)
    assert Quality.of(10) == Quality(6, 3)
    assert Quality.of(55).frames_per_second == pytest.approx(18)


def test_updates_wait_for_the_frame_cap_and_are_asked_for_before():
    pacer = Pacer(Quality(5, 8))
    assert pacer.seconds_until_update(5.0) == 0
    pacer.update_began(5.0)
    assert pacer.seconds_until_update(5.04) == pytest.approx(0.16)
    assert pacer.seconds_until_request(5.04) == pytest.approx(0.06)
    assert pacer.seconds_until_request(5.2) == pacer.seconds_until_update(5.2) == 0
    assert not pacer.asks_ahead
    assert Pacer(Quality.of(50)).asks_ahead


def test_only_what_moves_becomes_coarse_and_is_asked_for_again_when_still():
    pacer = Pacer(Quality.of(10))
    for frame in range(4):
        assert pacer.rectangle(square(), FORMAT_32, frame * 0.1) == PIXELS
    coarse = pacer.rectangle(square(), FORMAT_32, 0.4)
    assert len(coarse) == len(PIXELS)
    assert len(set(coarse)) == 8  # three bits
    assert {0, 255} <= set(coarse)
    assert pacer.rectangle(square(encoding=Encoding.CURSOR), FORMAT_32, 0.4) == PIXELS
    assert pacer.rectangle(square(640), FORMAT_32, 0.5) == PIXELS  # elsewhere nothing moved
    assert pacer.still(0.5) is None
    assert pacer.has_coarse
    assert pacer.still(0.4 + STILL_SECONDS) == (0, 0, 64, 64)
    assert pacer.still(9.0) is None
    assert not pacer.has_coarse
    assert pacer.rectangle(square(), FORMAT_32, 2.0) == PIXELS  # the sharp picture itself is not coarsened again


def test_slow_changes_and_sixteen_bits_stay_exact():
    pacer = Pacer(Quality.of(10))
    for frame in range(12):
        assert pacer.rectangle(square(), FORMAT_32, frame * 1.0) == PIXELS
    for frame in range(12):
        assert pacer.rectangle(square(), FORMAT_16, 100 + frame * 0.1) == PIXELS
