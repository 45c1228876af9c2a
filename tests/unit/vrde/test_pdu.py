import struct

import pytest

from teleport.vrde.rdp import pdu
from teleport.vrde.rdp.pdu import ConnectionRequest, FrameReader, Protocol, RdpError, SendData

# MS-RDPBCGR 4.1.1: mstsc's connection request with a cookie and RDP_NEG_REQ
SPECIFICATION_REQUEST = bytes.fromhex(
    "0300002c27e00000000000436f6f6b69653a206d737473686173683d656c746f6e730d0a0100080000000000"
)


def test_the_specifications_request():
    assert ConnectionRequest.parse(SPECIFICATION_REQUEST) == ConnectionRequest(
        Protocol.RDP, negotiates=True, cookie=b"Cookie: mstshash=eltons"
    )


@pytest.mark.parametrize(
    ("body", "protocols", "negotiates"),
    [
        (b"", Protocol.RDP, False),
        (b"\1\0\x08\0\1\0\0\0", Protocol.TLS, True),
        (b"Cookie: mstshash=a\r\n\1\0\x08\0\x0b\0\0\0", Protocol.TLS | Protocol.HYBRID | Protocol.HYBRID_EX, True),
        (b"Cookie: mstshash=a\r\n", Protocol.RDP, False),
    ],
)
def test_requests(body, protocols, negotiates):
    data = pdu.tpkt(bytes((6 + len(body), 0xE0, 0, 0, 0, 0, 0)) + body)
    request = ConnectionRequest.parse(data)
    assert (request.protocols, request.negotiates) == (protocols, negotiates)


@pytest.mark.parametrize(
    "data",
    [
        b"\3\0\0\7\2\xf0\x80",
        pdu.tpkt(bytes.fromhex("06d00000000000")),
        pdu.tpkt(bytes.fromhex("0ee00000000000") + b"\1\0\7\0\1\0\0\0"),
        pdu.tpkt(bytes.fromhex("0ee00000000000") + b"Cookie: no end"),
    ],
)
def test_what_is_no_request(data):
    with pytest.raises(RdpError):
        ConnectionRequest.parse(data)


def test_answers_are_as_the_specification_shows_them():
    assert pdu.confirm(Protocol.TLS).hex() == "030000130ed000001234000201080001000000"
    assert pdu.refuse(pdu.Refusal.TLS_REQUIRED).hex() == "030000130ed000001234000300080001000000"
    assert ConnectionRequest.parse(pdu.PLAIN_REQUEST) == ConnectionRequest(Protocol.RDP, negotiates=False)


FRAMES = [b"\3\0\0\7\2\xf0\x80", b"\x44\4ab", b"\0\x80\x07abcd", pdu.tpkt(b"x" * 5000), b"\xc0\x02"]


def test_frames_are_cut_right_however_they_arrive():
    data = b"".join(FRAMES)
    for step in (1, 2, 3, 1000, len(data)):
        reader = FrameReader()
        assert [f for at in range(0, len(data), step) for f in reader.feed(data[at : at + step])] == FRAMES
        assert reader.rest() == b""


@pytest.mark.parametrize("data", [b"GET ", b"RFB ", b"\3\0\0\6", b"\x16\3\1\2", b"\0\1", b"\0\x80\2"])
def test_other_protocols_are_noticed_at_once(data):
    with pytest.raises(RdpError):
        FrameReader().feed(data)


def test_send_data_both_lengths():
    short = b"\3\0\0\x12\2\xf0\x80\x64\0\6\3\xeb\x70\4abcd"
    assert SendData.parse(short) == SendData(b"\x64\0\6\3\xeb\x70", b"abcd")
    long = SendData(b"\x68\0\1\3\xeb\x70", b"y" * 300)
    assert SendData.parse(long.pack()) == long
    assert long.channel == 1003
    assert SendData.parse(SPECIFICATION_REQUEST) is None
    with pytest.raises(RdpError):
        SendData.parse(short[:-1])
    with pytest.raises(RdpError):
        SendData(b"\x68\0\1\3\xeb\x70", bytes(0x8000)).pack()
    with pytest.raises(RdpError):
        pdu.tpkt(bytes(0xFFFF))


def test_a_frames_length_needs_its_head():
    assert pdu.frame_length(b"") is None
    assert pdu.frame_length(b"\3\0\0") is None
    assert pdu.frame_length(struct.pack(">BBH", 3, 0, 0xFFFF)) == 0xFFFF
    assert pdu.frame_length(b"\0\x80") is None
