import struct

import pytest

from teleport.vrde.rdp import conference, pdu
from teleport.vrde.rdp.conference import Offer
from teleport.vrde.rdp.pdu import RdpError, SendData, tpkt
from teleport.vrde.rdp.stand_in import SIZE_CHANNEL, Passed, StandIn
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


def blocks_of(data: bytes, key: bytes) -> dict[int, bytes]:
    at = data.index(key) + 4
    assert struct.unpack_from(">H", data, at) == (0x8000 | (len(data) - at - 2),)
    at, found = at + 2, {}
    while at < len(data):
        kind, length = struct.unpack_from("<HH", data, at)
        found[kind] = data[at + 4 : at + length]
        at += length
    return found


def test_an_mstsc_keeps_all_but_its_offer_and_its_size():
    told = connect_initial(0x1B)
    offer = Offer.parse(told)
    assert (offer.methods, offer.has_dynamic_channels, offer.knows_error_info) == (0x1B, True, True)
    before, after = blocks_of(told, b"Duca"), blocks_of(offer.for_xrdp((800, 600)), b"Duca")
    assert after.pop(0xC002) == bytes(8)
    core, core_before = after.pop(0xC001), before.pop(0xC001)
    assert core == core_before[:4] + struct.pack("<HH", 800, 600) + core_before[8:]
    before.pop(0xC002)
    assert after == before
    assert Offer.parse(offer.for_xrdp(None)).methods == 0
    assert blocks_of(offer.for_xrdp(None), b"Duca")[0xC001] == core_before


@pytest.mark.parametrize("channels", [(), ("rdpsnd",), ("rdpsnd", "cliprdr")])
def test_a_viewer_without_dynamic_channels_seems_to_have_them(channels):
    network = struct.pack("<I", len(channels)) + b"".join(struct.pack("<8sI", n.encode(), 0x80000000) for n in channels)
    told = [block(0xC001, bytes(12)), block(0xC002, struct.pack("<II", 3, 16))]
    offer = Offer.parse(initial(*told, *([block(0xC003, network)] if channels else [])))
    assert (offer.methods, offer.has_dynamic_channels, offer.knows_error_info) == (3 | 16, False, False)
    edited = offer.for_xrdp((640, 480))
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


def test_the_connect_response_gets_our_key_and_what_was_requested():
    told = response()
    edited = conference.for_viewer(told, security=b"key" * 100).pdu
    assert struct.unpack_from(">H", edited, 2) == (len(edited),)
    assert edited[7:10] == b"\x7f\x66\x82"
    assert struct.unpack_from(">H", edited, 10) == (len(edited) - 12,)
    assert list(blocks_of(edited, b"McDn")) == [0x0C01, 0x0C02, 0x0C03]
    assert blocks_of(edited, b"McDn")[0x0C02] == b"key" * 100
    requested = conference.for_viewer(told, requested=0x1B).pdu
    assert blocks_of(requested, b"McDn")[0x0C01] == bytes.fromhex("04000800") + struct.pack("<I", 0x1B)
    for cut in range(len(told)):
        with pytest.raises(RdpError):
            conference.for_viewer(told[:cut], security=b"key")


@pytest.mark.parametrize("channels", [(1004,), (1004, 1005), (1004, 1005, 1006)])
def test_a_viewer_hears_of_its_own_channels_only(channels):
    answer = conference.for_viewer(response(*channels), takes_last_channel=True)
    assert answer.extra_channel == channels[-1]
    network = blocks_of(answer.pdu, b"McDn")[0x0C03]
    assert struct.unpack_from("<HH", network) == (1003, len(channels) - 1)
    assert struct.unpack_from(f"<{len(channels) - 1}H", network, 4) == channels[:-1]
    assert len(network) % 4 == 0
    assert conference.for_viewer(response(*channels)).extra_channel == 0
    with pytest.raises(RdpError):
        conference.for_viewer(response(), takes_last_channel=True)


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
