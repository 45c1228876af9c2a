"""The hand-made envelope is the protobuf message: the generated classes read it, and it reads what they write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleport.errors import ProtocolError
from teleport.wire._generated.teleport.v1 import transfer_pb2 as transfer
from teleport.wire.frames import Frame, pack, unpack

u64 = st.integers(0, 2**64 - 1)
frames = st.builds(
    Frame,
    epoch=st.text(max_size=40),
    channel=st.integers(0, 2**32 - 1),
    offset=u64,
    acknowledged=u64,
    end=st.booleans(),
    data=st.binary(max_size=400),
)


def fields(message: transfer.StreamRequest | transfer.StreamResponse) -> tuple[object, ...]:
    return (message.epoch, message.channel, message.offset, message.acknowledged, message.end, message.data)


def values(frame: Frame) -> tuple[object, ...]:
    return (frame.epoch, frame.channel, frame.offset, frame.acknowledged, frame.end, bytes(frame.data))


@given(frames)
def test_the_generated_classes_read_what_is_packed(frame: Frame) -> None:
    raw = pack(frame)
    assert fields(transfer.StreamRequest.FromString(raw)) == values(frame)
    assert fields(transfer.StreamResponse.FromString(raw)) == values(frame)


@given(frames)
def test_what_the_generated_class_writes_is_unpacked(frame: Frame) -> None:
    made = transfer.StreamRequest(
        epoch=frame.epoch,
        channel=frame.channel,
        offset=frame.offset,
        acknowledged=frame.acknowledged,
        end=frame.end,
        data=bytes(frame.data),
    )
    assert values(unpack(made.SerializeToString())) == values(frame)


@given(frames, st.sampled_from([b"\x50\x96\x01", b"\x52\x03abc", b"\x59" + bytes(8), b"\x5d" + bytes(4), b"\xa2\x06\x01x"]))
def test_fields_of_a_newer_version_are_skipped(frame: Frame, unknown: bytes) -> None:
    raw = pack(frame)
    for mixed in (unknown + raw, raw + unknown):
        assert fields(transfer.StreamRequest.FromString(mixed)) == values(frame)
        assert values(unpack(mixed)) == values(frame)


@given(st.binary(max_size=200))
def test_garbage_is_refused_in_words_or_read(raw: bytes) -> None:
    try:
        unpack(raw)
    except ProtocolError as error:
        assert error.why


@given(frames, st.data())
def test_a_message_cut_short_never_yields_more_than_was_sent(frame: Frame, data: st.DataObject) -> None:
    raw = pack(frame)
    try:
        found = unpack(raw[: data.draw(st.integers(0, len(raw)))])
    except ProtocolError:
        return
    assert bytes(found.data) in (b"", bytes(frame.data))


def test_data_is_a_slice_of_what_arrived() -> None:
    found = unpack(pack(Frame("e", data=b"x" * 1000)))
    assert isinstance(found.data, memoryview)


@pytest.mark.parametrize("raw", [b"\x0a\x05ab", b"\x0a", b"\x18" + b"\xff" * 11, b"\x0a\x02\xff\xfe", b"\x0b", b"\x5d\x00"])
def test_broken_messages(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        unpack(raw)
