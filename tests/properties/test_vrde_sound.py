"""A viewer's sound, and QEMU's (see `vrde_streams`)."""

import contextlib
import struct

from hypothesis import given
from hypothesis import strategies as st

from teleport.vrde import companion, rfb
from teleport.vrde.rdp.pdu import RdpError
from teleport.vrde.rdp.sound import BLOCK_BYTES, Sound
from teleport.vrde.rfb import RfbError
from tests.properties.vrde_streams import sizes

FORMAT = bytes((32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0))
sound_pdus = st.lists(
    st.one_of(
        st.binary(max_size=60),
        st.builds(lambda kind, body: struct.pack("<BBH", kind, 0, len(body)) + body, st.integers(0, 9), st.binary(max_size=80)),
        st.builds(
            lambda count, rest: struct.pack("<BBH", 7, 0, 0) + bytes(14) + struct.pack("<HBHB", count, 0, 6, 0) + rest,
            st.integers(0, 65535), st.binary(max_size=120),
        ),
    ),
    max_size=8,
)  # fmt: skip


@given(sound_pdus, st.lists(st.integers(0, 3 * BLOCK_BYTES), max_size=6))
def test_a_viewers_sound_pdus(pdus, played):
    sound = Sound()
    with contextlib.suppress(RdpError):
        for pdu in pdus:
            sound.received(pdu)
    for count in played:
        assert sum(map(len, sound.play(bytes(count), now_ms=-1))) <= count + 2 * BLOCK_BYTES
        assert len(sound._held) < BLOCK_BYTES
    sound.finish(now_ms=1 << 40)


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.builds(lambda what, size: struct.pack(">BBHI", 255, 1, what, size), st.integers(0, 4), sizes),
            st.builds(lambda count, rest: struct.pack(">BxH", 0, count) + rest, st.integers(0, 65535), st.binary(max_size=60)),
        ),
        max_size=8,
    )
)
def test_sound_as_qemu_sends_it(parts):
    reader = rfb.MessageReader(companion.message(FORMAT))
    with contextlib.suppress(RfbError):
        for part in parts:
            reader.feed(part)
            assert reader._needed <= max(rfb.MOST_TEXT_BYTES, 6 * 65535, 5 * rfb.MOST_PIXELS)
