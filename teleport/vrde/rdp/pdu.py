"""The framing of RDP (MS-RDPBCGR 2.2.1, 2.2.9.1; T.123, X.224, T.125), without I/O.

::

    TPKT          03 00 LL LL                         length of all, big-endian
    X.224 data    02 f0 80                            connection request 0xe0, confirm 0xd0
    MCS           64|68 initiator(2) channel(2) 70 L  send data request (viewer) | indication (server); L: PER, one or two bytes
    fast path     first byte's low bits 00; L         one or two bytes, the whole PDU's length

Every function takes whole PDUs and raises RdpError when they are not what they should be.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

TPKT_HEAD_BYTES = 4
SEND_DATA_REQUEST, SEND_DATA_INDICATION = 0x64, 0x68
_X224_DATA = b"\x02\xf0\x80"


class RdpError(Exception):
    """The bytes are not RDP as it should be here; the connection must end."""


class Protocol(IntFlag):
    """requestedProtocols of RDP_NEG_REQ (2.2.1.1.1)."""

    RDP = 0
    TLS = 1
    HYBRID = 2
    RDSTLS = 4
    HYBRID_EX = 8


class Refusal(IntFlag):
    """failureCode of RDP_NEG_FAILURE (2.2.1.2.2)."""

    TLS_REQUIRED = 1
    TLS_NOT_ALLOWED = 2


def frame_length(head: bytes | bytearray) -> int | None:
    """The whole length of the PDU that starts with `head`; None while it takes more bytes to know. Raises RdpError."""
    if not head:
        return None
    if head[0] == 3:
        if len(head) < TPKT_HEAD_BYTES:
            return None
        length = int.from_bytes(head[2:4], "big")
        if length < TPKT_HEAD_BYTES + 3:
            raise RdpError("a TPKT shorter than its head")
        return length
    if head[0] & 3:
        raise RdpError(f"first byte {head[0]:#04x}: not RDP")
    if len(head) < 2:
        return None
    if not head[1] & 0x80:
        return _at_least(head[1], 2)
    return None if len(head) < 3 else _at_least((head[1] & 0x7F) << 8 | head[2], 3)


def _at_least(length: int, least: int) -> int:
    if length < least:
        raise RdpError("a fast-path PDU shorter than its head")
    return length


class FrameFollower:
    """Follows a stream that is passed on as it comes: where a PDU ends, something else may be put in."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._left = 0

    def feed(self, data: bytes) -> None:
        """The next bytes of the stream. Raises RdpError."""
        at = 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                continue
            self._head.append(data[at])
            at += 1
            if (length := frame_length(self._head)) is not None:
                self._left = length - len(self._head)
                self._head.clear()

    @property
    def missing_bytes(self) -> int:
        """At least so many are to come before the PDU under way ends; 0 between two."""
        return self._left or int(bool(self._head))


class FrameReader:
    """Cuts a stream into whole PDUs, TPKT and fast path. What is held is bounded by one PDU (64 KiB) and what was fed."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The PDUs that are whole now. Raises RdpError."""
        self._buffer += data
        frames = []
        while (length := frame_length(self._buffer[:4])) is not None and len(self._buffer) >= length:
            frames.append(bytes(self._buffer[:length]))
            del self._buffer[:length]
        return frames

    def rest(self) -> bytes:
        """What was fed and is no whole PDU yet; the reader is empty after."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest


def tpkt(body: bytes) -> bytes:
    """Puts a TPKT head before X.224 bytes."""
    length = TPKT_HEAD_BYTES + len(body)
    if length > 0xFFFF:
        raise RdpError("a PDU of more than 64 KiB")
    return struct.pack(">BBH", 3, 0, length) + body


@dataclass(frozen=True)
class ConnectionRequest:
    """X.224 connection request: `protocols` that the viewer offers (`negotiates`: it said so), its cookie line."""

    protocols: Protocol
    negotiates: bool
    cookie: bytes = b""

    @classmethod
    def parse(cls, pdu: bytes) -> "ConnectionRequest":
        """Reads 2.2.1.1. Raises RdpError."""
        if len(pdu) < 11 or pdu[0] != 3 or pdu[5] & 0xF0 != 0xE0:
            raise RdpError("not a connection request")
        body, cookie = pdu[11:], b""
        if body.startswith((b"Cookie: ", b"tsv:")):
            cookie, end, body = body.partition(b"\r\n")
            if not end:
                raise RdpError("a cookie without an end")
        if len(body) < 8 or body[0] != 1:
            return cls(Protocol.RDP, negotiates=False, cookie=cookie)
        kind, _, length, protocols = struct.unpack_from("<BBHI", body)
        if kind != 1 or length != 8:
            raise RdpError("a negotiation request of a wrong length")
        return cls(Protocol(protocols), negotiates=True, cookie=cookie)


PLAIN_REQUEST = bytes.fromhex("0300000b06e00000000000")  # asks for nothing but RDP: what our xrdp is told


def confirm(selected: Protocol) -> bytes:
    """X.224 connection confirm with RDP_NEG_RSP (2.2.1.2.1)."""
    return tpkt(bytes.fromhex("0ed00000123400") + struct.pack("<BBHI", 2, 1 if selected & Protocol.TLS else 0, 8, selected))


CONFIRM_WITHOUT_NEGOTIATION = tpkt(bytes.fromhex("06d00000123400"))  # for viewers that did not ask


def refuse(code: Refusal) -> bytes:
    """X.224 connection confirm with RDP_NEG_FAILURE (2.2.1.2.2)."""
    return tpkt(bytes.fromhex("0ed00000123400") + struct.pack("<BBHI", 3, 0, 8, code))


@dataclass(frozen=True)
class SendData:
    """MCS send data, request or indication: `head` is its first six bytes (kind, initiator, channel, flags)."""

    head: bytes
    payload: bytes

    @property
    def channel(self) -> int:
        """The MCS channel's id."""
        return int.from_bytes(self.head[3:5], "big")

    @classmethod
    def parse(cls, pdu: bytes) -> "SendData | None":
        """None for any PDU that is not MCS send data. Raises RdpError for one that lies about its length."""
        if len(pdu) < 15 or pdu[0] != 3 or pdu[4:7] != _X224_DATA or pdu[7] not in (SEND_DATA_REQUEST, SEND_DATA_INDICATION):
            return None
        length, at = pdu[13], 14
        if length & 0x80:
            length, at = (
                (length & 0x7F) << 8 | pdu[14],
                15,
            )  # 15 bits, as everybody does here (PER itself would split at 16 KiB)
        if len(pdu) - at != length:
            raise RdpError("an MCS PDU that lies about its length")
        return cls(pdu[7:13], pdu[at:])

    def pack(self) -> bytes:
        """The whole PDU."""
        if len(self.payload) > 0x7FFF:
            raise RdpError("an MCS payload of more than 32 KiB")
        length = struct.pack(">H", 0x8000 | len(self.payload))
        return tpkt(_X224_DATA + self.head + length + self.payload)


class ErrorInfo(IntEnum):
    """errorInfo of TS_SET_ERROR_INFO_PDU (2.2.5.1.1): what viewers say about the end of their session."""

    ENDED_BY_ADMINISTRATOR = 0x1  # ERRINFO_RPC_INITIATED_DISCONNECT
    ANOTHER_CONNECTION = 0x5  # ERRINFO_DISCONNECTED_BY_OTHERCONNECTION
    DENIED = 0x7  # ERRINFO_SERVER_DENIED_CONNECTION


_SHARE_ID = 0x103EA  # xrdp's
_SERVER_CHANNEL, _IO_CHANNEL = 1002, 1003
DISCONNECT = tpkt(_X224_DATA + b"\x20\x80")  # MCS disconnect provider ultimatum, reason rn-provider-initiated (T.125, 7)


def error_info(error: ErrorInfo) -> bytes:
    """Set Error Info PDU (2.2.5.1): says why, before `DISCONNECT`; for viewers that know it (RNS_UD_CS_SUPPORT_ERRINFO_PDU)."""
    data = struct.pack("<IBBHBBHI", _SHARE_ID, 0, 1, 8, 0x2F, 0, 0, error)  # share data header 2.2.8.1.1.1.2
    payload = struct.pack("<HHH", 6 + len(data), 0x17, _SERVER_CHANNEL) + data
    head = struct.pack(">BHHB", SEND_DATA_INDICATION, _SERVER_CHANNEL - 1001, _IO_CHANNEL, 0x70)
    return SendData(head, payload).pack()
