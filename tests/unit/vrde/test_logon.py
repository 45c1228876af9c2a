import struct

import pytest

from teleport.vrde.rdp.logon import ClientInfo, InfoFlag, Logon
from teleport.vrde.rdp.pdu import RdpError


def payload(domain="", user="john", password="secret", *, flags=InfoFlag.UNICODE, rest=b"extended"):
    encoding, zero = ("utf-16-le", b"\0\0") if flags & InfoFlag.UNICODE else ("cp1252", b"\0")
    raw = [text.encode(encoding) for text in (domain, user, password, "", "C:\\")]
    return struct.pack("<HHII5H", 0x40, 0, 0x409, flags, *map(len, raw)) + b"".join(r + zero for r in raw) + rest


@pytest.mark.parametrize("flags", [InfoFlag.UNICODE, InfoFlag(0)])
def test_a_login_is_read_and_replaced(flags):
    info = ClientInfo.parse(payload("HOME", "jöhn", "ßecret", flags=flags | InfoFlag.EXTENDED))
    assert (info.domain, info.user, info.password, info.rest) == ("HOME", "jöhn", "ßecret", b"extended")
    assert ClientInfo.parse(info.pack()) == info
    told = ClientInfo.parse(info.for_xrdp(2).pack())
    assert (told.domain, told.rest) == ("@2", b"extended")
    assert told.user not in ("", "jöhn")  # xrdp logs nobody in without a name and, since 0.10, a password
    assert told.password not in ("", "ßecret")
    assert told.flags & 0x3B == 0x3B  # autologon, and what xrdp insists on, Unicode among it
    assert told.flags & InfoFlag.EXTENDED
    assert "ßecret" not in repr(info)


def test_rdp_4_viewers_have_no_extended_packet():
    info = ClientInfo.parse(payload(flags=InfoFlag.UNICODE | InfoFlag.EXTENDED, rest=b""))
    assert not info.for_xrdp(1).flags & InfoFlag.EXTENDED


@pytest.mark.parametrize(
    ("domain", "user", "expected"),
    [
        ("", "john", ("john", "", 1)),
        ("@2", "john", ("john", "", 2)),
        ("HOME@2", "john", ("john", "HOME", 2)),
        ("HOME", "john", ("john", "HOME", 1)),
        ("", "@2\\john", ("john", "", 2)),
        ("", "HOME\\john", ("john", "HOME", 1)),
        ("HOME@x", "john", ("john", "HOME@x", 1)),
        ("HOME@0", "john", ("john", "HOME@0", 1)),
        ("@²", "john", ("john", "@²", 1)),
        ("", "john@example.com", ("john@example.com", "", 1)),
    ],
)
def test_the_screen_in_domain_or_user(domain, user, expected):
    logon = Logon.of(ClientInfo.parse(payload(domain, user)))
    assert (logon.user, logon.domain, logon.screen) == expected
    assert "secret" not in repr(logon)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        payload()[:30],
        payload()[:18] + b"\xff\xff" + payload()[20:],
        b"\0\0" + payload()[2:],
    ],
)
def test_lies_are_refused(data):
    with pytest.raises(RdpError):
        ClientInfo.parse(data)
