"""A viewer's microphone, and the SPICE server that it speaks to (see `vrde_streams`)."""

import contextlib
import struct

from hypothesis import given
from hypothesis import strategies as st

from teleport.vrde import rfb, spice
from teleport.vrde.rdp.audio_input import OUT_RATE_HZ, AudioInput
from teleport.vrde.rdp.pdu import RdpError
from tests.properties.vrde_streams import sizes

input_formats = st.builds(
    lambda rate, more: struct.pack("<HHIIHHH", 1, 2, rate, 4 * rate, 4, 16, len(more)) + more,
    st.sampled_from([44100, 48000, 8000]), st.binary(max_size=9),
)  # fmt: skip
input_pdus = st.lists(
    st.one_of(
        st.binary(max_size=60),
        st.builds(lambda kind, body: bytes((kind,)) + body, st.integers(0, 9), st.binary(max_size=80)),
        st.builds(lambda given: struct.pack("<BII", 2, len(given), 0) + b"".join(given), st.lists(input_formats, max_size=4)),
        st.builds(lambda number: struct.pack("<BI", 7, number), st.integers(0, 3)),
    ),
    max_size=10,
)


@given(input_pdus)
def test_a_viewers_microphone_pdus(pdus):
    microphone = AudioInput()
    with contextlib.suppress(RdpError):
        for pdu in pdus:
            assert sum(map(len, microphone.received(pdu))) < 100
            assert len(microphone.taken()) <= len(pdu) * OUT_RATE_HZ / 44100 + 8


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.builds(
                lambda kind, body: struct.pack("<HI", kind, len(body)) + body,
                st.sampled_from([3, 4, 101, 102, 103]), st.binary(max_size=20),
            ),
            st.builds(lambda kind, size: struct.pack("<HI", kind, size), st.integers(0, 200), sizes),
        ),
        max_size=8,
    )
)  # fmt: skip
def test_what_a_spice_server_sends(parts):
    reader, manners = rfb.MessageReader(spice.message), spice.Manners()
    with contextlib.suppress(spice.SpiceError):
        for part in parts:
            for each in reader.feed(part):
                assert len(manners.answer(each)) <= 30
                spice.begin(each)
            assert reader._needed <= spice.MOST_MESSAGE_BYTES


@given(st.binary(max_size=40), st.binary(max_size=300))
def test_links_with_a_spice_server(head, reply):
    for each in (head.ljust(16, b"\0")[:16], b"REDQ\2\0\0\0" + head.ljust(8, b"\0")[:8]):
        with contextlib.suppress(spice.SpiceError):
            assert spice.reply_bytes(each) < 5000
    with contextlib.suppress(spice.SpiceError):
        spice.ticket(bytes(4) + reply.ljust(162, b"\0"))
