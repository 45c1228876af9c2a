"""The clipboard's parsers: any bytes of a guest or a viewer end in a message or in their own error, in bounded memory."""

import contextlib
import struct

from hypothesis import given
from hypothesis import strategies as st

from teleport.vrde import vdagent
from teleport.vrde.clipboard import Clipboard
from teleport.vrde.rdp.clipboard import ClipboardChannel, format_list
from teleport.vrde.rdp.pdu import RdpError
from teleport.vrde.rdp.side_door import Assembly, Chunk
from teleport.vrde.vdagent import AgentError, Dialect, Kind, Message, Messages

DIALECTS = st.builds(Dialect, selections=st.booleans(), line_end=st.sampled_from(["\n", "\r\n"]), has_limit=st.booleans())
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=3000)
KNOWN = st.builds(vdagent.pack, st.sampled_from(Kind), st.binary(max_size=3000))
GUEST = st.lists(
    st.one_of(
        st.binary(max_size=60),
        KNOWN,
        st.builds(
            lambda port, kind, size, more: struct.pack("<IIIIQI", port, 20 + len(more), 1, kind, 0, size) + more,
            st.integers(0, 3), st.integers(0, 20), st.integers(0, 1 << 32 - 1), st.binary(max_size=40),
        ),
    ),
    max_size=8,
)  # fmt: skip


@given(st.lists(KNOWN, max_size=5), st.lists(st.integers(1, 4000), min_size=1, max_size=8))
def test_messages_are_the_same_however_they_are_cut(packed: list[bytes], steps: list[int]) -> None:
    data = b"".join(packed)
    reader, found, at = Messages(), [], 0
    while at < len(data):
        step = steps[at % len(steps)]
        found += reader.feed(data[at : at + step])
        at += step
    assert b"".join(vdagent.pack(each.kind, each.body) for each in found) == data


@given(DIALECTS, TEXTS)
def test_a_text_comes_through_as_it_was(dialect: Dialect, text: str) -> None:
    [message] = Messages().feed(dialect.clipboard(text))
    said = dialect.read(message)
    assert said
    assert vdagent.text_of(said.data) == text


@given(TEXTS)
def test_a_viewers_text_comes_through_as_it_was(text: str) -> None:
    sent: list[bytes] = []
    told: list[bytes] = []
    clipboard = Clipboard(told.append, inwards=True, outwards=True)
    clipboard.connected()
    clipboard.received(Message(Kind.CAPABILITIES, struct.pack("<II", 0, 1 << vdagent.Capability.BY_DEMAND)))
    channel = ClipboardChannel(clipboard, sent.append, lambda: True)
    channel.received(format_list(13))
    clipboard.received(Message(Kind.REQUEST, struct.pack("<I", vdagent.TEXT)))
    body = (text.replace("\n", "\r\n") + "\0").encode("utf-16-le")
    told.clear()
    channel.received(struct.pack("<HHI", 5, 1, len(body)) + body)
    assert b"".join(told) == Dialect().clipboard(text)

    clipboard.received(Message(Kind.GRAB, struct.pack("<I", vdagent.TEXT)))
    clipboard.received(Message(Kind.CLIPBOARD, struct.pack("<I", vdagent.TEXT) + text.encode()))
    channel.received(struct.pack("<HHII", 4, 0, 4, 13))
    assert sent[-1][8:] == body


@given(GUEST, st.lists(st.binary(max_size=120), max_size=6))
def test_garbage_ends_in_the_parsers_own_errors(guest: list[bytes], viewer: list[bytes]) -> None:
    written = 0

    def count(data: bytes) -> None:
        nonlocal written
        written += len(data)

    clipboard = Clipboard(count, inwards=True, outwards=True)
    clipboard.connected()
    channel = ClipboardChannel(clipboard, count, lambda: True)
    messages = Messages()
    for data in viewer:
        with contextlib.suppress(RdpError):
            channel.received(data)
    with contextlib.suppress(AgentError):
        for data in guest:
            for each in messages.feed(data):
                clipboard.received(each)
            assert len(messages._message) <= 30_000
    for data in viewer:
        with contextlib.suppress(RdpError):
            channel.received(data)
    assert written < 200_000


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=100)), max_size=30))
def test_a_pdu_in_pieces_never_grows_beyond_its_bound(chunks: list[tuple[int, bytes]]) -> None:
    assembly = Assembly(250)
    for flags, data in chunks:
        whole = assembly.feed(Chunk(1, flags, 0, data))
        assert len(assembly._parts) <= 250
        assert whole is None or len(whole) <= 250
