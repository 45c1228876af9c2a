import struct

import pytest

from teleport.vrde.rdp import pdu
from teleport.vrde.rdp.conference import Offer
from teleport.vrde.rdp.dynamic_channels import SIZE_CHANNEL, Passed, StandIn, VersionLift
from teleport.vrde.rdp.pdu import RdpError, SendData, tpkt
from tests.fakes.mstsc import connect_initial

DOMAINS = bytes.fromhex("0401010401010101ff") + 3 * bytes.fromhex("3003020101")
ANSWERS = bytes.fromhex("0a0100020100301a020122020103020100020101020100020101020300fff8020102")


def block(kind: int, data: bytes) -> bytes:
    return struct.pack("<HH", kind, 4 + len(data)) + data


def initial(*blocks: bytes) -> bytes:
    """As the smallest viewers send it, with lengths of one byte."""
    data = b"".join(blocks)
    rest = bytes.fromhex("000800100001c00044756361") + bytes((len(data),)) + data
    gcc = bytes.fromhex("000500147c0001") + bytes((len(rest),)) + rest
    body = DOMAINS + b"\x04" + bytes((len(gcc),)) + gcc
    return tpkt(b"\x02\xf0\x80\x7f\x65" + bytes((len(body),)) + body)


def response(*channels: int) -> bytes:
    network = struct.pack(f"<HH{len(channels)}H", 1003, len(channels), *channels) + bytes(2 * (len(channels) % 2))
    blocks = block(0x0C01, bytes.fromhex("0400080000000000")) + block(0x0C02, bytes(8)) + block(0x0C03, network)
    gcc = bytes.fromhex("000500147c00012a14760a01010001c0004d63446e") + bytes((len(blocks),)) + blocks
    body = ANSWERS + b"\x04" + bytes((len(gcc),)) + gcc
    return tpkt(b"\x02\xf0\x80\x7f\x66" + bytes((len(body),)) + body)


def blocks_of(data: bytes, key: bytes, *, length_bytes: int = 2) -> dict[int, bytes]:
    at = data.index(key) + 4 + length_bytes
    length = int.from_bytes(data[at - length_bytes : at], "big")
    assert length == len(data) - at + (0x8000 if length_bytes == 2 else 0)
    found = {}
    while at < len(data):
        kind, length = struct.unpack_from("<HH", data, at)
        found[kind] = data[at + 4 : at + length]
        at += length
    return found


def test_an_mstsc_keeps_all_but_its_offer_and_its_size():
    told = connect_initial(0x1B)
    parsed = Offer.parse(told)
    assert (parsed.methods, parsed.has_dynamic_channels, parsed.knows_error_info) == (0x1B, True, True)
    before, after = blocks_of(told, b"Duca"), blocks_of(parsed.for_xrdp((800, 600)), b"Duca")
    assert after.pop(0xC002) == bytes(8)
    core, core_before = after.pop(0xC001), before.pop(0xC001)
    assert core == core_before[:4] + struct.pack("<HH", 800, 600) + core_before[8:]
    before.pop(0xC002)
    assert after == before
    assert Offer.parse(parsed.for_xrdp(None)).methods == 0
    assert blocks_of(parsed.for_xrdp(None), b"Duca")[0xC001] == core_before


@pytest.mark.parametrize("channels", [(), ("rdpsnd",), ("rdpsnd", "cliprdr")])
def test_a_viewer_without_dynamic_channels_seems_to_have_them(channels):
    network = struct.pack("<I", len(channels)) + b"".join(struct.pack("<8sI", n.encode(), 0x80000000) for n in channels)
    told = [block(0xC001, bytes(12)), block(0xC002, struct.pack("<II", 3, 16))]
    parsed = Offer.parse(initial(*told, *([block(0xC003, network)] if channels else [])))
    assert (parsed.methods, parsed.has_dynamic_channels, parsed.knows_error_info) == (3 | 16, False, False)
    edited = parsed.for_xrdp((640, 480))
    (count,) = struct.unpack_from("<I", listed := blocks_of(edited, b"Duca")[0xC003])
    assert [listed[4 + 12 * n :][:8].rstrip(b"\0").decode() for n in range(count)] == [*channels, "drdynvc"]
    assert Offer.parse(edited).has_dynamic_channels
    # every length around the blocks holds: TPKT, the MCS PDU, its user data, T.124's
    assert struct.unpack_from(">H", edited, 2) == (len(edited),)
    assert edited[7:10] == b"\x7f\x65" + bytes((len(edited) - 10,))
    at = edited.index(bytes.fromhex("000500147c0001"))
    assert edited[at - 1] == len(edited) - at
    assert struct.unpack_from(">H", edited, at + 7) == (0x8000 | (len(edited) - at - 9),)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (b"Duca", b"Duck"),
        (b"\1\xc0\x0c\0", b"\1\xc0\xff\xff"),
        (b"\x7f\x65", b"\x7f\x66"),
        (struct.pack("<HHI", 0xC003, 8, 0), struct.pack("<HHI", 0xC003, 8, 1)),
    ],
)
def test_what_is_no_connect_initial(good, bad):
    told = initial(block(0xC001, bytes(8)), block(0xC003, bytes(4)))
    Offer.parse(told)
    assert good in told
    with pytest.raises(RdpError):
        Offer.parse(told.replace(good, bad))


def offer(*channels: bytes) -> Offer:
    return Offer(b"", 0, channels, knows_error_info=False)


PLAIN = offer(b"drdynvc\0")


def test_the_connect_response_gets_our_key_and_what_was_requested():
    told = response(1004)
    edited = PLAIN.answer(told, security=b"key" * 100).pdu
    assert struct.unpack_from(">H", edited, 2) == (len(edited),)
    assert edited[7:10] == b"\x7f\x66\x82"
    assert struct.unpack_from(">H", edited, 10) == (len(edited) - 12,)
    assert list(blocks_of(edited, b"McDn")) == [0x0C01, 0x0C02, 0x0C03]
    assert blocks_of(edited, b"McDn")[0x0C02] == b"key" * 100
    requested = PLAIN.answer(told, requested=0x1B).pdu
    assert blocks_of(requested, b"McDn")[0x0C01] == bytes.fromhex("04000800") + struct.pack("<I", 0x1B)
    for cut in range(len(told)):
        with pytest.raises(RdpError):
            PLAIN.answer(told[:cut], security=b"key")


@pytest.mark.parametrize("channels", [(1004,), (1004, 1005), (1004, 1005, 1006)])
def test_a_viewer_hears_of_its_own_channels_only(channels):
    names = tuple(b"channel%d" % n for n in range(len(channels)))
    answer = offer(*names[:-1]).answer(response(*channels))
    assert answer.dynamic_channel == channels[-1]
    network = blocks_of(answer.pdu, b"McDn")[0x0C03]
    assert struct.unpack_from("<HH", network) == (1003, len(channels) - 1)
    assert struct.unpack_from(f"<{len(channels) - 1}H", network, 4) == channels[:-1]
    assert len(network) % 4 == 0
    for at in range(len(channels)):
        answer = offer(*names[:at], b"drdynvc\0", *names[at + 1 :]).answer(response(*channels))
        assert answer.dynamic_channel == channels[at]
        assert blocks_of(answer.pdu, b"McDn") == blocks_of(response(*channels), b"McDn", length_bytes=1)
    with pytest.raises(RdpError):
        offer(*names).answer(response(*channels))


def test_a_viewer_whose_channels_leave_no_room():
    told = Offer.parse(connect_initial(0))
    full = Offer(told.pdu, 0, tuple(b"%07d\0" % n for n in range(31)), knows_error_info=False)
    with pytest.raises(RdpError, match="31 channels"):
        full.for_xrdp(None)


def mcs(text: str) -> bytes:
    return tpkt(b"\x02\xf0\x80" + bytes.fromhex(text))


def says(channel: int, message: bytes) -> bytes:
    head = struct.pack(">BHHB", pdu.SEND_DATA_INDICATION, 1, channel, 0x70)
    return SendData(head, struct.pack("<II", len(message), 3) + message).pack()


def answered(passed: Passed) -> bytes:
    """The message in the stand-in's answer; nothing of it went to the viewer."""
    assert passed.to_viewer == b""
    sent = SendData.parse(passed.to_xrdp)
    assert sent
    assert sent.head == struct.pack(">BHHB", pdu.SEND_DATA_REQUEST, 6, 1005, 0x70)
    assert struct.unpack_from("<II", sent.payload) == (len(sent.payload) - 8, 3)
    return sent.payload[8:]


def test_the_stand_in_answers_for_the_viewer_and_on_its_own_channel_only():
    stand_in = StandIn(1005)
    attached = mcs("2e000006")
    assert stand_in.from_xrdp(attached) == Passed(attached, mcs("38000603ed"))
    assert stand_in.from_xrdp(mcs("3e00000603ed03ed")) == Passed()
    for others in (mcs("3e00000603ec03ec"), says(1004, b"\x50\0\3\0"), b"\0\4ab", says(1003, b"demand active")):
        assert stand_in.from_xrdp(others) == Passed(others)
    assert answered(stand_in.from_xrdp(says(1005, b"\x50\0\3\0" + bytes(8)))) == b"\x50\0\3\0"
    assert answered(stand_in.from_xrdp(says(1005, b"\x10\7" + SIZE_CHANNEL + b"\0"))) == b"\x10\7" + bytes(4)
    assert answered(stand_in.from_xrdp(says(1005, b"\x11\7\1AUDIO_INPUT\0"))) == b"\x11\7\1" + bytes.fromhex("250200c0")
    assert stand_in.from_xrdp(says(1005, b"\x30\7data")) == Passed()
    with pytest.raises(RdpError):
        stand_in.from_xrdp(says(1005, b"\x50\0"))


def test_a_viewer_of_dynamic_channels_first_version_is_said_to_know_the_second():
    def from_viewer(channel: int, message: bytes) -> bytes:
        head = struct.pack(">BHHB", pdu.SEND_DATA_REQUEST, 6, channel, 0x70)
        return SendData(head, struct.pack("<II", len(message), 3) + message).pack()

    lift = VersionLift(1005)
    for others in (mcs("38000603ed"), from_viewer(1004, b"\x50\0\1\0"), b"\0\4ab"):
        assert lift.from_viewer(others) == others
    assert not lift.is_done
    assert lift.from_viewer(from_viewer(1005, b"\x50\0\1\0")) == from_viewer(1005, b"\x50\0\2\0")
    assert lift.is_done
    assert lift.from_viewer(from_viewer(1005, b"\x50\0\1\0")) == from_viewer(1005, b"\x50\0\1\0")
    for version in (b"\2\0", b"\3\0"):
        assert VersionLift(1005).from_viewer(from_viewer(1005, b"\x50\0" + version)) == from_viewer(1005, b"\x50\0" + version)
