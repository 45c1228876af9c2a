"""Shared devices: their login, their frames, usbredir (see `vrde_streams`)."""

import asyncio
import contextlib
import json
import struct

from hypothesis import example, given
from hypothesis import strategies as st

from teleport.errors import ProtocolError
from teleport.vrde.auth import Simple
from teleport.vrde.login import Login, Verdict
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
from tests.harness.session import passing_folder
from tests.properties.vrde_streams import fed, served, sizes

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
        with passing_folder() as folder:
            notes: list[str] = []
            devices = UsbDevices(folder, notes.append, allowed=True)

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
                    assert len(list(folder.glob("usb-*"))) == 1
                    assert all(note.isprintable() for note in notes)
                while shown:
                    generation, shown = await devices.waited(generation)

    served(serve, [*good, *parts] if begins_well else parts)
