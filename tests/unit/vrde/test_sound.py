"""The sound channel from QEMU's VNC to the viewer: each protocol on the way, byte by byte."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleport.vrde import companion, rfb
from teleport.vrde.rdp import side_door
from teleport.vrde.rdp.side_door import Assembly, Chunk, Setup
from teleport.vrde.rdp.sound import BLOCK_BYTES, MOST_UNDER_WAY, Sound
from teleport.vrde.rfb import Encoding, MessageReader, RfbError, ServerKind
from tests.unit.vrde.test_rfb import FORMAT_32

PCM_44100 = bytes.fromhex("0100 0200 44ac0000 10b10200 0400 1000 0000")
PCM_22050 = bytes.fromhex("0100 0200 22560000 88580100 0400 1000 0000")


def formats(*offered: bytes) -> bytes:
    body = struct.pack("<IIIHHBHB", 3, 0, 0, 0, len(offered), 0, 6, 0) + b"".join(offered)
    return struct.pack("<BBH", 7, 0, len(body)) + body


def ready(*offered: bytes) -> Sound:
    sound = Sound()
    (offer,) = sound.begin()
    assert offer[:1] == b"\7" and offer.endswith(PCM_44100)
    (training,) = sound.received(formats(*offered))
    assert training == bytes.fromhex("06000400 00000000")
    assert sound.play(bytes(BLOCK_BYTES), now_ms=0) == []  # not before it is confirmed
    assert sound.received(bytes.fromhex("06000400 00000000")) == []
    assert sound.ready
    return sound


def test_waves_carry_the_viewers_number_of_our_format():
    sound = ready(PCM_22050, PCM_44100)
    samples = bytes(range(256)) * (BLOCK_BYTES // 256)
    assert sound.play(samples[:100], now_ms=1) == []
    info, wave = sound.play(samples[100:] + b"next", now_ms=0x12345)
    assert info == struct.pack("<BBHHHB3x", 2, 0, 8 + BLOCK_BYTES, 0x2345, 1, 0) + samples[:4]
    assert wave == bytes(4) + samples[4:]
    info, wave, close = sound.finish(now_ms=0)
    assert info[-4:] == b"next" and info[8] == 1 and wave == bytes(4)
    assert close == bytes.fromhex("01000000")
    assert sound.finish(now_ms=0) == [close]


def test_what_the_viewer_does_not_take_is_left_out():
    sound = ready(PCM_44100)
    sent = sum(len(sound.play(bytes(BLOCK_BYTES), now_ms=0)) for _ in range(300)) // 2
    assert sent == MOST_UNDER_WAY
    confirm = bytes.fromhex("05000400 0000") + bytes((sent - 1, 0))
    sound.received(confirm)
    assert sound.play(bytes(BLOCK_BYTES), now_ms=0)[0][8] == sent  # the next number, without a gap


def test_a_viewer_that_cannot_play_our_format_gets_nothing():
    sound = Sound()
    assert sound.received(formats(PCM_22050)) == []
    sound.received(bytes.fromhex("06000400 00000000"))
    assert not sound.ready
    assert sound.play(bytes(BLOCK_BYTES), now_ms=0) == sound.finish(now_ms=0) == []


@given(st.binary(min_size=1, max_size=5000))
def test_pdus_survive_the_side_door(pdu):
    packed = side_door.pack(5, pdu)
    # what goes to the viewer has the same form as what comes from it, but for the kind
    assembly, at, whole = Assembly(), 0, None
    while at < len(packed):
        version, length, kind, size, channel, flags, count, total = struct.unpack_from("<IIIIHHHI", packed, at)
        assert (version, kind, size, channel, total) == (0, 8, length - 8, 5, len(pdu))
        as_data = packed[at : at + 8] + b"\5" + packed[at + 9 : at + length]
        ((chunk,),) = MessageReader(side_door.block).feed(as_data)
        assert isinstance(chunk, Chunk) and len(chunk.data) == count and chunk.flags == flags
        assert whole is None
        whole = assembly.feed(chunk)
        at += length
    assert whole == pdu


def test_the_side_doors_setup_names_the_channels():
    body = struct.pack("<H8sHH8sHH", 2, b"RDPSND", 1, 0, b"cliprdr", 2, 0)
    data = struct.pack("<IIII", 0, 16 + len(body), 3, 8 + len(body)) + body
    assert MessageReader(side_door.block).feed(data) == [[Setup({"rdpsnd": 1, "cliprdr": 2})]]


def test_the_companion_reads_what_qemu_sends():
    messages = MessageReader(companion.message(FORMAT_32))
    acknowledged = struct.pack(">BxH4Hi", 0, 1, 0, 0, 640, 480, Encoding.QEMU_AUDIO)
    samples = struct.pack(">BBHI", 255, 1, 2, 4) + b"\1\2\3\4"
    text = struct.pack(">B3xi", 3, -8) + bytes(8)
    data = acknowledged + b"\xff\1\0\1" + samples + b"\2" + text + b"\xff\1\0\0"
    read = [each for at in range(len(data)) for each in messages.feed(data[at : at + 1])]  # also byte by byte
    assert read[0].encodings == (Encoding.QEMU_AUDIO,)
    assert [each.kind for each in read[1:]] == [
        ServerKind.QEMU, ServerKind.QEMU, ServerKind.BELL, ServerKind.CUT_TEXT, ServerKind.QEMU,
    ]  # fmt: skip
    assert read[2].data == samples


@pytest.mark.parametrize("data", [b"\7", b"\xff\2\0\0", b"\xff\1\0\2\xff\xff\xff\xff"])
def test_the_companion_refuses_what_it_cannot_measure(data):
    with pytest.raises(RfbError):
        MessageReader(companion.message(rfb.ServerInit(1, 1, FORMAT_32).pixel_format)).feed(data)
