"""A VNC viewer's clipboard, without I/O: RFB's cut text, in Latin-1 (RFC 6143, 7.5.6 and 7.6.4), and for viewers that know it the extended
form (rfbproto, "Extended Clipboard Pseudo-Encoding"), in UTF-8.

::

    viewer that knows the extended form        us
      │── SetEncodings, with it ─────────────────▶│
      │◀─ capabilities ───────────────────────────│
      │── notify: text, or provide ──────────────▶│   the viewer has copied
      │◀─ request: text ──────────────────────────│   somebody pastes in the guest
      │── provide: text ─────────────────────────▶│
      │◀─ provide: text ──────────────────────────│   the guest has copied

In the older form a text comes and goes as soon as it is copied. The viewer's own cut text never reaches QEMU, which would hand it to the
other viewers.
"""

import struct
import zlib
from collections.abc import Callable, Sequence

from teleport.vrde.clipboard import Clipboard
from teleport.vrde.rfb import ClientKind, RfbError, ServerKind
from teleport.vrde.vdagent import MOST_TEXT_BYTES

EXTENDED = -0x3F5E1A32  # the pseudo-encoding 0xC0A1E5CE
_TEXT = 1
_CAPABILITIES, _REQUEST, _PEEK, _NOTIFY, _PROVIDE = (1 << bit for bit in range(24, 29))
_LATIN_1 = "latin-1"


def _cut_text(kind: ClientKind | ServerKind, size: int, body: bytes) -> bytes:
    return struct.pack(">B3xi", kind, size) + body


def extended(kind: ClientKind | ServerKind, flags: int, more: bytes = b"") -> bytes:
    """A cut text of the extended form."""
    return _cut_text(kind, -(4 + len(more)), struct.pack(">I", flags) + more)


def provided(kind: ClientKind | ServerKind, text: str) -> bytes:
    """The extended message that brings a text (lines ended by a line feed)."""
    data = text.replace("\n", "\r\n").encode("utf-8", "replace") + b"\0"
    return extended(kind, _PROVIDE | _TEXT, zlib.compress(struct.pack(">I", len(data)) + data))


class RfbClipboard:
    """One viewer's; a `teleport.vrde.clipboard.ViewerClipboard`. `send` takes a whole message for the viewer."""

    def __init__(self, clipboard: Clipboard, send: Callable[[bytes], None]) -> None:
        self._clipboard = clipboard
        self._send = send
        self._is_extended = False
        self._joined = False
        self._copied: str | None = None  # the viewer's text, once it has been sent
        self._offered: str | None = None  # the guest's

    def encodings(self, wanted: Sequence[int]) -> None:
        """The viewer has said what it knows: from now on it takes messages."""
        if EXTENDED in wanted and not self._is_extended:
            self._is_extended = True
            flags = _CAPABILITIES | _REQUEST | _PEEK | _NOTIFY | _PROVIDE | _TEXT
            self._send(extended(ServerKind.CUT_TEXT, flags, struct.pack(">I", MOST_TEXT_BYTES)))
        if not self._joined:
            self._joined = True
            self._clipboard.joined(self)

    def end(self) -> None:
        """The viewer has gone."""
        self._clipboard.left(self)

    def offer(self, text: str | None) -> None:
        """See ViewerClipboard."""
        self._offered = text
        if self._is_extended:
            self._send(provided(ServerKind.CUT_TEXT, text) if text is not None else extended(ServerKind.CUT_TEXT, _NOTIFY))
        elif text is not None:  # in this form nothing can be taken back
            body = text.encode(_LATIN_1, "replace")
            self._send(_cut_text(ServerKind.CUT_TEXT, len(body), body))

    def ask(self) -> None:
        """See ViewerClipboard."""
        if self._copied is None:
            self._send(extended(ServerKind.CUT_TEXT, _REQUEST | _TEXT))
        else:
            self._clipboard.pasted(self, self._copied)

    def received(self, message: bytes) -> None:
        """Takes one whole cut text of the viewer. Raises RfbError."""
        if not self._joined:
            return
        (size,) = struct.unpack_from(">i", message, 4)
        if size >= 0:
            self._has_copied(message[8:].decode(_LATIN_1).replace("\r\n", "\n"))
            return
        if not self._is_extended or size > -4:
            raise RfbError("an extended clipboard that was not agreed on")
        (flags,) = struct.unpack_from(">I", message, 8)
        if flags & _CAPABILITIES:
            return
        if flags & _PROVIDE:
            self._was_provided(_text_in(message[12:]) if flags & _TEXT else None)
        elif flags & _NOTIFY:
            self._offered, self._copied = None, None
            self._clipboard.copied(self, has_text=bool(flags & _TEXT))
        elif flags & _REQUEST and self._offered is not None and flags & _TEXT:
            self._send(provided(ServerKind.CUT_TEXT, self._offered))
        elif flags & _PEEK:
            self._send(extended(ServerKind.CUT_TEXT, _NOTIFY | (_TEXT if self._offered is not None else 0)))

    def _was_provided(self, text: str | None) -> None:
        if self._clipboard.waits_for(self):
            self._clipboard.pasted(self, text)
        else:
            self._has_copied(text)

    def _has_copied(self, text: str | None) -> None:
        self._offered, self._copied = None, text
        self._clipboard.copied(self, has_text=bool(text))


def _text_in(data: bytes) -> str | None:
    """The text of a provide; None for one that is too long. Raises RfbError."""
    unpacker = zlib.decompressobj()
    try:
        unpacked = unpacker.decompress(data, 4 + MOST_TEXT_BYTES + 1)
    except zlib.error as error:
        raise RfbError("a clipboard that cannot be unpacked") from error
    if len(unpacked) < 4:
        raise RfbError("a clipboard without its length")
    size = int.from_bytes(unpacked[:4], "big")
    if size > MOST_TEXT_BYTES:
        return None
    if len(unpacked) < 4 + size:
        raise RfbError("a clipboard that lies about its length")
    return unpacked[4 : 4 + size].decode("utf-8", "replace").rstrip("\0").replace("\r\n", "\n")
