"""xrdp's side door for virtual channels, without I/O: whoever it dials as `chansrvport` gets what viewers send over their channels.

::

    block     version(4) = 0, length(4), messages; lengths include themselves and all before them in their head; little-endian
    message   kind(4), length(4), body
      3  from xrdp  setup: count(2), then name(8), channel(2), flags(2) of each; once, first
      5  from xrdp  data: channel(2), flags(2), length(2), whole length(4), a chunk
      8  to xrdp    data, likewise

A PDU goes in chunks of at most 1600 bytes, the first and the last flagged (MS-RDPBCGR 2.2.6.1). Facts: xrdp 0.9.21.
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


def block() -> Parser[list[Setup | Chunk]]:
    """Parses one block (a MessageReader's parser). Raises RdpError."""
    _, length = struct.unpack("<II", (yield 8))
    if not 16 <= length <= MOST_BLOCK_BYTES:
        raise RdpError(f"a block of {length} bytes from xrdp")
    body = yield length - 8
    messages: list[Setup | Chunk] = []
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
        blocks += struct.pack("<IIII", 0, 16 + len(body), _DATA_OUT, 8 + len(body)) + body
    return bytes(blocks)
