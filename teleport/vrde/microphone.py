"""How what viewers say reaches the guest's sound card: the driver of `spice`.

::

    viewers ─▶ Microphone ─▶ QEMU's SPICE, channels main and record                  the guest is on this host
    viewers ─▶ Microphone ═ tunnel ═▶ the target's front, its Microphone ─▶ …        it is on another

QEMU serves one client, so the target's front alone is that; there another host's front counts as one more viewer, which is told by a byte
whenever the guest begins (1) or ceases (0) to record, and sends samples. The first viewer who has a microphone is listened to, and only
while the guest records and the display's properties allow it. Samples are signed, 16 bits, little-endian, two channels at 48 kHz.

Sound is live: what waits is bounded, and the oldest goes.
"""

import asyncio
import contextlib
import logging
import time
from typing import Protocol

from teleport.errors import TeleportError
from teleport.vrde import spice
from teleport.vrde.endpoint import Endpoint, TunnelEndpoint
from teleport.vrde.rfb import MessageReader
from teleport.vrde.spice import Channel, Manners, Message
from teleport.vrde.streams import first_to_end

REDIAL_SECONDS = 1.0
LINK_SECONDS = 5
READ_BYTES = 1 << 16
PIECE_SECONDS = spice.PIECE_FRAMES / spice.SAMPLE_RATE_HZ
MOST_LATE_SECONDS = 4 * PIECE_SECONDS  # what is caught up with after a pause of ours
MOST_HELD_PIECES = 46  # 490 ms
HELD_AFTER_PIECES = 9  # 96 ms, what is left of them when they become too many
FIRST_HELD_PIECES = 5  # 53 ms are gathered before the first goes, since viewers send unevenly
MOST_WAITING_BYTES = MOST_HELD_PIECES * spice.PIECE_BYTES  # towards another host's front

log = logging.getLogger("teleport.vrde.microphone")


class Speaker(Protocol):
    """A viewer who may have a microphone. Calls come from the event loop; none may block."""

    def listen(self, *, wanted: bool) -> None:
        """Whether the guest is to hear it from now on."""


class Held:
    """What was said and is not with the guest yet."""

    def __init__(self) -> None:
        self._samples = bytearray()
        self._flows = False

    def add(self, samples: bytes) -> None:
        """Takes more; when they are too many the oldest go."""
        self._samples += samples
        if len(self._samples) > MOST_HELD_PIECES * spice.PIECE_BYTES:
            del self._samples[: len(self._samples) - HELD_AFTER_PIECES * spice.PIECE_BYTES]

    def piece(self) -> bytes | None:
        """The next `PIECE_BYTES` of them; None while there are too few."""
        needed = 1 if self._flows else FIRST_HELD_PIECES
        self._flows = len(self._samples) >= needed * spice.PIECE_BYTES
        if not self._flows:
            return None
        taken = bytes(self._samples[: spice.PIECE_BYTES])
        del self._samples[: spice.PIECE_BYTES]
        return taken

    def clear(self) -> None:
        """Nobody is to hear them."""
        self._samples.clear()
        self._flows = False


class Microphone:
    """One front's. `endpoint` None: the guest has none."""

    def __init__(self, endpoint: Endpoint | None, *, allowed: bool) -> None:
        self.endpoint = endpoint
        self._allowed = allowed
        self._speakers: list[Speaker] = []
        self._heard: Speaker | None = None
        self._records = False
        self._held = Held()
        self._writer: asyncio.StreamWriter | None = None  # to another host's front, or the record channel
        self._again = asyncio.Event()
        self._said = asyncio.Event()

    def retarget(self, endpoint: Endpoint | None) -> None:
        """The guest runs elsewhere."""
        self.endpoint = endpoint
        self._break_off()

    def allow(self, *, allowed: bool) -> None:
        """Whether anybody may be heard from now on."""
        self._allowed = allowed
        self._settle()

    def joined(self, speaker: Speaker) -> None:
        """A viewer has come."""
        self._speakers.append(speaker)
        self._settle()

    def left(self, speaker: Speaker) -> None:
        """It has gone, or has no microphone after all."""
        if speaker in self._speakers:
            self._speakers.remove(speaker)
            self._settle()

    def spoke(self, speaker: Speaker, samples: bytes) -> None:
        """What a viewer said: counts if it is the one that is listened to."""
        if speaker is not self._heard or not self._writer:
            return
        if not isinstance(self.endpoint, TunnelEndpoint):
            self._held.add(samples)
            self._said.set()
        elif self._writer.transport.get_write_buffer_size() < MOST_WAITING_BYTES:
            self._writer.write(samples)

    @property
    def _goal(self) -> Endpoint | None:
        """Where to be connected: nowhere unless somebody may speak, so that another host's front doesn't wait for us in vain."""
        return self.endpoint if self._speakers and self._allowed else None

    def _settle(self) -> None:
        """Speakers or rules are others now."""
        self._choose()
        if not self._goal:
            self._break_off()
        elif not self._writer:
            self._again.set()

    async def run(self) -> None:
        """Serves until it is cancelled."""
        while True:
            self._again.clear()
            endpoint = self._goal
            if endpoint:
                try:
                    await self._serve(endpoint)
                except spice.SpiceError as error:
                    log.warning("%s", error)
                except (OSError, EOFError, TeleportError) as error:
                    log.debug("the guest's microphone: %s", error)
                finally:
                    self._writer = None
                    self._guest_records(now=False)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REDIAL_SECONDS if endpoint else None):
                    await self._again.wait()

    async def _serve(self, endpoint: Endpoint) -> None:
        reader, writer = await endpoint.dial()
        with contextlib.closing(writer):
            if self._goal is not endpoint:
                return
            if isinstance(endpoint, TunnelEndpoint):
                self._writer = writer
                while told := await reader.read(READ_BYTES):
                    self._guest_records(now=told[-1] == 1)
                return
            async with asyncio.timeout(LINK_SECONDS):
                await _link(reader, writer, Channel.MAIN, 0)
            main = _Messages(reader, writer)
            async with asyncio.timeout(LINK_SECONDS):
                while (message := await main.next()).kind != spice.Kind.MAIN_INIT:
                    pass
                record_reader, record_writer = await endpoint.dial()
            with contextlib.closing(record_writer):
                async with asyncio.timeout(LINK_SECONDS):
                    await _link(record_reader, record_writer, Channel.RECORD, spice.session_of(message))
                if self._goal is not endpoint:
                    return
                self._writer = record_writer
                record = _Messages(record_reader, record_writer)
                await first_to_end(_pass_time(main), self._follow(record, record_writer), self._pace(record_writer))

    async def _follow(self, record: "_Messages", writer: asyncio.StreamWriter) -> None:
        while True:
            message = await record.next()
            if message.kind == spice.Kind.RECORD_START:
                writer.write(spice.begin(message))
                self._guest_records(now=True)
            elif message.kind == spice.Kind.RECORD_STOP:
                self._guest_records(now=False)

    async def _pace(self, writer: asyncio.StreamWriter) -> None:
        """One piece after the other as fast as the guest takes them: QEMU's own buffer is short, and drops what comes in bunches."""
        due = time.monotonic()
        while True:
            if (samples := self._held.piece()) is None:
                self._said.clear()
                await self._said.wait()
                continue
            if writer.transport.get_write_buffer_size() < MOST_WAITING_BYTES:
                writer.write(spice.piece(samples))
            due = max(due + PIECE_SECONDS, time.monotonic() - MOST_LATE_SECONDS)
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    def _guest_records(self, *, now: bool) -> None:
        self._records = now
        self._choose()

    def _choose(self) -> None:
        """Who is listened to."""
        chosen = self._speakers[0] if self._speakers and self._records and self._allowed else None
        before, self._heard = self._heard, chosen
        if before is chosen:
            return
        self._held.clear()
        if before:
            before.listen(wanted=False)
        if chosen:
            chosen.listen(wanted=True)

    def _break_off(self) -> None:
        self._again.set()
        if self._writer:
            self._writer.transport.abort()

    async def serve_front(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves another host's front, a viewer to us, to its end. Raises OSError."""
        front = _OtherFront(writer)
        self.joined(front)
        rest = b""
        try:
            while data := await reader.read(READ_BYTES):
                data = rest + data
                whole = len(data) // spice.FRAME_BYTES * spice.FRAME_BYTES
                rest = data[whole:]
                self.spoke(front, data[:whole])
        finally:
            self.left(front)


class _OtherFront:
    """Another host's front, a Speaker."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    def listen(self, *, wanted: bool) -> None:
        """See Speaker."""
        with contextlib.suppress(OSError):
            self._writer.write(bytes((wanted,)))


class _Messages:
    """A channel's messages one after the other; what the server is owed for them is sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._parser = MessageReader(spice.message)
        self._manners = Manners()
        self._read: list[Message] = []

    async def next(self) -> Message:
        """Raises EOFError, OSError, SpiceError."""
        while not self._read:
            data = await self._reader.read(READ_BYTES)
            if not data:
                raise EOFError("QEMU ended the channel")
            self._read = self._parser.feed(data)
        message = self._read.pop(0)
        if answer := self._manners.answer(message):
            self._writer.write(answer)
        return message


async def _pass_time(main: _Messages) -> None:
    """Nothing that the main channel says matters, but it must be answered."""
    while True:
        await main.next()


async def _link(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, channel: Channel, session: int) -> None:
    writer.write(spice.link(channel, session))
    reply = await reader.readexactly(spice.reply_bytes(await reader.readexactly(spice.LINK_HEAD_BYTES)))
    writer.write(spice.ticket(reply))
    spice.check_result(await reader.readexactly(spice.RESULT_BYTES))
