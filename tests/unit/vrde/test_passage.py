import struct

import pytest

from teleport.vrde import rfb
from teleport.vrde.passage import Passage
from teleport.vrde.rfb import Encoding, MessageReader, Rectangle, RfbError, ServerKind
from tests.fakes.rfb_server import ServerMessage, server_message

FORMAT_32 = bytes((32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0))
FORMAT_16 = bytes((16, 16, 0, 1, 0, 31, 0, 63, 0, 31, 11, 5, 0, 0, 0, 0))

UPDATE = ServerMessage(
    ServerKind.UPDATE,
    rectangles=(
        Rectangle(0, 0, 2, 2, Encoding.RAW, bytes(range(16))),
        Rectangle(1, 2, 3, 4, Encoding.COPY_RECT, b"abcd"),
        Rectangle(0, 0, 9, 1, Encoding.CURSOR, b"p" * 36 + b"mm"),
        Rectangle(0, 0, 800, 600, Encoding.DESKTOP_SIZE),
        Rectangle(0, 0, 0, 0, Encoding.QEMU_EXTENDED_KEY),
    ),
)
OTHERS = (
    ServerMessage(ServerKind.BELL, b"\2"),
    ServerMessage(ServerKind.CUT_TEXT, b"\3\0\0\0\0\0\0\2hi"),
    ServerMessage(ServerKind.CUT_TEXT, b"\3\0\0\0" + struct.pack(">i", -4) + b"\0\0\0\1"),
    ServerMessage(ServerKind.COLOUR_MAP, b"\1\0\0\0\0\1" + bytes(6)),
    ServerMessage(ServerKind.QEMU, b"\xff\1\0\1"),
    ServerMessage(ServerKind.QEMU, b"\xff\1\0\2\0\0\0\4wave"),
)
EMPTY = ServerMessage(ServerKind.UPDATE)
STREAM = b"".join(each.pack() for each in (UPDATE, *OTHERS, EMPTY, UPDATE))


def parts(data: bytes, step: int) -> list[bytes]:
    return [data[at : at + step] for at in range(0, len(data), step)]


def read(data: bytes, pixel_format: bytes = FORMAT_32) -> list[ServerMessage]:
    reader = MessageReader(server_message(pixel_format))
    messages = reader.feed(data)
    assert not reader._buffer
    return messages


@pytest.mark.parametrize("step", [1, 5, 17, len(STREAM)])
def test_all_passes_as_it_came_and_ends_are_known(step):
    passage = Passage(FORMAT_32)
    pieces = [piece for part in parts(STREAM, step) for piece in passage.feed(part)]
    assert b"".join(piece.data for piece in pieces) == STREAM
    assert sum(piece.ends for piece in pieces) == len(read(STREAM)) == 9
    assert sum(piece.begins_update for piece in pieces) == 3
    assert [piece.size for piece in pieces if piece.size] == [(800, 600)] * 2
    assert passage.completion() == b""


def test_pixels_go_on_as_they_arrive():
    passage = Passage(FORMAT_32)
    head = b"\0\0\0\1" + Rectangle(0, 0, 100, 100, Encoding.RAW).pack()
    assert b"".join(piece.data for piece in passage.feed(head + b"x" * 100)) == head + b"x" * 100
    assert [piece.data for piece in passage.feed(b"y" * 7)] == [b"y" * 7]


@pytest.mark.parametrize("held", [False, True])
def test_the_message_under_way_can_be_ended_at_any_moment(held):
    for cut in range(len(STREAM) + 1):
        passage = Passage(FORMAT_32)
        passage.transform = (lambda r: r.data) if held else None
        passed = b"".join(piece.data for piece in passage.feed(STREAM[:cut]))
        messages = read(passed + passage.completion())
        assert [m.kind for m in messages] == [m.kind for m in read(STREAM)][: len(messages)]
        assert passage.completion() == b""


def test_rectangles_are_transformed_whole_and_other_messages_gated():
    passage = Passage(FORMAT_32)
    passage.transform = lambda r: bytes(len(r.data))
    passage.allows = lambda kind: kind not in (ServerKind.CUT_TEXT, ServerKind.QEMU)
    passed = b"".join(piece.data for part in parts(STREAM, 3) for piece in passage.feed(part))
    messages = read(passed)
    assert [m.kind for m in messages] == [ServerKind(k) for k in (0, 2, 1, 0, 0)]
    assert not any(r.data.strip(b"\0") for m in messages for r in m.rectangles)
    assert [r.pack() for r in messages[0].rectangles] == [r.pack() for r in UPDATE.rectangles]


@pytest.mark.parametrize(
    "data",
    [
        b"\4",
        b"\xff\2\0\0",
        b"\3\0\0\0\x7f\xff\xff\xff",
        b"\xff\1\0\2\x7f\xff\xff\xff",
        b"\0\0\0\1" + struct.pack(">4Hi", 0, 0, 1, 1, 7),
        b"\0\0\0\1" + struct.pack(">4Hi", 0, 0, 65535, 65535, 0),
    ],
)
def test_a_servers_nonsense_ends_it(data):
    with pytest.raises(RfbError):
        list(Passage(FORMAT_32).feed(data))


def test_pixels_of_16_bits_are_measured_by_the_viewers_format():
    data = b"\0\0\0\1" + struct.pack(">4Hi", 0, 0, 2, 2, 0) + bytes(8)
    assert list(Passage(FORMAT_16).feed(data))[-1].ends
    assert not list(Passage(FORMAT_32).feed(data))[-1].ends


def test_a_size_of_ones_own():
    (message,) = read(rfb.resize(640, 480))
    assert message.rectangles == (Rectangle(0, 0, 640, 480, Encoding.DESKTOP_SIZE),)
