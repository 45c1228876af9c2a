"""An RDP stream, and whole sessions at xrdp's side door (see `vrde_streams`)."""

import asyncio
import struct

from hypothesis import example, given
from hypothesis import strategies as st

from teleport.vrde.clipboard_link import ClipboardLink
from teleport.vrde.endpoint import UnixEndpoint
from teleport.vrde.gates import Gates
from teleport.vrde.microphone import Microphone
from teleport.vrde.rdp import channels
from teleport.vrde.rdp.link import read_pdu
from teleport.vrde.relay import Relay
from tests.properties.vrde_streams import fed, served, sizes


@given(st.binary(max_size=200))
@example(b"\x03\0\xff\xff" + bytes(100))
def test_pdus_out_of_a_stream(data):
    for each in fed(read_pdu, data):
        assert isinstance(each, bytes)
        assert len(each) <= 0xFFFF


blocks = st.one_of(
    st.binary(max_size=60),
    st.builds(lambda length, rest: struct.pack("<II", 0, length) + rest, sizes, st.binary(max_size=40)),
    st.builds(
        lambda channel, flags, whole, data: struct.pack(
            "<IIIIHHHI", 0, 26 + len(data), 5, 18 + len(data), channel, flags, len(data), whole
        )
        + data,
        st.integers(0, 3), st.integers(0, 3), sizes, st.binary(max_size=100),
    ),
    st.builds(
        lambda kind, numbers, data: struct.pack("<IIII", 0, 16 + len(data) + 4 * len(numbers), kind, 8 + len(data) + 4 * len(numbers))
        + struct.pack(f"<{len(numbers)}I", *numbers)
        + data,
        st.sampled_from([13, 15, 17, 19]), st.lists(st.one_of(st.integers(0, 2), sizes), max_size=3), st.binary(max_size=60),
    ),
)  # fmt: skip
SETUP_BODY = struct.pack("<H8sHH8sHH8sHH", 3, b"rdpsnd", 1, 0, b"cliprdr", 2, 0, b"drdynvc", 3, 0)
SETUP = struct.pack("<IIII", 0, 16 + len(SETUP_BODY), 3, 8 + len(SETUP_BODY)) + SETUP_BODY


@given(st.booleans(), st.lists(blocks, max_size=8))
@example(True, [struct.pack("<II", 0, 0xFFFFFFFF)])
def test_a_session_at_the_side_door(begins_well, parts):
    """It ends, and the clipboard of the other viewers is as before."""
    link = ClipboardLink(None, Gates())
    heard = []

    class Other:
        def offer(self, text):
            heard.append(text)

        def ask(self):
            link.clipboard.pasted(self, "of the other")

    other = Other()
    link.clipboard.joined(other)
    relay = Relay(endpoint=UnixEndpoint("/nowhere"), name="S", gates=Gates())
    microphone = Microphone(None, allowed=True)
    microphone._guest_records(now=True)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await channels.serve(relay, link, microphone, reader, writer)

    told = served(serve, [SETUP, *parts] if begins_well else parts)
    assert len(told) < 100_000
    assert not microphone._speakers
    assert link.clipboard._viewers == [other]
    link.clipboard.copied(other, has_text=True)
    assert link.clipboard._owner is other
