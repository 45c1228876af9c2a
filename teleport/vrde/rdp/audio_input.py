"""A viewer's microphone: the dynamic channel AUDIO_INPUT (MS-RDPEAI), the server's side, without I/O.

::

    viewer                              us
      │◀─ version ────────────────────────────────│
      │── version ───────────────────────────────▶│
      │◀─ formats: 48 kHz, 44.1 kHz ──────────────│
      │── (incoming data), formats that it has ──▶│
      │◀─ open: frames a packet, the format ──────│
      │── format change, open reply ─────────────▶│   from here on
      │── (incoming data), data ─────────────────▶│   until the channel is closed

What comes out has the guest's rate, whatever the viewer's is.
"""

import struct
from enum import IntEnum

from teleport.vrde.rdp.pdu import RdpError

CHANNEL = "AUDIO_INPUT"
OUT_RATE_HZ, CHANNELS, SAMPLE_BYTES = 48000, 2, 2
FRAME_BYTES = CHANNELS * SAMPLE_BYTES
PACKET_FRAMES = 512
_RATES_HZ = (48000, 44100)
_FORMAT_HEAD_BYTES = 18
MOST_FORMATS = 64


class _Kind(IntEnum):
    VERSION = 1
    FORMATS = 2
    OPEN = 3
    OPEN_REPLY = 4
    INCOMING = 5
    DATA = 6
    FORMAT_CHANGE = 7


def _pcm(rate_hz: int) -> bytes:
    """WAVEFORMATEX, without extra bytes."""
    return struct.pack("<HHIIHHH", 1, CHANNELS, rate_hz, rate_hz * FRAME_BYTES, FRAME_BYTES, 8 * SAMPLE_BYTES, 0)


_OFFERED = tuple(map(_pcm, _RATES_HZ))


class Resampler:
    """Turns frames of one rate into frames of another, linearly, without a seam between the pieces that it is given."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self._from_hz, self._to_hz = from_hz, to_hz
        self._place = 0  # of the next frame: after the first of those that are kept, in frames / `to_hz`
        self._kept: tuple[int, ...] = ()  # the last frame, whose successor has not come yet

    def feed(self, samples: bytes) -> bytes:
        """Takes whole frames."""
        if self._from_hz == self._to_hz:
            return samples
        known = (*self._kept, *struct.unpack(f"<{len(samples) // SAMPLE_BYTES}h", samples))
        last = len(known) // CHANNELS - 1
        if last < 0:
            return b""
        made: list[int] = []
        place, unit = self._place, self._to_hz
        while place < last * unit:
            frame, part = divmod(place, unit)
            left, right, next_left, next_right = known[CHANNELS * frame : CHANNELS * (frame + 2)]
            made += (left + (next_left - left) * part // unit, right + (next_right - right) * part // unit)
            place += self._from_hz
        self._place = place - last * unit
        self._kept = known[-CHANNELS:]
        return struct.pack(f"<{len(made)}h", *made)


class AudioInput:
    """One opening of the channel. `received` returns PDUs to send, and what was said is in `taken`. `is_refused`: the viewer has no
    microphone that opens, or none of our formats."""

    def __init__(self) -> None:
        self.is_refused = False
        self._rates_hz: list[int] = []
        self._resampler: Resampler | None = None
        self._said = bytearray()

    def begin(self) -> list[bytes]:
        """Once the channel is open."""
        return [struct.pack("<BI", _Kind.VERSION, 1)]

    def received(self, pdu: bytes) -> list[bytes]:
        """Takes one PDU of the viewer. Raises RdpError."""
        if not pdu:
            raise RdpError("an empty PDU of a microphone")
        kind, body = pdu[0], pdu[1:]
        if kind == _Kind.VERSION:
            return [struct.pack("<BII", _Kind.FORMATS, len(_OFFERED), 0) + b"".join(_OFFERED)]
        if kind == _Kind.FORMATS:
            self._rates_hz = _rates_of(body)
            if not self._rates_hz:
                self.is_refused = True
                return []
            self._use(0)
            return [struct.pack("<BII", _Kind.OPEN, PACKET_FRAMES, 0) + _pcm(self._rates_hz[0])]
        if kind == _Kind.FORMAT_CHANGE:
            self._use(_number(body))
        elif kind == _Kind.OPEN_REPLY:
            self.is_refused |= _number(body) != 0
        elif kind == _Kind.DATA and self._resampler:
            self._said += self._resampler.feed(body[: len(body) // FRAME_BYTES * FRAME_BYTES])
        return []

    def taken(self) -> bytes:
        """What was said since the last call: signed, 16 bits, little-endian, two channels at 48 kHz."""
        said = bytes(self._said)
        self._said.clear()
        return said

    def _use(self, number: int) -> None:
        if not 0 <= number < len(self._rates_hz):
            raise RdpError(f"a microphone's format {number}, which was not offered")
        self._resampler = Resampler(self._rates_hz[number], OUT_RATE_HZ)


def _number(body: bytes) -> int:
    if len(body) < 4:
        raise RdpError("a microphone's PDU that is too short")
    return int.from_bytes(body[:4], "little")


def _rates_of(body: bytes) -> list[int]:
    """The rates of the viewer's formats, in its order, which numbers them. Raises RdpError for formats that we did not offer."""
    if len(body) < 8:
        raise RdpError("a microphone's list of formats without a head")
    (count,) = struct.unpack_from("<I", body)
    if count > MOST_FORMATS:
        raise RdpError(f"a microphone with {count} formats")
    rates_hz = []
    at = 8
    for _ in range(count):
        if at + _FORMAT_HEAD_BYTES > len(body):
            raise RdpError("a microphone's list of formats that lies about its length")
        tag, channels, rate_hz, _, _, bits, more = struct.unpack_from("<HHIIHHH", body, at)
        if (tag, channels, bits) != (1, CHANNELS, 8 * SAMPLE_BYTES) or rate_hz not in _RATES_HZ:
            raise RdpError("a microphone's format that was not offered")
        rates_hz.append(rate_hz)
        at += _FORMAT_HEAD_BYTES + more
    return rates_hz
