"""The sound channel `rdpsnd` (MS-RDPEA), the server's side, without I/O.

::

    viewer                              us
      │◀─ formats: the one that QEMU's VNC gives ─│
      │── formats that it can play ──────────────▶│
      │◀─ training ───────────────────────────────│
      │── training confirm ──────────────────────▶│   from here on waves
      │◀─ wave info (4 samples' bytes), wave ─────│
      │── wave confirm ──────────────────────────▶│   so much is played: what is under way is bounded by it

Sound is live: what a viewer cannot take in time is left out, never queued.
"""

import struct

from teleport.vrde.rdp.pdu import RdpError

CHANNEL = "rdpsnd"
SAMPLE_RATE_HZ, CHANNELS, SAMPLE_BYTES = 44100, 2, 2
FRAME_BYTES = CHANNELS * SAMPLE_BYTES
BLOCK_BYTES = 8192  # 46 ms: viewers drop what comes faster than it plays, and short blocks come in bunches
MOST_UNDER_WAY = 22  # blocks, about a second
_CLOSE, _WAVE, _WAVE_CONFIRM, _TRAINING, _FORMATS = 1, 2, 5, 6, 7
_VERSION = 5
_PCM = struct.pack(
    "<HHIIHHH", 1, CHANNELS, SAMPLE_RATE_HZ, SAMPLE_RATE_HZ * FRAME_BYTES, FRAME_BYTES, 8 * SAMPLE_BYTES, 0
)  # WAVEFORMATEX, without extra bytes


def _pdu(kind: int, body: bytes) -> bytes:
    return struct.pack("<BBH", kind, 0, len(body)) + body


class Sound:
    """One viewer's. Samples are signed, 16 bits, little-endian, two channels at 44.1 kHz; every method returns PDUs to send."""

    def __init__(self) -> None:
        self._format: int | None = None
        self._trained = False
        self._block = 0  # the number that the next wave gets, modulo 256
        self._confirmed = 255
        self._held = bytearray()

    @property
    def ready(self) -> bool:
        """Whether the viewer takes waves."""
        return self._trained and self._format is not None

    def begin(self) -> list[bytes]:
        """The offer."""
        return [_pdu(_FORMATS, struct.pack("<IIIHHBHB", 0, 0, 0, 0, 1, 0xFF, _VERSION, 0) + _PCM)]

    def received(self, pdu: bytes) -> list[bytes]:
        """Takes one PDU of the viewer. Raises RdpError."""
        if len(pdu) < 4:
            raise RdpError("a sound PDU without a head")
        kind, body = pdu[0], pdu[4:]
        if kind == _FORMATS:
            self._format = _format_of(body)
            return [_pdu(_TRAINING, struct.pack("<HH", 0, 0))] if self._format is not None else []
        if kind == _TRAINING:
            self._trained = True
        elif kind == _WAVE_CONFIRM and len(body) >= 3:
            self._confirmed = body[2]
        return []

    def play(self, samples: bytes, *, now_ms: int) -> list[bytes]:
        """Takes more samples."""
        if not self.ready:
            return []
        self._held += samples
        pdus: list[bytes] = []
        while len(self._held) >= BLOCK_BYTES:
            pdus += self._wave(bytes(self._held[:BLOCK_BYTES]), now_ms)
            del self._held[:BLOCK_BYTES]
        return pdus

    def finish(self, *, now_ms: int) -> list[bytes]:
        """The guest has stopped playing: what was held back, and the end."""
        rest = bytes(self._held[: len(self._held) // FRAME_BYTES * FRAME_BYTES])
        self._held.clear()
        if not self.ready:
            return []
        return [*(self._wave(rest, now_ms) if rest else ()), _pdu(_CLOSE, b"")]

    def _wave(self, samples: bytes, now_ms: int) -> list[bytes]:
        if (self._block - 1 - self._confirmed) & 0xFF >= MOST_UNDER_WAY:
            return []
        head = struct.pack("<HHB3x", now_ms & 0xFFFF, self._format, self._block)
        self._block = (self._block + 1) & 0xFF
        # The first four bytes travel in the info, and in the wave zeroes stand for them (2.2.3.3, 2.2.3.4).
        info = struct.pack("<BBH", _WAVE, 0, len(head) + len(samples)) + head + samples[:4]
        return [info, bytes(4) + samples[4:]]


def _format_of(body: bytes) -> int | None:
    """The number that our format has in the viewer's list; None when it cannot play it."""
    if len(body) < 20:
        raise RdpError("a list of sound formats without a head")
    (count,) = struct.unpack_from("<H", body, 14)
    at = 20
    for number in range(count):
        if at + 18 > len(body):
            raise RdpError("a list of sound formats that lies about its length")
        if body[at : at + 4] == _PCM[:4] and body[at + 4 : at + 8] == _PCM[4:8] and body[at + 14 : at + 16] == _PCM[14:16]:
            return number
        at += 18 + int.from_bytes(body[at + 16 : at + 18], "little")
    return None
