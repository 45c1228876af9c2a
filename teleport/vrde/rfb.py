"""RFB, the protocol of VNC (RFC 6143), without I/O: what a relay must understand to change the server under a viewer.

::

    viewer                    relay                       QEMU
      │◀── version, security ──│                            │
      │─── ClientInit ────────▶│── version, None, shared ──▶│
      │◀── ServerInit ─────────│◀── ServerInit ─────────────│
      │─── SetPixelFormat, SetEncodings, requests, input ──▶│   remembered: the first two are replayed to the next server
      │◀── whole updates only ──────────────────────────────│   so that a switch falls between two messages

Parsers are generators: they yield how many bytes they need next and return one message. Handshakes yield an int (bytes needed) or
bytes (to be sent). Whatever cannot be measured is refused, so that a message's end is always known: viewers' encodings are reduced
to those in `MEASURABLE`. Everything has a bound. RfbError: the stream makes no sense and the connection must end.
"""

import struct
from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

MOST_PIXELS = 8192 * 4320
MOST_TEXT_BYTES = 1 << 20
MOST_NAME_BYTES = 4096
MOST_ENCODINGS = 256
MOST_MONITORS = 16
VERSION = b"RFB 003.008\n"


class RfbError(Exception):
    """The bytes are not RFB, or exceed a bound; the connection cannot be followed any further."""


class ClientKind(IntEnum):
    """First byte of a viewer's messages (RFC 6143, 7.5; 255: QEMU's extensions)."""

    SET_PIXEL_FORMAT = 0
    SET_ENCODINGS = 2
    UPDATE_REQUEST = 3
    KEY = 4
    POINTER = 5
    CUT_TEXT = 6
    SET_DESKTOP_SIZE = 251
    QEMU = 255


class ServerKind(IntEnum):
    """First byte of a server's messages (RFC 6143, 7.6; 255: QEMU's audio)."""

    UPDATE = 0
    COLOUR_MAP = 1
    BELL = 2
    CUT_TEXT = 3
    QEMU = 255


class Encoding(IntEnum):
    """Encodings and pseudo-encodings whose rectangles can be measured (RFC 6143, 7.7; rfbproto, QEMU's docs/interop)."""

    RAW = 0
    COPY_RECT = 1
    CURSOR = -239
    DESKTOP_SIZE = -223
    QEMU_EXTENDED_KEY = -258
    QEMU_AUDIO = -259


MEASURABLE = frozenset(Encoding)
EXTENDED_DESKTOP_SIZE = -308  # between the relay and a viewer only (rfbproto): never asked of QEMU


@dataclass(frozen=True, slots=True)
class ClientMessage:
    """One whole message of a viewer, first byte included."""

    kind: ClientKind
    data: bytes


@dataclass(frozen=True, slots=True)
class Rectangle:
    """One rectangle of an update, in pixels; `data` is what follows its 12-byte header."""

    x: int
    y: int
    width: int
    height: int
    encoding: int
    data: bytes = b""

    def pack(self) -> bytes:
        """The header's bytes."""
        return struct.pack(">4Hi", self.x, self.y, self.width, self.height, self.encoding)


@dataclass(frozen=True)
class ServerInit:
    """A framebuffer's size in pixels, its 16-byte pixel format and its name."""

    width: int
    height: int
    pixel_format: bytes
    name: bytes = b""

    def pack(self, name: bytes | None = None) -> bytes:
        """The message's bytes, under another name if given."""
        name = self.name if name is None else name
        return struct.pack(">HH", self.width, self.height) + self.pixel_format + struct.pack(">I", len(name)) + name


Message = TypeVar("Message")
Parser = Generator[int, bytes, Message]
Handshake = Generator[int | bytes, bytes, Message]


class MessageReader(Generic[Message]):
    """Turns a stream of bytes into whole messages by a parser, keeping what is left over."""

    def __init__(self, parser: Callable[[], Parser[Message]]) -> None:
        self._parser = parser
        self._buffer = bytearray()
        self._start()

    def _start(self) -> None:
        self._running = self._parser()
        self._needed = next(self._running)

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are complete now. Raises RfbError, after which the reader is not to be used."""
        self._buffer += data
        messages = []
        while len(self._buffer) >= self._needed:
            piece = bytes(memoryview(self._buffer)[: self._needed])
            del self._buffer[: self._needed]
            try:
                self._needed = self._running.send(piece)
            except StopIteration as finished:
                messages.append(finished.value)
                self._start()
        return messages


_FIXED_CLIENT = {
    ClientKind.SET_PIXEL_FORMAT: 19,
    ClientKind.UPDATE_REQUEST: 9,
    ClientKind.KEY: 7,
    ClientKind.POINTER: 5,
}
_QEMU_CLIENT_EXTENDED_KEY, _QEMU_CLIENT_AUDIO, _QEMU_AUDIO_FORMAT = 0, 1, 2


def client_message() -> Parser[ClientMessage]:
    """Parses one message of a viewer."""
    head = yield 1
    try:
        kind = ClientKind(head[0])
    except ValueError as error:
        raise RfbError(f"a viewer's message of unknown kind {head[0]}") from error
    if kind in _FIXED_CLIENT:
        return ClientMessage(kind, head + (yield _FIXED_CLIENT[kind]))
    if kind is ClientKind.SET_ENCODINGS:
        head += yield 3
        (count,) = struct.unpack_from(">H", head, 2)
        if count > MOST_ENCODINGS:
            raise RfbError(f"{count} encodings")
        return ClientMessage(kind, head + (yield 4 * count) if count else head)
    if kind is ClientKind.CUT_TEXT:
        head += yield 7
        (size,) = struct.unpack_from(">i", head, 4)
        size = abs(size)  # negative: the extended clipboard's form, of that many bytes
        if size > MOST_TEXT_BYTES:
            raise RfbError(f"a clipboard of {size} bytes")
        return ClientMessage(kind, head + (yield size) if size else head)
    if kind is ClientKind.SET_DESKTOP_SIZE:
        head += yield 7
        if head[6] > MOST_MONITORS:
            raise RfbError(f"{head[6]} monitors")
        return ClientMessage(kind, head + (yield 16 * head[6]) if head[6] else head)
    head += yield 1
    if head[1] == _QEMU_CLIENT_EXTENDED_KEY:
        return ClientMessage(kind, head + (yield 10))
    if head[1] == _QEMU_CLIENT_AUDIO:
        head += yield 2
        return ClientMessage(kind, head + (yield 6) if head[3] == _QEMU_AUDIO_FORMAT else head)
    raise RfbError(f"QEMU's extension {head[1]} is unknown")


def pixel_bytes(pixel_format: bytes) -> int:
    """Bytes a pixel of a 16-byte pixel format. Raises RfbError."""
    bits = pixel_format[0]
    if bits not in (8, 16, 32):
        raise RfbError(f"pixels of {bits} bits")
    return bits // 8


def payload_bytes(width: int, height: int, encoding: int, pixel_format: bytes) -> int:
    """How many bytes follow the head of a rectangle. Raises RfbError for what cannot be measured."""
    if width * height > MOST_PIXELS:
        raise RfbError(f"a rectangle of {width}x{height}")
    pixels = width * height * pixel_bytes(pixel_format)
    match encoding:
        case Encoding.RAW:
            return pixels
        case Encoding.COPY_RECT:
            return 4
        case Encoding.CURSOR:
            return pixels + (width + 7) // 8 * height
        case Encoding.DESKTOP_SIZE | Encoding.QEMU_EXTENDED_KEY | Encoding.QEMU_AUDIO:
            return 0
    raise RfbError(f"encoding {encoding} was not asked for")


_AUDIO_DATA = 2  # QEMU's audio: 0 ends, 1 begins, 2 carries samples


def server_message_bytes(kind: ServerKind, head: bytes) -> int | None:
    """The whole length of a server's message that is not an update; None while `head` (at most 8 bytes) is too short to know."""
    if kind is ServerKind.BELL:
        return 1
    if kind is ServerKind.QEMU and len(head) >= 4:
        if head[1] != 1:
            raise RfbError(f"QEMU's extension {head[1]} is unknown")
        if struct.unpack_from(">H", head, 2)[0] != _AUDIO_DATA:
            return 4
    if kind is ServerKind.COLOUR_MAP:
        return None if len(head) < 6 else 6 + 6 * int.from_bytes(head[4:6], "big")
    if len(head) < 8:
        return None
    size = abs(int.from_bytes(head[4:8], "big", signed=kind is ServerKind.CUT_TEXT))
    if size > MOST_TEXT_BYTES:
        raise RfbError(f"{size} bytes of clipboard or sound")
    return 8 + size


def set_encodings(wanted: list[int]) -> bytes:
    """The message that asks for these encodings."""
    return struct.pack(f">BxH{len(wanted)}i", ClientKind.SET_ENCODINGS, len(wanted), *wanted)


def encodings_of(message: bytes) -> list[int]:
    """What a SetEncodings message asks for."""
    return list(struct.unpack_from(f">{(len(message) - 4) // 4}i", message, 4))


def update_request(x: int, y: int, width: int, height: int, *, incremental: bool) -> bytes:
    """The message that asks for an update of an area in pixels."""
    return struct.pack(">BB4H", ClientKind.UPDATE_REQUEST, incremental, x, y, width, height)


def resize(width: int, height: int) -> bytes:
    """The update that tells a viewer of a new size in pixels."""
    return struct.pack(">BxH", ServerKind.UPDATE, 1) + Rectangle(0, 0, width, height, Encoding.DESKTOP_SIZE).pack()


def desktop_size_of(message: bytes) -> tuple[int, int]:
    """The size in pixels that a SetDesktopSize message asks for."""
    width, height = struct.unpack_from(">HH", message, 2)
    return width, height


def extended_resize(width: int, height: int, *, was_asked_for: bool = False) -> bytes:
    """The update that tells a viewer of a size in pixels, of one monitor, and so that it may ask for others (rfbproto, ExtendedDesktopSize:
    x is who changed it, the server or this viewer, y 0: it was done)."""
    head = Rectangle(int(was_asked_for), 0, width, height, EXTENDED_DESKTOP_SIZE).pack()
    monitor = struct.pack(">IHHHHI", 0, 0, 0, width, height, 0)
    return struct.pack(">BxH", ServerKind.UPDATE, 1) + head + b"\1\0\0\0" + monitor


def server_handshake() -> Handshake[ServerInit]:
    """What the relay says to QEMU: the unix socket's permissions protect it, so only security type None is taken."""
    version = yield 12
    if not version.startswith(b"RFB 003."):
        raise RfbError("not a VNC server")
    yield VERSION
    count = (yield 1)[0]
    if not count:
        raise RfbError("the VNC server refuses every connection")
    if 1 not in (yield count):
        raise RfbError("the VNC server asks for a password")
    yield b"\1"
    if (yield 4) != bytes(4):
        raise RfbError("the VNC server refused")
    yield b"\1"  # shared: other viewers stay
    head = yield 24
    width, height = struct.unpack_from(">HH", head)
    (size,) = struct.unpack_from(">I", head, 20)
    if size > MOST_NAME_BYTES or width * height > MOST_PIXELS:
        raise RfbError("a desktop beyond every measure")
    pixel_bytes(head[4:20])
    return ServerInit(width, height, head[4:20], (yield size) if size else b"")


@dataclass(frozen=True)
class Password:
    """VNC authentication as the server sees it: the random `challenge` of 16 bytes and the right answer to it.

    `equals` compares in constant time.
    """

    challenge: bytes
    response: bytes
    equals: Callable[[bytes, bytes], bool]


@dataclass(frozen=True)
class ViewerAnswer:
    """How a viewer began: its protocol's minor version, and its answer to the challenge (b"": it was given none)."""

    minor: int
    response: bytes = b""


def viewer_security(challenge: bytes) -> Handshake[ViewerAnswer]:
    """What the relay says to a viewer first, in RFB 3.3, 3.7 or 3.8 as it likes. `challenge` b"": no password is asked for."""
    yield VERSION
    version = yield 12
    if not version.startswith(b"RFB 003."):
        raise RfbError("not a VNC viewer")
    minor = int(version[8:11]) if version[8:11].isdigit() else 0
    kind = 2 if challenge else 1
    if minor < 7:
        yield struct.pack(">I", kind)
    else:
        yield bytes((1, kind))
        if (yield 1)[0] != kind:
            raise RfbError("the viewer wants another kind of security")
    if not challenge:
        return ViewerAnswer(minor)
    yield challenge
    return ViewerAnswer(minor, (yield 16))


def viewer_refused(answer: ViewerAnswer, why: str) -> bytes:
    """What the relay says to a viewer that may not come in, before it ends the connection."""
    reason = why.encode()
    if answer.minor >= 8:
        return struct.pack(">II", 1, len(reason)) + reason
    return struct.pack(">I", 1) if answer.response else b""


def viewer_welcome(answer: ViewerAnswer, init: bytes) -> Handshake[None]:
    """What the relay says to a viewer that may come in; `init` is the ServerInit."""
    if answer.response or answer.minor >= 8:
        yield bytes(4)
    yield 1  # ClientInit: the relay shares in any case
    yield init
