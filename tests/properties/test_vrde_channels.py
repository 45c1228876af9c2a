"""What comes beside the picture (sound, microphone, clipboard, shared devices): garbage ends in a message, in the parser's own error, or in
the end of that one connection; memory stays bounded, and who else is connected notices nothing.

Longer and with new examples: `HYPOTHESIS_PROFILE=search deploy/test tests/properties`.
"""

import asyncio
import contextlib
import json
import struct
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from teleport.errors import ProtocolError
from teleport.vrde import companion, rfb, spice, vdagent
from teleport.vrde.auth import Simple
from teleport.vrde.clipboard_link import ClipboardLink
from teleport.vrde.endpoint import UnixEndpoint
from teleport.vrde.gates import Gates
from teleport.vrde.login import Login, Verdict
from teleport.vrde.microphone import Microphone
from teleport.vrde.rdp import channels
from teleport.vrde.rdp.audio_input import OUT_RATE_HZ, AudioInput
from teleport.vrde.rdp.link import read_pdu
from teleport.vrde.rdp.pdu import RdpError
from teleport.vrde.rdp.sound import BLOCK_BYTES, Sound
from teleport.vrde.relay import Relay
from teleport.vrde.rfb import ClientKind, RfbError
from teleport.vrde.rfb_clipboard import EXTENDED, RfbClipboard, extended, provided
from teleport.vrde.usb import UsbDevices
from teleport.vrde.usb_frames import (
    MOST_LINE_BYTES,
    Claim,
    FrameKind,
    answer,
    frame,
    read_frame,
    read_line,
    refusal_in,
)
from teleport.vrde.usbredir import (
    MOST_DATA_BYTES,
    MOST_UNANSWERED,
    Capability,
    Kind,
    Packet,
    Redirection,
    hello,
)
from tests.fakes.usb_device import introduction

SECONDS = 20
pieces = st.lists(st.binary(max_size=80), max_size=12)
sizes = st.one_of(st.integers(0, 100), st.integers(0, 2**32 - 1))
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def served(serve: Serve, parts: list[bytes]) -> bytes:
    """Runs `serve` against a client that says these parts and hangs up; what it was told. Fails where `serve` raises anything but what a
    front's own accept loop takes for the end of one connection."""

    async def body() -> bytes:
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await serve(reader, writer)
            except (OSError, EOFError):
                ended.set_result(None)
            except BaseException as error:
                ended.set_exception(error)
            else:
                ended.set_result(None)
            writer.close()

        with tempfile.TemporaryDirectory(prefix="tv-") as folder:
            async with await asyncio.start_unix_server(accept, f"{folder}/s"):
                reader, writer = await asyncio.open_unix_connection(f"{folder}/s")
                told = asyncio.create_task(reader.read())
                with contextlib.suppress(ConnectionError):
                    for part in parts:
                        writer.write(part)
                        await writer.drain()
                    writer.write_eof()
                await ended
                try:
                    return await told
                except ConnectionError:
                    return b""
                finally:
                    writer.close()

    return asyncio.run(asyncio.wait_for(body(), SECONDS))


def fed(parse: Callable[[asyncio.StreamReader], Awaitable[object]], data: bytes, *, times: int = 4) -> list[object]:
    """What `parse` reads from a stream of just these bytes, until it has enough of them."""

    async def body() -> list[object]:
        reader, found = asyncio.StreamReader(), []
        reader.feed_data(data)
        reader.feed_eof()
        with contextlib.suppress(EOFError, ProtocolError, RdpError):
            for _ in range(times):
                found.append(await parse(reader))
        return found

    return asyncio.run(body())


# ---------------------------------------------------------------------- sound
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


# ---------------------------------------------------------------------- microphones
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


# ---------------------------------------------------------------------- xrdp's side door, whole sessions
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


# ---------------------------------------------------------------------- VNC viewers' clipboards
cut_texts = st.one_of(
    st.builds(lambda data: struct.pack(">B3xi", ClientKind.CUT_TEXT, len(data)) + data, st.binary(max_size=60)),
    st.builds(extended, st.just(ClientKind.CUT_TEXT), st.integers(0, 2**32 - 1), st.binary(max_size=60)),
    st.builds(provided, st.just(ClientKind.CUT_TEXT), st.text(st.characters(exclude_categories=["Cs"]), max_size=60)),
    st.builds(lambda size: struct.pack(">B3xi", ClientKind.CUT_TEXT, -size) + bytes(size), st.integers(1, 12)),
)


@given(st.booleans(), st.lists(cut_texts, max_size=8))
def test_a_vnc_viewers_cut_texts(knows_more, messages):
    link = ClipboardLink(None, Gates())
    sent: list[bytes] = []
    viewer = RfbClipboard(link.clipboard, sent.append)
    viewer.encodings([EXTENDED] if knows_more else [])
    with contextlib.suppress(RfbError):
        for each in messages:
            viewer.received(each)
    viewer.end()
    assert sum(map(len, sent)) < 10_000
    assert not link.clipboard._viewers


# ---------------------------------------------------------------------- another host's front, in the tunnel
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.builds(vdagent.pack, st.sampled_from(vdagent.Kind), st.binary(max_size=60)),
            st.just(vdagent.announcement(please_answer=True)),
        ),
        max_size=8,
    )
)
def test_the_clipboard_of_another_front(parts):
    link = ClipboardLink(None, Gates())
    served(link.serve_front, parts)
    assert not link.clipboard._viewers


# ---------------------------------------------------------------------- RDP and its login, as the streams bring them
@given(st.binary(max_size=200))
@example(b"\x03\0\xff\xff" + bytes(100))
def test_pdus_out_of_a_stream(data):
    for each in fed(read_pdu, data):
        assert isinstance(each, bytes)
        assert len(each) <= 0xFFFF


texts = st.text(max_size=12)
logins = st.one_of(
    st.binary(max_size=80),
    st.builds(
        lambda value: json.dumps(value).encode(), st.recursive(st.none() | st.integers() | texts, st.lists, max_leaves=5)
    ),
    st.builds(
        lambda value: json.dumps(value).encode(),
        st.dictionaries(
            st.sampled_from(["user", "password", "domain", "client", "product", "more"]), st.one_of(texts, st.integers())
        ),
    ),
)


@given(logins)
@example(b"[" * 100_000)
@example(rb'{"user": "a", "password": "\ud800"}')
def test_a_devices_login(line):
    with contextlib.suppress(ProtocolError):
        claim = Claim.parse(line)
        login = Login(claim.user, claim.password, claim.domain)
        assert asyncio.run(Simple({"john": "0" * 64}).check(login)) is Verdict.DENY
        assert Claim.parse(claim.line()) == claim
    with contextlib.suppress(ProtocolError):
        assert isinstance(refusal_in(line), str)
    with contextlib.suppress(ProtocolError):
        assert refusal_in(answer(line.decode(errors="replace"))) == line.decode(errors="replace")


@given(st.binary(max_size=200), st.integers(0, 255), sizes)
@example(b"x" * (2 * MOST_LINE_BYTES), 0, 0)
def test_lines_and_frames(data, kind, length):
    assert all(len(line) <= MOST_LINE_BYTES for line in fed(read_line, data))
    fed(read_frame, data)
    found = fed(read_frame, struct.pack(">BI", kind, length) + data)
    if found and kind <= 1 and length <= len(data):
        assert found[0] == (FrameKind(kind), data[:length])


# ---------------------------------------------------------------------- usbredir
packets = st.builds(
    Packet,
    st.one_of(st.sampled_from([*map(int, Kind), 6, 7, 8, 9, 10, 11, 14, 17, 27]), st.integers(0, 2**32 - 1)),
    st.integers(0, 2**32 - 1),
    st.one_of(st.binary(max_size=40), st.just(introduction()[2].body)),
)
steps = st.lists(
    st.tuples(
        st.sampled_from(["host", "guest"]),
        st.one_of(
            st.binary(max_size=60),
            st.builds(lambda packet: packet.pack(wide=False), packets),
            st.builds(lambda packet: packet.pack(wide=True), packets),
            st.just(hello(0xFF).pack(wide=False)),
            st.builds(lambda kind, length: struct.pack("<III", kind, length, 0), st.integers(0, 110), sizes),
        ),
    ),
    max_size=14,
)


def shared_device(capabilities: int) -> Redirection:
    """With its host's hello and introduction: before those no guest is attached."""
    link, wide = Redirection(), bool(capabilities & Capability.IDS_64_BITS)
    link.from_host(hello(capabilities).pack(wide=False) + b"".join(each.pack(wide=wide) for each in introduction()))
    return link


@given(st.sampled_from([0, 0xFF]), steps, st.integers(0, 14))
def test_usbredir_between_a_device_and_guests_that_come_and_go(capabilities, sent, changes_at):
    link = shared_device(capabilities)
    attached = False
    told = 0
    with contextlib.suppress(ProtocolError):
        for number, (side, data) in enumerate(sent):
            if number in (changes_at, changes_at // 2):
                link.detach() if attached else link.attach()
                attached = not attached
            out = link.from_host(data) if side == "host" else link.from_guest(data)
            told += len(out.to_host) + len(out.to_guest)
    link.detach()
    given_bytes = sum(len(data) for _, data in sent)
    assert told <= 4 * given_bytes + 2000  # what was kept is told to each guest anew
    assert len(link._host._buffer) <= given_bytes <= MOST_DATA_BYTES
    assert sum(map(len, link._kept.values())) <= given_bytes + 1000


def test_a_guest_that_asks_without_end_is_refused():
    link = shared_device(0)
    link.attach()
    link.from_guest(hello(0).pack(wide=False))
    refused = False
    for number in range(2 * MOST_UNANSWERED):
        try:
            link.from_guest(Packet(Kind.CONTROL, number, bytes(10)).pack(wide=False))
        except ProtocolError:
            refused = True
            break
    assert refused
    assert len(link._waiting) <= MOST_UNANSWERED


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.builds(frame, st.sampled_from(FrameKind), st.binary(max_size=60)),
            st.builds(lambda packet: frame(FrameKind.USBREDIR, packet.pack(wide=False)), packets),
            st.builds(lambda packet: frame(FrameKind.USBREDIR, packet.pack(wide=True)), packets),
        ),
        max_size=8,
    ),
    st.booleans(),
)
def test_a_device_that_talks_nonsense_leaves_the_others_shared(parts, begins_well):
    good = [frame(FrameKind.USBREDIR, hello(0).pack(wide=False))]
    good += [frame(FrameKind.USBREDIR, each.pack(wide=False)) for each in introduction()]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with tempfile.TemporaryDirectory(prefix="tv-") as folder:
            notes: list[str] = []
            devices = UsbDevices(Path(folder), notes.append, allowed=True)

            async def honest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                with contextlib.closing(writer), contextlib.suppress(OSError, EOFError):
                    await devices.serve(reader, writer, Claim(client="honest"))

            async with await asyncio.start_unix_server(honest, f"{folder}/h"):
                _, other = await asyncio.open_unix_connection(f"{folder}/h")
                with contextlib.closing(other):
                    other.write(b"".join(good))
                    generation, shown = 1, []
                    while not shown:
                        generation, shown = await devices.waited(generation)
                    with contextlib.suppress(OSError, EOFError):
                        await devices.serve(reader, writer, Claim(client="garbage"))
                    _, shown = await devices.waited(0)
                    assert [each["client"] for each in shown] == ["honest"]
                    assert len(list(Path(folder).glob("usb-*"))) == 1
                    assert all(note.isprintable() for note in notes)
                while shown:
                    generation, shown = await devices.waited(generation)

    served(serve, [*good, *parts] if begins_well else parts)
