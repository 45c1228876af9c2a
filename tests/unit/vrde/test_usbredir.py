"""The usbredir proxy: one host, one guest after the other."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleport.errors import ProtocolError
from teleport.vrde.usb_frames import Claim, answer, refusal_in
from teleport.vrde.usbredir import OURS, Kind, Packet, PacketReader, Redirection, Speed, hello
from tests.fakes.usb_device import CAPABILITIES, PRODUCT, VENDOR, introduction


def _read(data: bytes, *, wide: bool = True) -> list[Packet]:
    """The packets, after a hello if there is one."""
    reader = PacketReader()
    packets = []
    for packet in reader.feed(data):
        packets.append(packet)
        reader.wide = wide
    return packets


def _from_host(redirection: Redirection, *packets: Packet) -> bytes:
    out = redirection.from_host(b"".join(each.pack(wide=True) for each in packets))
    assert not out.to_host
    return out.to_guest


def _connected() -> Redirection:
    redirection = Redirection()
    redirection.from_host(hello(CAPABILITIES).pack(wide=False))
    assert _from_host(redirection, *introduction()) == b""
    return redirection


def _attached(redirection: Redirection, capabilities: int = OURS | 1 << 2) -> list[int]:
    first = _read(redirection.attach())
    assert int.from_bytes(first[0].body[64:68], "little") == OURS
    reader = PacketReader()
    reader.wide = True
    told = redirection.from_guest(hello(capabilities).pack(wide=False)).to_guest
    return [each.kind for each in reader.feed(told)]


def _wide(data: bytes) -> list[Packet]:
    reader = PacketReader()
    reader.wide = True
    return list(reader.feed(data))


def test_each_guest_is_told_of_the_device_and_old_answers_reach_no_new_guest() -> None:
    redirection = _connected()
    assert redirection.device
    assert (redirection.device.device.vendor_id, redirection.device.device.product_id) == (VENDOR, PRODUCT)
    assert redirection.device.speed is Speed.FULL
    assert _attached(redirection) == [Kind.INTERFACE_INFO, Kind.EP_INFO, Kind.DEVICE_CONNECT]

    control = Packet(Kind.CONTROL, 7, bytes(10))
    start = Packet(Kind.START_INTERRUPT, 0, b"\x81")
    out = redirection.from_guest(
        b"".join(each.pack(wide=True) for each in (control, Packet(Kind.CONTROL, 8, bytes(10)), start))
    )
    assert [each.identifier for each in _wide(out.to_host)][:2] == [7, 8]
    assert _wide(_from_host(redirection, control)) == [control]

    told = _wide(redirection.detach())
    assert [(each.kind, each.body) for each in told[:-1]] == [(Kind.STOP_INTERRUPT, b"\x81"), (Kind.CANCEL, b"")]
    assert told[1].identifier == 8
    assert told[-1].kind == Kind.RESET
    assert _from_host(redirection, Packet(Kind.INTERRUPT, 1, b"\x81\0\0\0")) == b"", "nobody is there"

    assert len(_attached(redirection)) == 3
    redirection.from_guest(Packet(Kind.CONTROL, 8, bytes(10)).pack(wide=True))
    old, new = Packet(Kind.CONTROL, 8, bytes(10)), Packet(Kind.CONTROL, 8, bytes(9) + b"x")
    stopped = Packet(17, told[0].identifier, b"\0\x81")
    unasked = Packet(Kind.INTERRUPT, 8, b"\x81\0\0\0")
    assert _wide(_from_host(redirection, stopped, old, unasked, new)) == [unasked, new]

    _from_host(redirection, Packet(Kind.DEVICE_DISCONNECT, 0))
    assert redirection.device is None


def test_what_is_no_usbredir_is_refused() -> None:
    for wrong in (
        Packet(Kind.RESET, 0).pack(wide=False),
        struct.pack("<III", 0, 1 << 20, 0),
        Packet(0, 0, b"x").pack(wide=False),
    ):
        with pytest.raises(ProtocolError):
            Redirection().from_host(wrong)
    for body in (b"", bytes(9), bytes([9]) + bytes(9)):
        with pytest.raises(ProtocolError):
            _from_host(_connected(), Packet(Kind.DEVICE_CONNECT, 0, body))
    redirection = _connected()
    redirection.attach()
    with pytest.raises(ProtocolError, match="lacks"):
        redirection.from_guest(hello(0).pack(wide=False))


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_noise_only_raises_protocol_errors(parts: list[bytes]) -> None:
    redirection = _connected()
    _attached(redirection)
    for part in parts:
        for feed in (redirection.from_host, redirection.from_guest):
            try:
                feed(part)
            except ProtocolError:
                return


def test_a_login_travels_whole_and_keeps_its_password_to_itself() -> None:
    claim = Claim(user="ann", password="se\u00a0cret", product="K" * 200)
    read = Claim.parse(claim.line())
    assert (read.user, read.password, read.product) == (claim.user, claim.password, "K" * 126)
    assert "cret" not in repr(read)
    for wrong in (b"[" * 5000, b"7", b'{"user": 7}', b'{"user": "a\\nb"}', b'{"more": "x"}'):
        with pytest.raises(ProtocolError):
            Claim.parse(wrong)
    assert (refusal_in(answer()), refusal_in(answer("no"))) == ("", "no")
    with pytest.raises(ProtocolError):
        refusal_in(b"[]")
