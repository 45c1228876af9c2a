"""Whatever comes in on the display's port: the parsers take bounded memory and end in a message or in their own error."""

import contextlib
import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleport.errors import UsageError
from teleport.machines.vrde import VrdeSettings, from_dict, set_option, to_dict
from teleport.machines.vrde_properties import parse_ports
from teleport.vrde import endpoint, rfb
from teleport.vrde.passage import Passage
from teleport.vrde.rdp import pdu
from teleport.vrde.rdp.conference import Offer
from teleport.vrde.rdp.dynamic_channels import StandIn, VersionLift
from teleport.vrde.rdp.logon import ClientInfo, Logon
from teleport.vrde.rdp.pdu import ConnectionRequest, FrameFollower, FrameReader, RdpError, SendData
from teleport.vrde.rdp.security import ServerKey, StandardSecurity
from teleport.vrde.rfb import Encoding, Rectangle, ServerKind
from tests.fakes.rfb_server import ServerMessage, server_message

FORMAT = bytes((32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0))
KEY = ServerKey()
pieces = st.lists(st.binary(max_size=80), max_size=20)
client_bytes = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.builds(lambda f: b"\0\0\0\0" + f, st.binary(min_size=16, max_size=16)),
        st.builds(rfb.set_encodings, st.lists(st.integers(-(2**31), 2**31 - 1), max_size=20)),
        st.builds(lambda b: b"\4" + b, st.binary(min_size=7, max_size=7)),
        st.builds(
            lambda b, n: b"\xfb" + b + bytes((n, 0)) + bytes(16 * n), st.binary(min_size=5, max_size=5), st.integers(0, 20)
        ),
        st.builds(lambda b: b"\6\0\0\0" + len(b).to_bytes(4, "big") + b, st.binary(max_size=50)),
    ),
    max_size=12,
)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(c % (len(data) + 1) for c in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(client_bytes, st.lists(st.integers(0, 1 << 16), max_size=8))
def test_a_viewers_bytes_mean_the_same_however_they_are_cut(messages, cuts):
    data = b"".join(messages)

    def read(parts):
        reader, found = rfb.MessageReader(rfb.client_message), []
        with contextlib.suppress(rfb.RfbError):
            for part in parts:
                found += reader.feed(part)
        return found

    whole, parts = read([data]), read(cut(data, cuts))
    assert whole == parts[: len(whole)]  # a single feed that fails reports nothing before the failure
    assert b"".join(m.data for m in parts) == data[: sum(len(m.data) for m in parts)]


rectangles = st.one_of(
    st.builds(lambda w, h: Rectangle(1, 2, w, h, 0, b"x" * (w * h * 4)), st.integers(0, 5), st.integers(0, 5)),
    st.builds(lambda w, h: Rectangle(0, 0, w, h, Encoding.DESKTOP_SIZE), st.integers(1, 2000), st.integers(1, 2000)),
    st.just(Rectangle(0, 0, 4, 4, Encoding.COPY_RECT, b"from")),
)
messages = st.one_of(
    st.builds(lambda r: ServerMessage(ServerKind.UPDATE, rectangles=tuple(r)), st.lists(rectangles, max_size=4)),
    st.just(ServerMessage(ServerKind.BELL, b"\2")),
    st.builds(
        lambda b: ServerMessage(ServerKind.CUT_TEXT, b"\3\0\0\0" + len(b).to_bytes(4, "big") + b), st.binary(max_size=20)
    ),
)


@given(st.lists(messages, max_size=6), st.lists(st.integers(0, 1 << 16), max_size=8), st.booleans(), st.integers(0, 1 << 16))
def test_a_switch_at_any_moment_leaves_whole_messages(stream, cuts, held, end):
    data = b"".join(message.pack() for message in stream)
    data = data[: end % (len(data) + 1)]
    passage, passed = Passage(FORMAT), b""
    for part in cut(data, cuts):
        passage.transform = (lambda r: r.data) if held else None
        for piece in passage.feed(part):
            passed += piece.data
    assert data.startswith(passed)
    reader = rfb.MessageReader(server_message(FORMAT))
    whole = reader.feed(passed + passage.completion())
    assert not reader._buffer
    assert [m.kind for m in whole] == [m.kind for m in stream][: len(whole)]


@given(pieces)
def test_a_servers_nonsense(parts):
    passage = Passage(FORMAT)
    with contextlib.suppress(rfb.RfbError):
        for part in parts:
            for piece in passage.feed(part):
                assert piece.data


@given(pieces)
def test_frames(parts):
    reader, frames = FrameReader(), []
    with contextlib.suppress(RdpError):
        for part in parts:
            frames += reader.feed(part)
        assert b"".join(frames) + reader.rest() == b"".join(parts)
    for frame in frames:
        assert pdu.frame_length(frame) == len(frame)


@given(pieces)
def test_a_followed_stream_is_between_two_pdus_where_a_reader_has_no_rest(parts):
    reader, follower = FrameReader(), FrameFollower()
    for part in parts:
        try:
            reader.feed(part)
        except RdpError:
            with pytest.raises(RdpError):
                follower.feed(part)
            return
        follower.feed(part)
        rest = reader._buffer
        assert bool(follower.missing_bytes) == bool(rest)
        length = pdu.frame_length(rest[:4]) if rest else None
        if length is not None:
            assert follower.missing_bytes == length - len(rest)


tpkts = st.one_of(
    st.binary(max_size=200),
    st.builds(pdu.tpkt, st.binary(min_size=3, max_size=200)),
    st.builds(lambda h, b: SendData(b"\x64" + h, b).pack(), st.binary(min_size=5, max_size=5), st.binary(max_size=200)),
    st.builds(
        lambda b: SendData(b"\x64\0\6\3\xeb\x70", b"\x40\0\0\0" + b).pack(),
        st.binary(min_size=18, max_size=200),
    ),
)


@given(tpkts)
def test_rdp_pdus(data):
    for parse in (ConnectionRequest.parse, SendData.parse, Offer.parse):
        with contextlib.suppress(RdpError):
            parse(data)
    with contextlib.suppress(RdpError):
        Offer(b"", 0, (), knows_error_info=False).answer(data, requested=3, security=b"security")
    with contextlib.suppress(RdpError):
        StandIn(1005).from_xrdp(data)
    with contextlib.suppress(RdpError):
        VersionLift(1003).from_viewer(data)
    with contextlib.suppress(RdpError):
        sent = SendData.parse(data)
        if sent and ClientInfo.is_in(sent.payload):
            info = ClientInfo.parse(sent.payload)
            logon = Logon.of(info)
            assert 1 <= logon.screen < 256
            again = ClientInfo.parse(info.for_xrdp(logon.screen).pack())
            assert (again.domain, again.user, again.rest) == (f"@{logon.screen}", "vm", info.rest)


def in_conference(tag: bytes, key: bytes, before: bytes, blocks: bytes) -> bytes:
    gcc = bytes.fromhex("000500147c000105") + key + struct.pack(">H", 0x8000 | len(blocks)) + blocks
    user_data = b"\4\x82" + struct.pack(">H", len(gcc)) + gcc
    return pdu.tpkt(b"\x02\xf0\x80" + tag + b"\x82" + struct.pack(">H", len(before) + len(user_data)) + before + user_data)


conference_blocks = st.lists(
    st.tuples(
        st.sampled_from([0xC001, 0xC002, 0xC003, 0x0C01, 0x0C02, 0x0C03]),
        st.one_of(
            st.binary(max_size=40), st.just(bytes(160)), st.integers(0, 33).map(lambda n: bytes((n, 0, 0, 0)) + bytes(12 * n))
        ),
    ),
    max_size=4,
)


@given(st.binary(max_size=60), st.one_of(st.binary(max_size=300), conference_blocks))
def test_connect_pdus_with_blocks(before, blocks):
    if not isinstance(blocks, bytes):
        blocks = b"".join(struct.pack("<HH", kind, 4 + len(data)) + data for kind, data in blocks)
    for elements in (before, b""):
        with contextlib.suppress(RdpError):
            offer = Offer.parse(in_conference(b"\x7f\x65", b"Duca", elements, blocks))
            again = Offer.parse(offer.for_xrdp((800, 600)))
            assert (again.methods, again.has_dynamic_channels) == (0, True)
        with contextlib.suppress(RdpError):
            plain = Offer(b"", 0, (), knows_error_info=False)
            plain.answer(in_conference(b"\x7f\x66", b"McDn", elements, blocks), security=b"s")


@given(st.lists(tpkts, max_size=4))
def test_standard_security_before_and_without_keys(frames):
    security = StandardSecurity(KEY)
    security.choose(3)
    with contextlib.suppress(RdpError):
        for frame in frames:
            if frame and pdu.frame_length(frame) == len(frame):
                security.from_viewer(frame)


@given(st.text(max_size=40))
def test_ports_and_endpoints(text):
    with contextlib.suppress(UsageError):
        ports = parse_ports(text)
        assert ports
        assert all(1 <= port <= 65535 for port in ports)
        assert len(set(ports)) == len(ports)
    with contextlib.suppress(UsageError):
        assert endpoint.to_text(endpoint.from_text(text)) == text


options = st.tuples(
    st.sampled_from(
        [
            "vrde",
            "vrdeport",
            "vrdeaddress",
            "vrdeauthtype",
            "vrdemulticon",
            "vrdeproperty",
            "monitorcount",
            "vrdevideochannelquality",
        ]
    ),
    st.one_of(
        st.sampled_from(
            ["on", "off", "5000,5010-5012", "::1", "external", "50", "2", "Security/Method=TLS", "Client/DisableInput=1"]
        ),
        st.text(max_size=12),
    ),
)


@given(st.lists(options, max_size=8))
def test_settings_survive_being_written_and_read(changes):
    settings = VrdeSettings()
    for option, value in changes:
        with contextlib.suppress(UsageError):
            settings = set_option(settings, option, value)
    assert from_dict(to_dict(settings)) == settings
