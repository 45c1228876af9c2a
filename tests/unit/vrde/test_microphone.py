"""What a viewer says, from its channel to QEMU's SPICE: each protocol on the way, then all of it."""

import asyncio
import contextlib
import math
import struct
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path

import pytest

from teleport.vrde import spice
from teleport.vrde.endpoint import TunnelEndpoint, UnixEndpoint
from teleport.vrde.microphone import MOST_HELD_PIECES, Held, Microphone
from teleport.vrde.rdp import side_door
from teleport.vrde.rdp.audio_input import FRAME_BYTES, AudioInput, Resampler
from teleport.vrde.rdp.microphone_channel import NUMBER, MicrophoneChannel
from teleport.vrde.rdp.pdu import RdpError
from teleport.vrde.rdp.side_door import Closed, DynamicAssembly, Opened, Piece
from teleport.vrde.rfb import MessageReader
from teleport.vrde.spice import PIECE_BYTES, Channel, Kind, Manners, Message, SpiceError
from tests.fakes.spice_server import SpiceServer

PCM_48000 = bytes.fromhex("0100 0200 80bb0000 00ee0200 0400 1000 0000")
PCM_44100 = bytes.fromhex("0100 0200 44ac0000 10b10200 0400 1000 0000")
VERSION = bytes.fromhex("0101000000")
INCOMING = b"\5"


def formats(*offered: bytes) -> bytes:
    return struct.pack("<BII", 2, len(offered), 0) + b"".join(offered)


def opened(*offered: bytes) -> AudioInput:
    audio = AudioInput()
    assert audio.begin() == [VERSION]
    assert audio.received(VERSION) == [formats(PCM_48000, PCM_44100)]
    assert audio.received(INCOMING) == []
    assert audio.received(formats(*offered)) == [struct.pack("<BII", 3, 512, 0) + offered[0]]
    assert audio.received(b"\7" + bytes(4)) == audio.received(b"\4" + bytes(4)) == []
    return audio


# ---------------------------------------------------------------------- the viewer's side: MS-RDPEAI, xrdp's side door


def test_samples_of_the_guests_rate_come_out_as_they_are() -> None:
    audio = opened(PCM_48000, PCM_44100)
    audio.received(INCOMING)
    audio.received(b"\6" + b"abcdefghij")  # two frames and a half
    assert audio.taken() == b"abcdefgh"
    assert audio.taken() == b""
    assert not audio.is_refused


def test_another_rate_is_resampled_and_may_change_while_it_is_open() -> None:
    audio = opened(PCM_44100, PCM_48000)
    audio.received(b"\6" + bytes(441 * FRAME_BYTES))
    assert len(audio.taken()) // FRAME_BYTES in (478, 479, 480)
    audio.received(b"\7" + b"\1\0\0\0")
    audio.received(b"\6" + b"abcd")
    assert audio.taken() == b"abcd"


@pytest.mark.parametrize("frames", [1, 7, 441, 44100])
def test_a_tone_survives_the_resampler_in_pieces_of_any_length(frames: int) -> None:
    tone = [int(10000 * math.sin(2 * math.pi * 440 * at / 44100)) for at in range(44100)]
    samples = b"".join(struct.pack("<hh", each, -each) for each in tone)
    resampler = Resampler(44100, 48000)
    step = frames * FRAME_BYTES
    made = b"".join(resampler.feed(samples[at : at + step]) for at in range(0, len(samples), step))
    values = struct.unpack(f"<{len(made) // 2}h", made)
    left = values[::2]
    assert abs(len(left) - 48000) <= 2
    assert sum((a < 0) != (b < 0) for a, b in pairwise(left)) in (879, 880)
    assert max(abs(a - b) for a, b in pairwise(left)) < 10000 * 2 * math.pi * 440 / 48000 * 1.2  # no seam
    assert all(abs(a + b) <= 1 for a, b in zip(left, values[1::2], strict=True))


def test_a_viewer_without_a_microphone_is_no_error() -> None:
    for refusing in (formats(), b"\4" + b"\5\x40\0\x80"):
        audio = AudioInput()
        assert audio.received(refusing) == []
        assert audio.is_refused


@pytest.mark.parametrize(
    "pdu",
    [
        b"",
        b"\2\1",
        b"\2" + b"\xff" * 8,
        formats(PCM_48000)[:-1],
        formats(PCM_48000.replace(b"\2\0", b"\1\0", 1)),
        b"\7\1\0\0\0",
        b"\4",
    ],
)
def test_what_the_viewer_may_not_say(pdu: bytes) -> None:
    with pytest.raises(RdpError):
        AudioInput().received(pdu)


def from_xrdp(kind: int, body: bytes) -> bytes:
    return struct.pack("<IIII", 0, 16 + len(body), kind, 8 + len(body)) + body


def test_dynamic_channels_at_the_side_door() -> None:
    data = b"".join(
        (
            from_xrdp(13, struct.pack("<Ii", 1, 0)),
            from_xrdp(13, struct.pack("<Ii", 1, -1)),
            from_xrdp(15, struct.pack("<I", 1)),
            from_xrdp(17, struct.pack("<III", 1, 2, 5) + b"ab"),
            from_xrdp(19, struct.pack("<II", 1, 3) + b"cde"),
            from_xrdp(19, struct.pack("<II", 1, 1) + b"x"),
        )
    )
    messages = [each for block in MessageReader(side_door.block).feed(data) for each in block]
    assert messages == [
        Opened(1, True), Opened(1, False), Closed(1), Piece(1, 5, b"ab"), Piece(1, 0, b"cde"), Piece(1, 0, b"x"),
    ]  # fmt: skip
    assembly = DynamicAssembly()
    assert [assembly.feed(each) for each in messages if isinstance(each, Piece)] == [None, b"abcde", b"x"]
    assert side_door.open_dynamic(1, "AUDIO_INPUT") == from_xrdp(12, struct.pack("<I11sII", 11, b"AUDIO_INPUT", 1, 1))
    assert side_door.close_dynamic(1) == from_xrdp(14, struct.pack("<I", 1))
    assert side_door.pack_dynamic(1, b"abc") == from_xrdp(18, struct.pack("<II3s", 1, 3, b"abc"))


@pytest.mark.parametrize("message", [(13, b"\1"), (15, b""), (17, bytes(8)), (19, struct.pack("<II", 1, 9) + b"x")])
def test_dynamic_channels_that_lie(message: tuple[int, bytes]) -> None:
    with pytest.raises(RdpError):
        MessageReader(side_door.block).feed(from_xrdp(*message))
    with pytest.raises(RdpError):
        DynamicAssembly().feed(Piece(1, 1 << 20, b""))


class Listening(Microphone):
    """A guest that records, or not, as a test says; what it hears is in `heard`."""

    def __init__(self) -> None:
        super().__init__(None, allowed=True)
        self.heard: list[tuple[object, bytes]] = []

    def spoke(self, speaker: object, samples: bytes) -> None:
        if speaker is self._heard:
            self.heard.append((speaker, samples))


def viewer(microphone: Microphone) -> tuple[MicrophoneChannel, list[bytes]]:
    sent: list[bytes] = []
    channel = MicrophoneChannel(microphone, sent.append)
    channel.begin()
    return channel, sent


OPEN, CLOSE = side_door.open_dynamic(NUMBER, "AUDIO_INPUT"), side_door.close_dynamic(NUMBER)


def test_the_channel_is_open_while_the_guest_records() -> None:
    microphone = Listening()
    channel, sent = viewer(microphone)
    assert sent == []
    microphone._guest_records(now=True)
    assert sent == [OPEN]
    channel.take(Opened(NUMBER, True))
    assert sent.pop() == side_door.pack_dynamic(NUMBER, VERSION)
    for pdu in (VERSION, formats(PCM_48000), b"\4" + bytes(4), b"\6" + b"abcd"):
        channel.take(Piece(NUMBER, 0, pdu))
    assert microphone.heard == [(channel, b"abcd")]
    microphone._guest_records(now=False)
    assert sent[-1] == CLOSE
    microphone._guest_records(now=True)  # before the viewer has answered
    assert sent[-1] == CLOSE
    channel.take(Closed(NUMBER))
    assert sent[-1] == OPEN
    microphone.allow(allowed=False)
    assert sent[-1] == OPEN
    channel.take(Opened(NUMBER, True))
    assert sent[-1] == CLOSE
    channel.take(Closed(NUMBER))
    microphone.allow(allowed=True)
    assert sent[-1] == OPEN


def test_the_first_viewer_who_has_a_microphone_is_listened_to() -> None:
    microphone = Listening()
    microphone._guest_records(now=True)
    (first, to_first), (second, to_second), (third, to_third) = (viewer(microphone) for _ in range(3))
    assert (to_first, to_second, to_third) == ([OPEN], [], [])
    first.take(Opened(NUMBER, False))  # it has none
    assert to_second == [OPEN]
    second.take(Opened(NUMBER, True))
    second.take(Piece(NUMBER, 0, formats()))  # none that we could take
    assert to_second[-1] == CLOSE
    assert to_third == [OPEN]
    third.take(Opened(NUMBER, True))
    third.take(Closed(NUMBER))  # it has had enough
    assert to_third[-1] != OPEN
    for each in (first, second, third):
        each.end()
    assert microphone._speakers == []


# ---------------------------------------------------------------------- the guest's side: SPICE


def test_what_a_client_owes_the_server() -> None:
    manners = Manners()
    assert manners.answer(Message(Kind.SET_ACK, struct.pack("<II", 9, 2))) == bytes.fromhex("0100 04000000 09000000")
    assert manners.answer(Message(Kind.PING, b"0123456789ab" + bytes(9))) == bytes.fromhex("0300 0c000000") + b"0123456789ab"
    assert manners.answer(Message(300, b"")) == bytes.fromhex("0200 00000000")
    assert manners.answer(Message(300, b"")) == b""


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: spice.reply_bytes(b"HTTP/1.1 400 Bad"),
        lambda: spice.reply_bytes(struct.pack("<4sIII", b"REDQ", 2, 2, 1 << 20)),
        lambda: spice.ticket(struct.pack("<I", 5) + bytes(200)),
        lambda: spice.ticket(bytes(200)),
        lambda: spice.check_result(b"\7\0\0\0"),
        lambda: MessageReader(spice.message).feed(struct.pack("<HI", 101, 1 << 30)),
        lambda: Manners().answer(Message(Kind.SET_ACK, b"")),
        lambda: spice.begin(Message(Kind.RECORD_START, struct.pack("<IHI", 2, 1, 44100))),
    ],
)
def test_a_server_that_is_none(wrong: Callable[[], object]) -> None:
    with pytest.raises(SpiceError):
        wrong()


def test_what_waits_is_bounded_and_begins_once_there_is_some() -> None:
    held = Held()
    held.add(bytes(PIECE_BYTES))
    assert held.piece() is None
    held.add(bytes(4 * PIECE_BYTES))
    assert [len(held.piece() or b"") for _ in range(6)] == [PIECE_BYTES] * 5 + [0]
    held.add(bytes(PIECE_BYTES))
    assert held.piece() is None
    for number in range(3 * MOST_HELD_PIECES):
        held.add(bytes([number]) * PIECE_BYTES)
    pieces = [each[0] for each in iter(held.piece, None)]
    assert len(pieces) <= MOST_HELD_PIECES
    assert pieces[-1] == 3 * MOST_HELD_PIECES - 1
    assert pieces == list(range(pieces[0], pieces[-1] + 1))


class Speaking:
    """A Speaker."""

    def __init__(self) -> None:
        self.wanted: asyncio.Queue[bool] = asyncio.Queue()

    def listen(self, *, wanted: bool) -> None:
        self.wanted.put_nowait(wanted)


@contextlib.asynccontextmanager
async def running(*microphones: Microphone):
    tasks = [asyncio.create_task(each.run()) for each in microphones]
    try:
        yield
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def inside(body: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 20))


def test_a_viewer_is_heard_by_the_guest_that_records(tmp_path: Path) -> None:
    async def body() -> None:
        qemu, viewer = SpiceServer(), Speaking()
        microphone = Microphone(UnixEndpoint(f"{tmp_path}/spice"), allowed=True)
        async with await asyncio.start_unix_server(qemu.serve, tmp_path / "spice"), running(microphone):
            microphone.joined(viewer)
            await qemu.linked.wait()
            assert qemu.channels == [Channel.MAIN, Channel.RECORD]
            qemu.pings()
            assert (await qemu.said.get())[0] == 3
            qemu.records()
            assert await viewer.wanted.get()
            assert [await qemu.said.get() for _ in range(2)] == [(102, struct.pack("<IH", 0, 1)), (103, bytes(4))]
            said = b"".join(struct.pack("<I", number) for number in range(6 * 512))
            for at in range(0, len(said), 100):
                microphone.spoke(viewer, said[at : at + 100])
            assert b"".join([await qemu.heard.get() for _ in range(6)]) == said
            qemu.ceases()
            assert not await viewer.wanted.get()
            microphone.spoke(viewer, said)
            qemu.records()
            assert await viewer.wanted.get()
            assert qemu.heard.empty()  # nor is it heard later
            microphone.allow(allowed=False)
            assert not await viewer.wanted.get()
            microphone.allow(allowed=True)
            assert await viewer.wanted.get()

            elsewhere = SpiceServer()
            async with await asyncio.start_unix_server(elsewhere.serve, tmp_path / "there"):
                microphone.retarget(UnixEndpoint(f"{tmp_path}/there"))
                assert not await viewer.wanted.get()
                await elsewhere.linked.wait()
                elsewhere.records()
                assert await viewer.wanted.get()
                microphone.retarget(None)
                assert not await viewer.wanted.get()

    inside(body)


def test_viewers_of_another_host_are_heard_through_this_ones_front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        qemu, viewer = SpiceServer(), Speaking()
        far = Microphone(UnixEndpoint(f"{tmp_path}/spice"), allowed=True)
        there = TunnelEndpoint("far", 1, "", "")
        near = Microphone(there, allowed=True)

        async def dial(_: TunnelEndpoint):
            return await asyncio.open_unix_connection(tmp_path / "far")

        async def serve_far(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.closing(writer):
                await far.serve_front(reader, writer)

        monkeypatch.setattr(TunnelEndpoint, "dial", dial)
        async with (
            await asyncio.start_unix_server(qemu.serve, tmp_path / "spice"),
            await asyncio.start_unix_server(serve_far, tmp_path / "far"),
            running(far, near),
        ):
            near.joined(viewer)
            await qemu.linked.wait()
            qemu.records()
            assert await viewer.wanted.get()
            said = b"".join(struct.pack("<I", number) for number in range(6 * 512))
            for at in range(0, len(said), 998):
                near.spoke(viewer, said[at : at + 998])
            assert b"".join([await qemu.heard.get() for _ in range(6)]) == said
            far.allow(allowed=False)
            assert not await viewer.wanted.get()
            far.allow(allowed=True)
            assert await viewer.wanted.get()
            near.left(viewer)

    inside(body)
