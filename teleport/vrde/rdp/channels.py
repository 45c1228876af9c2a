"""One viewer's sound: between xrdp's side door and a companion at the guest's VNC.

xrdp dials once it has put the viewer on its screen, says which channels there are, and from then on only carries bytes.
The channel is open whether the display's properties forbid sound or not: a change counts at once, for those who are connected too.
"""

import asyncio
import logging
import time

from teleport.vrde import rfb
from teleport.vrde.companion import Companion
from teleport.vrde.rdp import side_door, sound
from teleport.vrde.rdp.pdu import RdpError
from teleport.vrde.rdp.side_door import Assembly, Chunk, Setup
from teleport.vrde.rdp.sound import Sound
from teleport.vrde.relay import Relay
from teleport.vrde.streams import first_to_end

SETUP_SECONDS = 10
READ_BYTES = 1 << 16
MOST_WAITING_BYTES = 1 << 18  # towards xrdp: sound beyond it is left out

log = logging.getLogger("teleport.vrde.channels")


class _Session:
    """One viewer's; a `companion.Listener`."""

    def __init__(self, writer: asyncio.StreamWriter, channel: int) -> None:
        self._writer = writer
        self._channel = channel
        self._assembly = Assembly()
        self._sound = Sound()

    def begin(self) -> None:
        """Opens the channel."""
        self._to_viewer(self._sound.begin())

    def take(self, chunk: Chunk) -> None:
        """Takes a piece of what the viewer sent. Raises RdpError."""
        if chunk.channel == self._channel and (whole := self._assembly.feed(chunk)) is not None:
            self._to_viewer(self._sound.received(whole))

    def _to_viewer(self, pdus: list[bytes]) -> None:
        for each in pdus:
            self._writer.write(side_door.pack(self._channel, each))

    def played(self, samples: bytes) -> None:
        """See companion.Listener."""
        if self._writer.transport.get_write_buffer_size() < MOST_WAITING_BYTES:
            self._to_viewer(self._sound.play(samples, now_ms=_now_ms()))

    def stopped_playing(self) -> None:
        """See companion.Listener."""
        self._to_viewer(self._sound.finish(now_ms=_now_ms()))


def _now_ms() -> int:
    return int(1000 * time.monotonic())


async def serve(relay: Relay, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serves one connection of xrdp's to its end, and closes it."""
    try:
        blocks = rfb.MessageReader(side_door.block)
        async with asyncio.timeout(SETUP_SECONDS):
            setup, early = await _setup(reader, blocks)
        channel = setup.channels.get(sound.CHANNEL)
        if channel is None:  # the viewer wants no sound
            while await reader.read(READ_BYTES):
                pass
            return
        session = _Session(writer, channel)
        session.begin()
        for each in early:
            session.take(each)
        await first_to_end(_from_viewer(session, reader, blocks, writer), Companion(relay, session).run())
    except RdpError as error:
        log.warning("the sound of a viewer of %s ended: %s", relay.name, error)
    except (OSError, EOFError) as error:
        log.debug("the sound of a viewer of %s went: %r", relay.name, error)
    finally:
        writer.close()


Blocks = rfb.MessageReader[list[Setup | Chunk]]


async def _setup(reader: asyncio.StreamReader, blocks: Blocks) -> tuple[Setup, list[Chunk]]:
    """The setup, and what came right behind it. Raises RdpError, EOFError, OSError (a time-out is one)."""
    while data := await reader.read(READ_BYTES):
        messages = [each for block in blocks.feed(data) for each in block]
        if not messages:
            continue
        if not isinstance(messages[0], Setup):
            raise RdpError("xrdp began without naming the channels")
        return messages[0], [each for each in messages if isinstance(each, Chunk)]
    raise EOFError("xrdp went before it named the channels")


async def _from_viewer(session: _Session, reader: asyncio.StreamReader, blocks: Blocks, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(READ_BYTES):
        for block in blocks.feed(data):
            for each in block:
                if isinstance(each, Chunk):
                    session.take(each)
        await writer.drain()
