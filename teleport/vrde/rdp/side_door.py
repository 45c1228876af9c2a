"""xrdp's side door for virtual channels, without I/O: whoever it dials as `chansrvport` gets what viewers send over their channels.

::

    block     version(4) = 0, length(4), messages; lengths include themselves and all before them in their head; little-endian
    message   kind(4), length(4), body
      3  from xrdp  setup: count(2), then name(8), channel(2), flags(2) of each; once, first
      5  from xrdp  data: channel(2), flags(2), length(2), whole length(4), a chunk
      8  to xrdp    data, likewise
     12  to xrdp    open a dynamic channel (MS-RDPEDYC): length of its name(4), name, flags(4) = 1, channel(4)
     13  from xrdp  the viewer's answer: channel(4), status(4), 0 when it is open now
     14  to xrdp    close it: channel(4)
     15  from xrdp  it is closed: channel(4)
     17  from xrdp  data, the first piece of several: channel(4), length(4), whole length(4), a piece
     18  to xrdp    data, a PDU or a further piece of one: channel(4), length(4), a piece
     19  from xrdp  likewise

A PDU goes in chunks of at most 1600 bytes, the first and the last flagged (MS-RDPBCGR 2.2.6.1). The numbers of dynamic channels are
ours, up to 255. Facts: xrdp 0.9.21.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from teleport.vrde.rdp.pdu import RdpError
from teleport.vrde.rfb import Parser

CHUNK_BYTES = 1600
FIRST, LAST = 1, 2
MOST_BLOCK_BYTES = 1 << 16
MOST_PDU_BYTES = 1 << 16
_SETUP, _DATA_IN, _DATA_OUT = 3, 5, 8
_OPEN, _OPENED, _CLOSE, _CLOSED, _PIECE_OUT = 12, 13, 14, 15, 18
_FIRST_PIECE_IN, _PIECE_IN = 17, 19
_DYNAMIC = 1
_DATA_HEAD = struct.Struct("<HHHI")


@dataclass(frozen=True)
class Setup:
    """The viewer's channels by name, as far as xrdp lets them through."""

    channels: Mapping[str, int]


@dataclass(frozen=True)
class Chunk:
    """A piece of a PDU of `total_bytes` that the viewer sent."""

    channel: int
    flags: int
    total_bytes: int
    data: bytes


@dataclass(frozen=True)
class Opened:
    """The viewer's answer to a dynamic channel: whether it is open."""

    channel: int
    is_open: bool


@dataclass(frozen=True)
class Closed:
    """A dynamic channel is closed, by either side."""

    channel: int


@dataclass(frozen=True)
class Piece:
    """Of a dynamic channel's PDU: the first of several has `total_bytes`, the others, and a PDU that is whole, 0."""

    channel: int
    total_bytes: int
    data: bytes


Dynamic = Opened | Closed | Piece
FromXrdp = Setup | Chunk | Dynamic


def block() -> Parser[list[FromXrdp]]:
    """Parses one block (a MessageReader's parser). Raises RdpError."""
    _, length = struct.unpack("<II", (yield 8))
    if not 16 <= length <= MOST_BLOCK_BYTES:
        raise RdpError(f"a block of {length} bytes from xrdp")
    body = yield length - 8
    messages: list[FromXrdp] = []
    while body:
        if len(body) < 8:
            raise RdpError("a message without a head from xrdp")
        kind, size = struct.unpack_from("<II", body)
        if not 8 <= size <= len(body):
            raise RdpError("a message that lies about its length from xrdp")
        if kind == _SETUP:
            messages.append(_setup(body[8:size]))
        elif kind == _DATA_IN:
            messages.append(_chunk(body[8:size]))
        elif kind in (_OPENED, _CLOSED, _FIRST_PIECE_IN, _PIECE_IN):
            messages.append(_dynamic(kind, body[8:size]))
        body = body[size:]
    return messages


def _setup(body: bytes) -> Setup:
    if len(body) < 2 or len(body) - 2 < 12 * body[0]:
        raise RdpError("a setup that lies about its channels")
    channels = {}
    for number in range(body[0]):
        name, channel, _ = struct.unpack_from("<8sHH", body, 2 + 12 * number)
        channels[name.split(b"\0")[0].decode("ascii", "replace").lower()] = channel
    return Setup(channels)


def _chunk(body: bytes) -> Chunk:
    if len(body) < _DATA_HEAD.size:
        raise RdpError("channel data without a head")
    channel, flags, size, total_bytes = _DATA_HEAD.unpack_from(body)
    if size != len(body) - _DATA_HEAD.size:
        raise RdpError("channel data that lies about its length")
    return Chunk(channel, flags, total_bytes, body[_DATA_HEAD.size :])


def _dynamic(kind: int, body: bytes) -> Dynamic:
    head_bytes = {_CLOSED: 4, _FIRST_PIECE_IN: 12}.get(kind, 8)
    if len(body) < head_bytes:
        raise RdpError("a dynamic channel's message without a head")
    channel, *more = struct.unpack_from(f"<{head_bytes // 4}I", body)
    if kind == _CLOSED:
        return Closed(channel)
    if kind == _OPENED:
        return Opened(channel, more[0] == 0)
    if more[0] != len(body) - head_bytes:
        raise RdpError("a dynamic channel's data that lies about its length")
    return Piece(channel, more[1] if kind == _FIRST_PIECE_IN else 0, body[head_bytes:])


class Assembly:
    """One channel's PDUs out of their chunks; a longer one than `most_bytes` is read past."""

    def __init__(self, most_bytes: int = MOST_PDU_BYTES) -> None:
        self._most_bytes = most_bytes
        self._parts = bytearray()
        self._is_too_long = False

    def feed(self, chunk: Chunk) -> bytes | None:
        """The PDU that this chunk ends, if it does."""
        if chunk.flags & FIRST:
            self._parts.clear()
            self._is_too_long = False
        self._is_too_long |= len(self._parts) + len(chunk.data) > self._most_bytes
        if not self._is_too_long:
            self._parts += chunk.data
        if not chunk.flags & LAST:
            return None
        whole = None if self._is_too_long else bytes(self._parts)
        self._parts.clear()
        return whole


def pack(channel: int, pdu: bytes) -> bytes:
    """The blocks that bring a PDU to the viewer."""
    blocks = bytearray()
    for at in range(0, len(pdu), CHUNK_BYTES):
        chunk = pdu[at : at + CHUNK_BYTES]
        flags = (FIRST if at == 0 else 0) | (LAST if at + CHUNK_BYTES >= len(pdu) else 0)
        body = _DATA_HEAD.pack(channel, flags, len(chunk), len(pdu)) + chunk
        blocks += _message(_DATA_OUT, body)
    return bytes(blocks)


class DynamicAssembly:
    """One dynamic channel's PDUs out of their pieces."""

    def __init__(self) -> None:
        self._missing_bytes = 0
        self._parts = bytearray()

    def feed(self, piece: Piece) -> bytes | None:
        """The PDU that this piece ends, if it does. Raises RdpError."""
        if piece.total_bytes > MOST_PDU_BYTES:
            raise RdpError(f"{piece.total_bytes} bytes at once in a dynamic channel")
        if piece.total_bytes:
            self._parts.clear()
            self._missing_bytes = piece.total_bytes
        if not self._missing_bytes:
            return piece.data
        self._parts += piece.data
        self._missing_bytes = max(0, self._missing_bytes - len(piece.data))
        if self._missing_bytes:
            return None
        whole = bytes(self._parts)
        self._parts.clear()
        return whole


def _message(kind: int, body: bytes) -> bytes:
    return struct.pack("<IIII", 0, 16 + len(body), kind, 8 + len(body)) + body


def open_dynamic(channel: int, name: str) -> bytes:
    """The block that asks the viewer for a dynamic channel, under a number of ours."""
    return _message(_OPEN, struct.pack("<I", len(name)) + name.encode() + struct.pack("<II", _DYNAMIC, channel))


def close_dynamic(channel: int) -> bytes:
    """The block that closes it."""
    return _message(_CLOSE, struct.pack("<I", channel))


def pack_dynamic(channel: int, pdu: bytes) -> bytes:
    """The block that brings a PDU of at most `CHUNK_BYTES` to it."""
    assert len(pdu) <= CHUNK_BYTES
    return _message(_PIECE_OUT, struct.pack("<II", channel, len(pdu)) + pdu)
