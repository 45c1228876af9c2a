"""SPICE's record channel, the client's side, without I/O: the one way into a guest's sound card that QEMU has for another program.

::

    us                                    QEMU (its -spice socket), once for the channel main, once for record
      │── link: session, channel, capabilities ─▶│
      │◀─ link reply: a public key ──────────────│
      │── "SPICE", ticket encrypted with it ────▶│   the ticket is empty: the socket's folder protects it
      │◀─ result ────────────────────────────────│
      │◀─ main: INIT with the session's number ──│   which the record channel's link names
      │◀─ record: START with the format ─────────│   whenever the guest begins to record
      │── MODE raw, START_MARK, DATA … ─────────▶│
      │◀─ record: STOP ──────────────────────────│

Messages have the mini header: kind(2), length(4), little-endian. Source: spice-protocol's protocol.h and enums.h; facts: libspice-server
0.15.1 under QEMU 10.0.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from teleport.errors import ProtocolError
from teleport.vrde.rfb import Parser

SAMPLE_RATE_HZ, CHANNELS, SAMPLE_BYTES = 48000, 2, 2
FRAME_BYTES = CHANNELS * SAMPLE_BYTES
# libspice's ring takes samples that cross its end wrongly (0.15.1); pieces of this size never do.
PIECE_FRAMES = 512
PIECE_BYTES = PIECE_FRAMES * FRAME_BYTES
LINK_HEAD_BYTES = 16
RESULT_BYTES = 4
MOST_MESSAGE_BYTES = 1 << 20
_MAGIC, _MAJOR, _MINOR = b"REDQ", 2, 2
_KEY_AT, _KEY_BYTES = 4, 162
_MOST_REPLY_BYTES = 4096
_CAPABILITIES = 1 << 0 | 1 << 1 | 1 << 3  # the authentication is chosen, it is SPICE's own, headers are mini
_CHOOSES_SPICE = 1
_TICKET = b"\0"
_RAW, _S16 = 1, 1


class SpiceError(ProtocolError):
    """What QEMU's SPICE server sends makes no sense, or is not what was asked for."""

    def __init__(self, why: str) -> None:
        super().__init__("the guest's microphone", why)


class Channel(IntEnum):
    """The channels that we open."""

    MAIN = 1
    RECORD = 6


class Kind(IntEnum):
    """The server's messages that mean something to us."""

    SET_ACK = 3
    PING = 4
    MAIN_INIT = 103
    RECORD_START = 101
    RECORD_STOP = 102


_ACK_SYNC, _ACK, _PONG = 1, 2, 3
_DATA, _MODE, _START_MARK = 101, 102, 103


def link(channel: Channel, session: int) -> bytes:
    """What opens a channel; `session` 0 begins one."""
    body = struct.pack("<IBBIIII", session, channel, 0, 1, 0, 18, _CAPABILITIES)
    return struct.pack("<4sIII", _MAGIC, _MAJOR, _MINOR, len(body)) + body


def reply_bytes(head: bytes) -> int:
    """How much follows the `LINK_HEAD_BYTES` of the answer. Raises SpiceError."""
    magic, major, _, size = struct.unpack("<4sIII", head)
    if magic != _MAGIC or major != _MAJOR or not _KEY_AT + _KEY_BYTES <= size <= _MOST_REPLY_BYTES:
        raise SpiceError("what answers is no SPICE server")
    return int(size)


def ticket(reply: bytes) -> bytes:
    """What is to be said to that answer. Raises SpiceError."""
    (problem,) = struct.unpack_from("<I", reply)
    if problem:
        raise SpiceError(f"its link was refused ({problem})")
    try:
        key = serialization.load_der_public_key(reply[_KEY_AT : _KEY_AT + _KEY_BYTES])
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SpiceError(f"its server's key cannot be read: {error}") from error
    if not isinstance(key, rsa.RSAPublicKey):
        raise SpiceError("its server's key is not of RSA")
    oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)  # noqa: S303 - the protocol's choice; it hides nothing
    return struct.pack("<I", _CHOOSES_SPICE) + key.encrypt(_TICKET, oaep)


def check_result(result: bytes) -> None:
    """Looks at the `RESULT_BYTES` that come then. Raises SpiceError."""
    if any(result):
        raise SpiceError(f"its ticket was refused ({int.from_bytes(result, 'little')})")


@dataclass(frozen=True)
class Message:
    """One message of the server."""

    kind: int
    body: bytes


def message() -> Parser[Message]:
    """Parses one (a MessageReader's parser). Raises SpiceError."""
    kind, size = struct.unpack("<HI", (yield 6))
    if size > MOST_MESSAGE_BYTES:
        raise SpiceError(f"a message of {size} bytes")
    return Message(kind, (yield size) if size else b"")


def _pack(kind: int, body: bytes = b"") -> bytes:
    return struct.pack("<HI", kind, len(body)) + body


class Manners:
    """What each channel of a client owes the server: acknowledgements and pongs."""

    def __init__(self) -> None:
        self._window = self._unacknowledged = 0

    def answer(self, received: Message) -> bytes:
        """What is to be sent back. Raises SpiceError."""
        if received.kind == Kind.SET_ACK:
            generation, self._window = _numbers("<II", received)
            self._unacknowledged = 0
            return _pack(_ACK_SYNC, struct.pack("<I", generation))
        answer = _pack(_PONG, received.body[:12]) if received.kind == Kind.PING else b""
        self._unacknowledged += 1
        if self._window and self._unacknowledged >= self._window:
            self._unacknowledged = 0
            answer += _pack(_ACK)
        return answer


def session_of(init: Message) -> int:
    """The session's number. Raises SpiceError."""
    return _numbers("<I", init)[0]


def begin(start: Message) -> bytes:
    """What is said before the first samples. Raises SpiceError when the guest wants others than ours."""
    channels, form, rate_hz = _numbers("<IHI", start)
    if (channels, form, rate_hz) != (CHANNELS, _S16, SAMPLE_RATE_HZ):
        raise SpiceError(f"it is asked for {channels} channels of {rate_hz} Hz in the format {form}")
    return _pack(_MODE, struct.pack("<IH", 0, _RAW)) + _pack(_START_MARK, struct.pack("<I", 0))


def piece(samples: bytes) -> bytes:
    """`PIECE_BYTES` of samples: signed, 16 bits, little-endian, two channels at 48 kHz."""
    assert len(samples) == PIECE_BYTES
    return _pack(_DATA, struct.pack("<I", 0) + samples)


def _numbers(form: str, received: Message) -> tuple[int, ...]:
    if len(received.body) < struct.calcsize(form):
        raise SpiceError(f"a message of kind {received.kind} that is too short")
    return struct.unpack_from(form, received.body)
