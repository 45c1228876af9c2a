"""Standard RDP Security against a viewer's side written here; that real viewers agree is tests/integration/vrde/test_viewers.py's."""

import secrets
import struct

import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import ARC4
from cryptography.hazmat.primitives.ciphers import Cipher

from teleport.vrde.rdp import security
from teleport.vrde.rdp.pdu import RdpError, SendData
from teleport.vrde.rdp.security import METHOD_40, METHOD_56, METHOD_128, Keys, ServerKey, StandardSecurity

CHANNEL = b"\x64\0\6\3\xeb\x70"
FROM_SERVER = b"\x68\0\1\3\xeb\x70"


@pytest.fixture(scope="module")
def server_key():
    return ServerKey()


class Viewer:
    """The other end: knows SC_SECURITY's content and does what a viewer does with it."""

    def __init__(self, data: bytes) -> None:
        self.method, self.level, random_size, certificate_size = struct.unpack_from("<IIII", data)
        self.server_random = data[16 : 16 + random_size]
        certificate = data[16 + random_size :]
        assert len(certificate) == certificate_size
        _, _, bits, _, exponent = struct.unpack_from("<4sIIII", certificate, 16)
        self.modulus = int.from_bytes(certificate[36 : 36 + bits // 8], "little")
        self.exponent = exponent
        self.random = secrets.token_bytes(32)
        self.keys = Keys.derive(self.random, self.server_random, self.method)
        self.sends = Cipher(ARC4(self.keys.from_viewer), None).encryptor()
        self.receives = Cipher(ARC4(self.keys.from_server), None).encryptor()
        self.count = 0

    def exchange(self) -> bytes:
        sealed = pow(int.from_bytes(self.random, "little"), self.exponent, self.modulus).to_bytes(256, "little") + bytes(8)
        return SendData(CHANNEL, struct.pack("<HHI", 1, 0x200, len(sealed)) + sealed).pack()

    def seal(self, plain: bytes, flags: int = 0) -> bytes:
        salt = struct.pack("<I", self.count) if flags & security.SEC_SECURE_CHECKSUM else b""
        self.count += 1
        mac = security.mac(self.keys.mac, plain, salt)
        return SendData(CHANNEL, struct.pack("<HH", 8 | flags, 0) + mac + self.sends.update(plain)).pack()

    def open(self, sealed: bytes) -> bytes:
        plain = self.receives.update(sealed[8:])
        assert security.mac(self.keys.mac, plain) == sealed[:8]
        return plain


def pair(key: ServerKey, offered: int = METHOD_128) -> tuple[StandardSecurity, Viewer]:
    server = StandardSecurity(key)
    viewer = Viewer(server.choose(offered))
    assert server.from_viewer(viewer.exchange()) is None
    return server, viewer


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(METHOD_40 | METHOD_56 | METHOD_128 | 16, METHOD_128), (METHOD_40 | METHOD_56, METHOD_56), (METHOD_40, METHOD_40)],
)
def test_a_session(offered, chosen, server_key):
    server, viewer = pair(server_key, offered)
    assert viewer.method == chosen
    # the login keeps a security head without the encryption's flags, the rest loses it
    login = server.from_viewer(viewer.seal(b"login", 0x40))
    assert SendData.parse(login).payload == b"\x40\0\0\0login"
    licence = SendData(FROM_SERVER, b"\x80\0\0\0" + b"licence, longer than it says").pack()
    assert server.from_server(licence) == licence
    assert SendData.parse(server.from_viewer(viewer.seal(b"share", security.SEC_SECURE_CHECKSUM))).payload == b"share"
    share = struct.pack("<H", 12) + b"demand act"
    sealed = SendData.parse(server.from_server(SendData(FROM_SERVER, share).pack()))
    assert sealed.payload[:4] == b"\x08\0\0\0"
    assert viewer.open(sealed.payload[4:]) == share
    fast = server.from_server(b"\0\x06draw")
    assert fast[0] == 0x80
    assert viewer.open(fast[3:]) == b"draw"
    plain = b"keys"
    mac, data = security.mac(viewer.keys.mac, plain), viewer.sends.update(plain)
    recoded = server.from_viewer(struct.pack(">BH", 0x84, 0x8000 | (3 + 8 + 4)) + mac + data)
    assert recoded == b"\4\x80\7keys"


@pytest.mark.parametrize("method", [METHOD_40, METHOD_128])
def test_keys_are_replaced_after_4096_packets(method, server_key):
    server, viewer = pair(server_key, method)
    direction = security._Direction(viewer.keys.from_viewer, method)
    for number in range(security.UPDATE_AFTER + 3):
        plain = b"packet %d" % number
        data = struct.pack("<HH", 8, 0) + security.mac(viewer.keys.mac, plain) + direction.crypt(plain)
        assert SendData.parse(server.from_viewer(SendData(CHANNEL, data).pack())).payload == plain
    assert direction._key != viewer.keys.from_viewer


def test_a_changed_pdu_ends_the_session(server_key):
    server, viewer = pair(server_key)
    data = bytearray(viewer.seal(b"login", 0x40))
    data[-1] ^= 1
    with pytest.raises(RdpError, match="MAC"):
        server.from_viewer(bytes(data))


@pytest.mark.parametrize(
    "data",
    [
        SendData(CHANNEL, b"\0\0\0\0plain").pack(),
        SendData(CHANNEL, b"\x08\0\0\0short").pack(),
        SendData(CHANNEL, b"\0\0\0").pack(),
        b"\0\6abcd",
        b"\x80\4ab",
    ],
)
def test_unencrypted_and_cut_pdus_are_refused(data, server_key):
    server, _ = pair(server_key)
    with pytest.raises(RdpError):
        server.from_viewer(data)


def test_nothing_encrypted_before_the_keys_and_no_second_exchange(server_key):
    server = StandardSecurity(server_key)
    viewer = Viewer(server.choose(METHOD_128))
    with pytest.raises(RdpError):
        server.from_viewer(viewer.seal(b"x", 0x40))
    with pytest.raises(RdpError):
        server.from_viewer(SendData(CHANNEL, struct.pack("<HHI", 1, 0, 8) + bytes(8)).pack())
    assert server.from_viewer(viewer.exchange()) is None
    with pytest.raises(RdpError):
        server.from_viewer(viewer.exchange())
    with pytest.raises(RdpError):
        security.choose_method(16)
