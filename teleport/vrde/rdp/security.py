"""Standard RDP Security (MS-RDPBCGR 5.3), spoken by the front itself: RSA for the key, RC4 and a MAC for the rest, without I/O.

It is here because the manual names it (`Security/Method=RDP`, `rdesktop -4` and `-5`), not because it protects: the server's
certificate is signed with a key that has been public for years (manual, 7.1.6), so anyone in the middle can read everything. TLS is
what a viewer gets that can speak it.

::

    viewer                                     front                                 xrdp (no encryption)
      │── Connect-Initial (methods offered) ─────▶│── the same, without the offer ──────▶│
      │◀─ Connect-Response (random, public key) ──│◀─ Connect-Response ──────────────────│
      │── Security Exchange (its random, RSA) ───▶│   keys                               │
      │── every PDU: security head, MAC, RC4 ────▶│── plain; a security head only before the licence is settled
      │◀─ every PDU: security head, MAC, RC4 ─────│◀─ plain ─────────────────────────────│
"""

import hashlib
import hmac
import secrets
import struct
from dataclasses import dataclass, replace

from cryptography.hazmat.decrepit.ciphers.algorithms import ARC4
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext

from teleport.vrde.rdp.pdu import RdpError, SendData

RANDOM_BYTES = 32
SEC_EXCHANGE, SEC_ENCRYPT, SEC_INFO, SEC_LICENSE, SEC_SECURE_CHECKSUM = 0x1, 0x8, 0x40, 0x80, 0x800
FAST_PATH_ENCRYPTED, FAST_PATH_SECURE_CHECKSUM = 0x80, 0x40  # flags in the two high bits of the first byte
METHOD_40, METHOD_128, METHOD_56 = 1, 2, 8
UPDATE_AFTER = 4096  # packets, after which a key is replaced (5.3.7)

# The Terminal Services signing key of 5.3.3.1.1, published there: modulus and private exponent, little-endian.
_SIGNING_MODULUS = int.from_bytes(
    bytes.fromhex(
        "3d3a5ebd72433ec94dbbc11e4aba5fcb3e882087eff5c1e2d7b76b9af2524595"
        "ce63656b583afeef7ce7bffe3df65c7d6c5e06091af561bb2093095f056dea87"
    ),
    "little",
)
_SIGNING_EXPONENT = int.from_bytes(
    bytes.fromhex(
        "87a71932da11875558001616256568f8243ee6fae9674994cf92cc3399e80860"
        "179a129f24ddb12499c73ab80a7b0ddd350779170b519bb3c7100113e73ff35f"
    ),
    "little",
)


class ServerKey:
    """The server's RSA key of 2048 bits and its proprietary certificate (2.2.1.4.3.1.1), made afresh at each start."""

    def __init__(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._numbers = key.private_numbers()
        size = key.key_size // 8
        modulus = self._numbers.public_numbers.n.to_bytes(size, "little")
        blob = struct.pack("<4sIIII", b"RSA1", size + 8, 8 * size, size - 1, 65537) + modulus + bytes(8)
        signed = struct.pack("<IIIHH", 1, 1, 1, 6, len(blob)) + blob
        digest = hashlib.md5(signed, usedforsecurity=False).digest()
        padded = int.from_bytes(digest + b"\0" + b"\xff" * 45 + b"\1", "little")
        signature = pow(padded, _SIGNING_EXPONENT, _SIGNING_MODULUS).to_bytes(64, "little") + bytes(8)
        self.certificate = signed + struct.pack("<HH", 8, len(signature)) + signature
        self._size = size

    def decrypt_random(self, encrypted: bytes) -> bytes:
        """The viewer's random number out of a Security Exchange PDU's content (2.2.1.10.1). Raises RdpError."""
        if len(encrypted) != self._size + 8:
            raise RdpError("a Security Exchange of a wrong length")
        number = int.from_bytes(encrypted[: self._size], "little")
        if number >= self._numbers.public_numbers.n:
            raise RdpError("a Security Exchange beyond the key")
        plain = pow(number, self._numbers.d, self._numbers.public_numbers.n)
        return (plain & ((1 << 8 * RANDOM_BYTES) - 1)).to_bytes(RANDOM_BYTES, "little")


def choose_method(offered: int) -> int:
    """The strongest of 40, 56 and 128 bits that the viewer offers. Raises RdpError when it offers none."""
    for method in (METHOD_128, METHOD_56, METHOD_40):
        if offered & method:
            return method
    raise RdpError("the viewer offers no encryption")


def security_data(method: int, server_random: bytes, certificate: bytes) -> bytes:
    """SC_SECURITY's content (2.2.1.4.3); the level is high for 128 bits and "client compatible" for less."""
    level = 3 if method == METHOD_128 else 2
    return struct.pack("<IIII", method, level, len(server_random), len(certificate)) + server_random + certificate


def _sha1(*parts: bytes) -> bytes:
    return hashlib.sha1(b"".join(parts), usedforsecurity=False).digest()


def _md5(*parts: bytes) -> bytes:
    return hashlib.md5(b"".join(parts), usedforsecurity=False).digest()


def _salted(secret: bytes, letter: bytes, client: bytes, server: bytes) -> bytes:
    return b"".join(_md5(secret, _sha1(letter_n, secret, client, server)) for letter_n in _letters(letter))


def _letters(first: bytes) -> tuple[bytes, bytes, bytes]:
    return first, bytes((first[0] + 1,)) * 2, bytes((first[0] + 2,)) * 3


def _shorten(key: bytes, method: int) -> bytes:
    if method == METHOD_40:
        return b"\xd1\x26\x9e" + key[3:8]
    return b"\xd1" + key[1:8] if method == METHOD_56 else key


class _Direction:
    """RC4 in one direction, with its replacement of keys every 4096 packets (5.3.7)."""

    def __init__(self, key: bytes, method: int) -> None:
        self._first = self._key = key
        self._method = method
        self._packets = 0
        self.total = 0  # packets since the start, which a salted MAC includes
        self._start()

    def _start(self) -> None:
        self._cipher: CipherContext = Cipher(ARC4(self._key), mode=None).encryptor()

    def crypt(self, data: bytes) -> bytes:
        if self._packets == UPDATE_AFTER:
            fresh = _md5(self._first, b"\x5c" * 48, _sha1(self._first, b"\x36" * 40, self._key))[: len(self._key)]
            fresh = Cipher(ARC4(fresh), mode=None).encryptor().update(fresh)
            self._key = _shorten(fresh, self._method)
            self._packets = 0
            self._start()
        self._packets += 1
        self.total += 1
        return self._cipher.update(data)


@dataclass(frozen=True)
class Keys:
    """Session keys (5.3.5): for the MAC, for what the viewer sends, for what the server sends."""

    mac: bytes
    from_viewer: bytes
    from_server: bytes

    @classmethod
    def derive(cls, client: bytes, server: bytes, method: int) -> "Keys":
        """From both random numbers of 32 bytes."""
        master = _salted(client[:24] + server[:24], b"A", client, server)
        block = _salted(master, b"X", client, server)
        keys = (block[:16], _md5(block[32:48], client, server), _md5(block[16:32], client, server))
        size = 16 if method == METHOD_128 else 8
        return cls(*(_shorten(key[:size], method) for key in keys))


def mac(key: bytes, data: bytes, salt: bytes = b"") -> bytes:
    """The 8-byte MAC of 5.3.6.1, or the salted one of 5.3.6.1.1 with the packet's number as `salt`."""
    return _md5(key, b"\x5c" * 48, _sha1(key, b"\x36" * 40, struct.pack("<I", len(data)), data, salt))[:8]


class StandardSecurity:
    """One viewer's session: PDUs in, PDUs out. A PDU whose MAC is wrong raises RdpError."""

    def __init__(self, key: ServerKey) -> None:
        self._server_key = key
        self.server_random = secrets.token_bytes(RANDOM_BYTES)
        self.method = 0
        self._keys: Keys | None = None
        self._licensed = False

    def choose(self, offered: int) -> bytes:
        """Settles the method and returns SC_SECURITY's content."""
        self.method = choose_method(offered)
        return security_data(self.method, self.server_random, self._server_key.certificate)

    def _exchange(self, payload: bytes) -> None:
        if self._keys or len(payload) < 8:
            raise RdpError("a Security Exchange out of turn")
        (length,) = struct.unpack_from("<I", payload, 4)
        client_random = self._server_key.decrypt_random(payload[8 : 8 + length])
        self._keys = Keys.derive(client_random, self.server_random, self.method)
        self._from_viewer = _Direction(self._keys.from_viewer, self.method)
        self._from_server = _Direction(self._keys.from_server, self.method)

    def _open(self, sealed: bytes, *, salted: bool) -> bytes:
        if not self._keys or len(sealed) < 8:
            raise RdpError("an encrypted PDU out of turn")
        salt = struct.pack("<I", self._from_viewer.total) if salted else b""
        plain = self._from_viewer.crypt(sealed[8:])
        if not hmac.compare_digest(mac(self._keys.mac, plain, salt), sealed[:8]):
            raise RdpError("a PDU with a wrong MAC")
        return plain

    def _seal(self, plain: bytes) -> bytes:
        if not self._keys:
            raise RdpError("a PDU before the keys")
        return mac(self._keys.mac, plain) + self._from_server.crypt(plain)

    def from_viewer(self, pdu: bytes) -> bytes | None:
        """The viewer's PDU as xrdp is to get it; None when it was for us alone. Raises RdpError."""
        if pdu[0] & 3 == 0:
            if not pdu[0] & FAST_PATH_ENCRYPTED:
                raise RdpError("an input PDU that is not encrypted")
            salted = bool(pdu[0] & FAST_PATH_SECURE_CHECKSUM)
            return _fast_path(pdu[0] & 0x3F, self._open(pdu[3 if pdu[1] & 0x80 else 2 :], salted=salted))
        data = SendData.parse(pdu)
        if data is None:
            return pdu
        if len(data.payload) < 4:
            raise RdpError("a PDU without a security head")
        (flags,) = struct.unpack_from("<H", data.payload)
        if flags & SEC_EXCHANGE:
            self._exchange(data.payload)
            return None
        if flags & SEC_ENCRYPT:
            plain = self._open(data.payload[4:], salted=bool(flags & SEC_SECURE_CHECKSUM))
        elif flags & SEC_LICENSE:
            plain = data.payload[4:]
        else:
            raise RdpError("a PDU that is not encrypted")
        keeps_head = flags & (SEC_INFO | SEC_LICENSE)
        head = struct.pack("<HH", flags & ~(SEC_ENCRYPT | SEC_SECURE_CHECKSUM), 0) if keeps_head else b""
        return replace(data, payload=head + plain).pack()

    def from_server(self, pdu: bytes) -> bytes:
        """xrdp's PDU as the viewer is to get it. Raises RdpError."""
        if pdu[0] & 3 == 0:
            return _fast_path(pdu[0] | FAST_PATH_ENCRYPTED, self._seal(pdu[3 if pdu[1] & 0x80 else 2 :]))
        data = SendData.parse(pdu)
        if data is None or not self._keys:
            return pdu
        if not self._licensed:
            # Licensing PDUs come with a head of their own and may stay in the clear; the first share PDU (2.2.8.1.1.1.1), which
            # begins with its own length, is the end of them.
            if int.from_bytes(data.payload[:2], "little") != len(data.payload):
                return pdu
            self._licensed = True
        return replace(data, payload=struct.pack("<HH", SEC_ENCRYPT, 0) + self._seal(data.payload)).pack()


def _fast_path(first: int, content: bytes) -> bytes:
    if 3 + len(content) > 0x7FFF:
        raise RdpError("a fast-path PDU of more than 32 KiB")
    return struct.pack(">BH", first, 0x8000 | (3 + len(content))) + content
