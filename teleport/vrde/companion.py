"""A second connection to the guest's VNC, beside the one for a viewer's picture: for its sound.

::

    companion                                        QEMU's VNC
      │── SetEncodings: audio −259 ─────────────────────▶│
      │◀─ update with an audio rectangle ────────────────│   only where the guest has a sound card
      │── audio: format, enable ────────────────────────▶│
      │◀─ audio: begin, data …, end ─────────────────────│   while the guest plays

It never asks for a picture. After a teleport, or when the guest's display is lost, it dials again, wherever the relay's endpoint is.
"""

import asyncio
import contextlib
import logging
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from teleport.errors import TeleportError
from teleport.vrde import rfb
from teleport.vrde.endpoint import Endpoint
from teleport.vrde.relay import Relay
from teleport.vrde.relay_viewer import REDIAL_EVERY_SECONDS
from teleport.vrde.rfb import ClientKind, Encoding, ServerKind
from teleport.vrde.upstream import Upstream

READ_BYTES = 1 << 16
_AUDIO = 1
_ENABLE, _DISABLE, _SET_FORMAT = 0, 1, 2
_END, _DATA = 0, 2
_SIGNED_16 = 3

log = logging.getLogger("teleport.vrde.companion")


@dataclass(frozen=True)
class Message:
    """One whole message of the server; of an update only which encodings its rectangles had."""

    kind: ServerKind
    data: bytes
    encodings: tuple[int, ...] = ()


def message(pixel_format: bytes) -> Callable[[], rfb.Parser[Message]]:
    """A parser of the server's messages. Raises RfbError."""

    def parse() -> rfb.Parser[Message]:
        head = yield 1
        try:
            kind = ServerKind(head[0])
        except ValueError as error:
            raise rfb.RfbError(f"a server's message of unknown kind {head[0]}") from error
        if kind is ServerKind.UPDATE:
            (count,) = struct.unpack_from(">xH", (yield 3))
            encodings = []
            for _ in range(count):
                _, _, width, height, encoding = struct.unpack(">4Hi", (yield 12))
                if size := rfb.payload_bytes(width, height, encoding, pixel_format):
                    yield size
                encodings.append(encoding)
            return Message(kind, b"", tuple(encodings))
        while (length := rfb.server_message_bytes(kind, head)) is None:
            head += yield 3 if len(head) == 1 else 4 if len(head) == 4 else 1
        return Message(kind, head + (yield length - len(head)) if length > len(head) else head)

    return parse


def _audio(kind: int, more: bytes = b"") -> bytes:
    return struct.pack(">BBH", ClientKind.QEMU, _AUDIO, kind) + more


class Listener(Protocol):
    """Who listens. Calls come from the event loop; none may block."""

    def played(self, samples: bytes) -> None:
        """Samples: signed, 16 bits, little-endian, two channels, 44.1 kHz."""

    def stopped_playing(self) -> None:
        """An end of them."""


class Companion:
    """The connection and its successors, while `run` runs."""

    def __init__(self, relay: Relay, listener: Listener) -> None:
        self._relay = relay
        self._listener = listener
        self._upstream: Upstream | None = None
        self._endpoint: Endpoint | None = None
        self._has_sound = False
        self._plays = False

    async def run(self) -> None:
        """Serves until it is cancelled."""
        with self._relay.watched(self._changed):
            while True:
                try:
                    await self._serve()
                except (OSError, EOFError, rfb.RfbError, TeleportError) as error:
                    log.debug("sound of %s: %s; trying again", self._relay.name, error)
                self._listener.stopped_playing()
                if self._endpoint is self._relay.endpoint:
                    await asyncio.sleep(REDIAL_EVERY_SECONDS)

    async def _serve(self) -> None:
        self._endpoint = endpoint = self._relay.endpoint
        upstream = self._upstream = await Upstream.open(endpoint)
        self._has_sound = self._plays = False
        try:
            messages = rfb.MessageReader(message(upstream.init.pixel_format))
            upstream.writer.write(rfb.set_encodings([Encoding.RAW, Encoding.QEMU_AUDIO]))
            while endpoint is self._relay.endpoint and (data := await upstream.reader.read(READ_BYTES)):
                for each in messages.feed(data):
                    self._take(each)
                await upstream.writer.drain()
        finally:
            self._upstream = None
            upstream.writer.close()

    def _take(self, each: Message) -> None:
        if Encoding.QEMU_AUDIO in each.encodings and not self._has_sound:
            self._has_sound = True
            self._send(_audio(_SET_FORMAT, struct.pack(">BBI", _SIGNED_16, 2, 44100)))
            self._apply_gates()
        elif each.kind is ServerKind.QEMU:
            what = int.from_bytes(each.data[2:4], "big")
            if what == _DATA and self._plays:
                self._listener.played(each.data[8:])
            elif what == _END:
                self._listener.stopped_playing()

    def _apply_gates(self) -> None:
        wanted = self._has_sound and self._relay.gates.audio
        if wanted != self._plays:
            self._plays = wanted
            self._send(_audio(_ENABLE if wanted else _DISABLE))
            if not wanted:
                self._listener.stopped_playing()

    def _changed(self) -> None:
        """The relay's endpoint or gates are others now."""
        self._apply_gates()
        if self._upstream and self._relay.endpoint is not self._endpoint:
            self._upstream.writer.transport.abort()  # its reader ends, and `run` dials the new one

    def _send(self, data: bytes) -> None:
        if self._upstream:
            with contextlib.suppress(OSError):
                self._upstream.writer.write(data)
