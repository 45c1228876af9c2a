"""The agent's protocol of SPICE (spice-protocol's vd_agent.h), as far as text on a clipboard needs it, without I/O.

::

    us (in place of a SPICE client)                  spice-vdagentd in the guest, on the port com.redhat.spice.0
      │── capabilities, please answer ─────────────────▶│
      │◀─ capabilities ─────────────────────────────────│
      │── grab: text ──────────────────────────────────▶│   a viewer has copied
      │◀─ request: text ────────────────────────────────│   somebody pastes in the guest
      │── clipboard ───────────────────────────────────▶│
      │◀─ grab: text ───────────────────────────────────│   somebody in the guest has copied
      │── request: text ───────────────────────────────▶│
      │◀─ clipboard ────────────────────────────────────│

All numbers are little-endian. A message travels in chunks: port (4 bytes), size (4), at most 2048 bytes of it. The message itself:
protocol 1 (4), type (4), opaque (8), size (4), body. The bodies of the clipboard's messages begin with the selection (1 byte, then 3
unused) once both sides have said that they know selections.

What a guest sends is measured before it is kept: a message larger than a text may be is read past.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

MOST_TEXT_BYTES = 1 << 20  # of UTF-8
MOST_CHUNK_BYTES = 2048  # VD_AGENT_MAX_DATA_SIZE
_MOST_TAKEN_CHUNK_BYTES = 1 << 16  # QEMU's own chardev takes as much at once; a larger one is no chunk
_MOST_BODY_BYTES = MOST_TEXT_BYTES + 64
_CHUNK_HEAD, _MESSAGE_HEAD = struct.Struct("<II"), struct.Struct("<IIQI")
_CLIENT_PORT = 1  # VDP_CLIENT_PORT
_PROTOCOL = 1
NONE, TEXT = 0, 1  # VD_AGENT_CLIPBOARD_NONE, _UTF8_TEXT
_CLIPBOARD_SELECTION = 0  # the one of Ctrl-C; 1 and 2 are X's primary and secondary


class Kind(IntEnum):
    """Types of messages (`VD_AGENT_…`)."""

    CLIPBOARD = 4
    CAPABILITIES = 6
    GRAB = 7
    REQUEST = 8
    RELEASE = 9
    MAX_CLIPBOARD = 14


class Capability(IntEnum):
    """Bits of the announcement (`VD_AGENT_CAP_…`)."""

    BY_DEMAND = 5
    SELECTION = 6
    LINE_END_CRLF = 9
    MAX_CLIPBOARD = 10


_OURS = (Capability.BY_DEMAND, Capability.SELECTION, Capability.MAX_CLIPBOARD)


class AgentError(Exception):
    """The bytes are not the agent's; the connection cannot be followed any further."""


@dataclass(frozen=True)
class Message:
    """A message of a known kind."""

    kind: Kind
    body: bytes


@dataclass(frozen=True)
class Said:
    """What a message of the clipboard's says: `format` is TEXT or NONE, `data` a text's bytes."""

    kind: Kind
    format: int = NONE
    data: bytes = b""


class Messages:
    """Messages out of a guest's bytes. Holds at most one message and one chunk's head."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._chunk_left = 0
        self._is_client_port = False
        self._message = bytearray()
        self._skip = 0  # bytes of a message that is not kept

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are complete now. Raises AgentError, after which this is not to be used."""
        found: list[Message] = []
        view = memoryview(data)
        while view:
            if not self._chunk_left:
                view = self._take_chunk_head(view)
                continue
            part, view = view[: self._chunk_left], view[self._chunk_left :]
            self._chunk_left -= len(part)
            if self._is_client_port:
                self._take(part, found)
        return found

    def _take_chunk_head(self, view: memoryview) -> memoryview:
        missing = _CHUNK_HEAD.size - len(self._head)
        self._head += view[:missing]
        if len(self._head) == _CHUNK_HEAD.size:
            port, self._chunk_left = _CHUNK_HEAD.unpack(self._head)
            self._head.clear()
            if self._chunk_left > _MOST_TAKEN_CHUNK_BYTES:
                raise AgentError(f"a chunk of {self._chunk_left} bytes")
            self._is_client_port = port == _CLIENT_PORT
        return view[missing:]

    def _take(self, part: memoryview, found: list[Message]) -> None:
        while part:
            if self._skip:
                skipped = min(self._skip, len(part))
                self._skip -= skipped
                part = part[skipped:]
                continue
            wanted = _MESSAGE_HEAD.size
            if len(self._message) >= wanted:
                wanted += int.from_bytes(self._message[wanted - 4 : wanted], "little")
            missing = wanted - len(self._message)
            self._message += part[:missing]
            part = part[missing:]
            if len(self._message) == _MESSAGE_HEAD.size and wanted == _MESSAGE_HEAD.size:
                self._look_at_head()
            if (whole := self._whole()) is not None:
                found.append(whole)

    def _look_at_head(self) -> None:
        protocol, kind, _, size = _MESSAGE_HEAD.unpack(self._message)
        if protocol != _PROTOCOL:
            raise AgentError(f"version {protocol} of the agent's protocol")
        if kind not in set(Kind) or size > _MOST_BODY_BYTES:
            self._skip = size
            self._message.clear()

    def _whole(self) -> Message | None:
        if len(self._message) < _MESSAGE_HEAD.size:
            return None
        _, kind, _, size = _MESSAGE_HEAD.unpack_from(self._message)
        if len(self._message) < _MESSAGE_HEAD.size + size:
            return None
        whole = Message(Kind(kind), bytes(memoryview(self._message)[_MESSAGE_HEAD.size :]))
        self._message.clear()
        return whole


def pack(kind: Kind, body: bytes = b"") -> bytes:
    """One message in its chunks."""
    message = _MESSAGE_HEAD.pack(_PROTOCOL, kind, 0, len(body)) + body
    parts = [message[at : at + MOST_CHUNK_BYTES] for at in range(0, len(message), MOST_CHUNK_BYTES)]
    return b"".join(_CHUNK_HEAD.pack(_CLIENT_PORT, len(part)) + part for part in parts)


def announcement(*, please_answer: bool) -> bytes:
    """Our capabilities."""
    return pack(Kind.CAPABILITIES, struct.pack("<II", please_answer, sum(1 << each for each in _OURS)))


@dataclass(frozen=True)
class Dialect:
    """How one guest's agent speaks, by its announced capabilities."""

    selections: bool = False
    line_end: str = "\n"
    has_limit: bool = False

    @classmethod
    def of(cls, body: bytes) -> tuple["Dialect", bool]:
        """The body of a CAPABILITIES message, and whether it asks for ours. Raises AgentError."""
        if len(body) < 8:
            raise AgentError("an announcement of capabilities without any")
        asks, capabilities = struct.unpack_from("<II", body)
        if not capabilities >> Capability.BY_DEMAND & 1:
            raise AgentError("an agent that has no clipboard by demand")
        return cls(
            selections=bool(capabilities >> Capability.SELECTION & 1),
            line_end="\r\n" if capabilities >> Capability.LINE_END_CRLF & 1 else "\n",
            has_limit=bool(capabilities >> Capability.MAX_CLIPBOARD & 1),
        ), bool(asks)

    def limit(self) -> bytes:
        """Tells the guest how much it may send; b"" where it would not understand."""
        return pack(Kind.MAX_CLIPBOARD, struct.pack("<I", MOST_TEXT_BYTES)) if self.has_limit else b""

    def _pack(self, kind: Kind, body: bytes = b"") -> bytes:
        return pack(kind, (bytes((_CLIPBOARD_SELECTION, 0, 0, 0)) if self.selections else b"") + body)

    def grab(self, offered: int = TEXT) -> bytes:
        """We have copied a text (or NONE: something that is no text)."""
        return self._pack(Kind.GRAB, struct.pack("<I", offered) if offered else b"")

    def release(self) -> bytes:
        """We have none any more."""
        return self._pack(Kind.RELEASE)

    def request(self) -> bytes:
        """The guest's text, please."""
        return self._pack(Kind.REQUEST, struct.pack("<I", TEXT))

    def clipboard(self, text: str | None) -> bytes:
        """The text that was asked for (lines end with a line feed); None: there is none."""
        if text is None:
            return self._pack(Kind.CLIPBOARD, struct.pack("<I", NONE))
        return self._pack(
            Kind.CLIPBOARD, struct.pack("<I", TEXT) + text.replace("\n", self.line_end).encode("utf-8", "replace")
        )

    def read(self, message: Message) -> Said | None:
        """A clipboard's message; None for one of another selection, and for a limit. A GRAB has the format TEXT if a text is among what
        it offers. Raises AgentError."""
        body = message.body
        if message.kind is Kind.MAX_CLIPBOARD:
            return None
        if self.selections:
            if len(body) < 4:
                raise AgentError("a message without its selection")
            if body[0] != _CLIPBOARD_SELECTION:
                return None
            body = body[4:]
        if message.kind is Kind.GRAB:
            # an odd rest cannot be a type; the serial that newer agents put first is only sent to who announces it
            formats = struct.unpack_from(f"<{len(body) // 4}I", body)
            return Said(Kind.GRAB, TEXT if TEXT in formats else NONE)
        if message.kind is Kind.RELEASE:
            return Said(Kind.RELEASE)
        if len(body) < 4:
            raise AgentError("a message without its format")
        return Said(message.kind, int.from_bytes(body[:4], "little"), body[4:])


def text_of(data: bytes) -> str | None:
    """A guest's text with line feeds; None for one that is too long."""
    if len(data) > MOST_TEXT_BYTES:
        return None
    return data.decode("utf-8", "replace").rstrip("\0").replace("\r\n", "\n")
