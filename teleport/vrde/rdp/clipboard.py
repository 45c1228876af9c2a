"""The clipboard channel `cliprdr` (MS-RDPECLIP), the server's side, text only, without I/O.

::

    viewer                              us
      │◀─ capabilities, monitor ready ────────────│
      │── format list ───────────────────────────▶│   the viewer has copied
      │◀─ format list response ───────────────────│
      │◀─ data request ───────────────────────────│   somebody pastes in the guest
      │── data response ─────────────────────────▶│
      │◀─ format list ────────────────────────────│   the guest has copied
      │── data request ──────────────────────────▶│
      │◀─ data response ──────────────────────────│

A PDU: type (2 bytes), flags (2), length of the rest (4), little-endian. Texts travel as CF_UNICODETEXT: UTF-16, lines ended by CR LF,
ended by a NUL.
"""

import struct
from collections.abc import Callable

from teleport.vrde.clipboard import Clipboard
from teleport.vrde.rdp.pdu import RdpError
from teleport.vrde.vdagent import MOST_TEXT_BYTES

CHANNEL = "cliprdr"
MOST_PDU_BYTES = 2 * MOST_TEXT_BYTES + 64
_MONITOR_READY, _FORMAT_LIST, _FORMAT_LIST_RESPONSE, _DATA_REQUEST, _DATA_RESPONSE, _CAPABILITIES = 1, 2, 3, 4, 5, 7
_OK, _FAIL = 1, 2
_TEXT, _UNICODE_TEXT = 1, 13  # CF_TEXT, CF_UNICODETEXT
_NAME_BYTES = 32  # of a format's short name: nobody has announced long ones
_NO_TEXT, _NO_TEXT_NAME = 0xC0DE, "Teleport empty"  # a registered format of our own, which nobody knows how to paste
_ANSI = "cp1252"


def _pdu(kind: int, flags: int = 0, body: bytes = b"") -> bytes:
    return struct.pack("<HHI", kind, flags, len(body)) + body


def format_list(*formats: int, name: str = "") -> bytes:
    """The PDU that offers these formats; registered ones have a name of at most 15 characters."""
    encoded = name.encode("utf-16-le").ljust(_NAME_BYTES, b"\0")
    return _pdu(_FORMAT_LIST, 0, b"".join(struct.pack("<I", each) + encoded for each in formats))


class ClipboardChannel:
    """One viewer's; a `teleport.vrde.clipboard.ViewerClipboard`. `send` takes a PDU for the viewer; `may_answer` says whether it takes
    a long one now: who asks and doesn't read gets no more."""

    most_bytes = MOST_PDU_BYTES

    def __init__(self, clipboard: Clipboard, send: Callable[[bytes], None], may_answer: Callable[[], bool]) -> None:
        self._clipboard = clipboard
        self._send = send
        self._may_answer = may_answer
        self._format = 0  # what the viewer offers its text as; 0: it offers none
        self._asked_format = 0
        self._text: str | None = None  # the guest's
        self._joined = False

    def begin(self) -> None:
        """Opens the channel."""
        general = struct.pack("<HHHHII", 1, 0, 1, 12, 2, 0)  # one set of capabilities, the general one: version 2, no flags
        self._send(_pdu(_CAPABILITIES, 0, general))
        self._send(_pdu(_MONITOR_READY))

    def end(self) -> None:
        """The viewer has gone."""
        self._clipboard.left(self)

    def offer(self, text: str | None) -> None:
        """See ViewerClipboard."""
        if text is not None:
            self._send(format_list(_UNICODE_TEXT, _TEXT))
        elif self._text is not None:  # otherwise it has copied something of its own since, which stays
            # an empty list would say it, but FreeRDP 3 takes no notice of one, and goes on pasting what it once fetched
            self._send(format_list(_NO_TEXT, name=_NO_TEXT_NAME))
        self._text = text

    def ask(self) -> None:
        """See ViewerClipboard."""
        self._asked_format = self._format
        self._send(_pdu(_DATA_REQUEST, 0, struct.pack("<I", self._format)))

    def received(self, pdu: bytes) -> None:
        """Takes one PDU of the viewer. Raises RdpError."""
        if len(pdu) < 8:
            raise RdpError("a clipboard's PDU without a head")
        kind, flags, size = struct.unpack_from("<HHI", pdu)
        if size > len(pdu) - 8:
            raise RdpError("a clipboard's PDU that lies about its length")
        body = pdu[8 : 8 + size]
        if kind == _FORMAT_LIST:
            self._viewer_copied(body)
        elif kind == _DATA_REQUEST:
            self._answer(int.from_bytes(body[:4], "little"))
        elif kind == _DATA_RESPONSE:
            self._clipboard.pasted(self, self._text_in(body) if flags & _OK else None)

    def _viewer_copied(self, body: bytes) -> None:
        step = 4 + _NAME_BYTES
        formats = {int.from_bytes(body[at : at + 4], "little") for at in range(0, len(body) - step + 1, step)}
        self._format = next((each for each in (_UNICODE_TEXT, _TEXT) if each in formats), 0)
        self._send(_pdu(_FORMAT_LIST_RESPONSE, _OK))
        self._text = None
        self._clipboard.copied(self, has_text=bool(self._format))
        if not self._joined:  # its first list ends the channel's opening: from then on it takes ours
            self._joined = True
            self._clipboard.joined(self)

    def _answer(self, wanted: int) -> None:
        if self._text is None or wanted not in (_TEXT, _UNICODE_TEXT) or not self._may_answer():
            self._send(_pdu(_DATA_RESPONSE, _FAIL))
            return
        text = self._text.replace("\n", "\r\n") + "\0"
        data = text.encode("utf-16-le", "replace") if wanted == _UNICODE_TEXT else text.encode(_ANSI, "replace")
        self._send(_pdu(_DATA_RESPONSE, _OK, data))

    def _text_in(self, body: bytes) -> str:
        encoding = "utf-16-le" if self._asked_format == _UNICODE_TEXT else _ANSI
        return body.decode(encoding, "replace").partition("\0")[0].replace("\r\n", "\n")
