"""How a shared device's bytes travel to a front: from a viewer's computer over TLS, and from one front to another in the tunnel.

::

    sharer                                   front
      │── one line of JSON: `Claim` ───────────▶│   and the login, from a viewer's computer
      │◀─ {"ok": true} | {"ok": false, "why"} ──│
      │── frame 0: usbredir, the host's side ──▶│
      │◀─ frame 0: usbredir, the guest's side ──│
      │◀─ frame 1: a notice for a person ───────│

A frame is its kind (1 byte), its length (4 bytes, big-endian), and that many bytes.
"""

import asyncio
import json
import struct
from dataclasses import dataclass, field
from enum import IntEnum

from teleport.errors import ProtocolError

COOKIE = b"Cookie: teleport=usb"  # in the X.224 request on the display's port: not a viewer, a device
MOST_LINE_BYTES = 8192
MOST_FRAME_BYTES = 1 << 20
READ_BYTES = 1 << 16
_TEXT_CHARACTERS = 126  # of a USB string descriptor


class FrameKind(IntEnum):
    """The first byte."""

    USBREDIR = 0
    NOTICE = 1


def frame(kind: FrameKind, data: bytes) -> bytes:
    """Packs one frame, or several when it is long."""
    parts = [data[at : at + MOST_FRAME_BYTES] for at in range(0, len(data), MOST_FRAME_BYTES)]
    return b"".join(struct.pack(">BI", kind, len(part)) + part for part in parts)


async def read_frame(reader: asyncio.StreamReader) -> tuple[FrameKind, bytes]:
    """The next one. Raises ProtocolError, IncompleteReadError at the end."""
    kind, length = struct.unpack(">BI", await reader.readexactly(5))
    if kind not in (FrameKind.USBREDIR, FrameKind.NOTICE) or length > MOST_FRAME_BYTES:
        raise ProtocolError("remote USB", f"a frame of kind {kind} with {length} bytes")
    return FrameKind(kind), await reader.readexactly(length)


@dataclass(frozen=True)
class Claim:
    """What the sharer says: the login (empty between fronts), whose device it is (from a front), and the device's texts."""

    user: str = ""
    password: str = field(default="", repr=False)
    domain: str = ""
    client: str = ""
    manufacturer: str = ""
    product: str = ""
    serial_number: str = ""

    def line(self) -> bytes:
        """As it is sent."""
        return json.dumps(vars(self)).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> "Claim":
        """Raises ProtocolError."""
        try:
            raw = json.loads(line)
            if not (isinstance(raw, dict) and all(isinstance(each, str) for each in raw.values())):
                raise ValueError("not texts")
            if not all(value.isprintable() for name, value in raw.items() if name != "password"):
                raise ValueError("control characters")
            for value in raw.values():
                value.encode()  # half of a surrogate pair is no text: JSON can name one
            texts = ("manufacturer", "product", "serial_number", "client")
            return cls(**{name: value[:_TEXT_CHARACTERS] if name in texts else value for name, value in raw.items()})
        except (ValueError, TypeError, RecursionError) as error:
            raise ProtocolError("remote USB", "the login makes no sense") from error


async def read_line(reader: asyncio.StreamReader) -> bytes:
    """One line of JSON. Raises ProtocolError when it is too long, IncompleteReadError at the end."""
    line = b""
    while not line.endswith(b"\n"):
        line += await reader.readexactly(1)  # the streams have limits of their own kind; logins are short
        if len(line) > MOST_LINE_BYTES:
            raise ProtocolError("remote USB", f"a line of more than {MOST_LINE_BYTES} bytes")
    return line


def answer(why: str = "") -> bytes:
    """The front's line; "" lets the device in."""
    return json.dumps({"ok": not why, "why": why}).encode() + b"\n"


def refusal_in(line: bytes) -> str:
    """Why the front's line lets nobody in; "" when it does. Raises ProtocolError."""
    try:
        raw = json.loads(line)
        return "" if raw["ok"] else str(raw["why"]) or "refused"
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ProtocolError("remote USB", "what answers is no display of Teleport") from error
