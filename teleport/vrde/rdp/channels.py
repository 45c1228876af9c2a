"""One viewer's sound, clipboard and microphone: between xrdp's side door and a companion at the guest's VNC, or what there is one of for
all viewers of the guest.

xrdp dials once it has put the viewer on its screen, says which channels there are, and from then on only carries bytes.
The channels are open whether the display's properties forbid them or not: a change counts at once, for those who are connected too.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable

from teleport.vrde import rfb
from teleport.vrde.clipboard_link import ClipboardLink
from teleport.vrde.companion import Companion
from teleport.vrde.microphone import Microphone
from teleport.vrde.rdp import clipboard, microphone_channel, side_door, sound
from teleport.vrde.rdp.clipboard import ClipboardChannel
from teleport.vrde.rdp.microphone_channel import MicrophoneChannel
from teleport.vrde.rdp.pdu import RdpError
from teleport.vrde.rdp.side_door import Assembly, Chunk, Dynamic, FromXrdp, Setup
from teleport.vrde.rdp.sound import Sound
from teleport.vrde.relay import Relay
from teleport.vrde.streams import first_to_end

SETUP_SECONDS = 10
READ_BYTES = 1 << 16
MOST_WAITING_BYTES = 1 << 18  # towards xrdp: sound beyond it is left out, and no long answer begins
MOST_BYTES = MOST_WAITING_BYTES + 3 * clipboard.MOST_PDU_BYTES  # such an answer, every line of it longer by an end of line

log = logging.getLogger("teleport.vrde.channels")


class _ToViewer:
    """The way to one viewer through xrdp."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    @property
    def is_free(self) -> bool:
        """Whether the viewer has taken most of what it was sent."""
        return self._writer.transport.get_write_buffer_size() < MOST_WAITING_BYTES

    def send(self, channel: int, *pdus: bytes) -> None:
        """Sends them; a viewer that takes nothing any more loses its channels."""
        self.send_blocks(b"".join(side_door.pack(channel, each) for each in pdus))

    def send_blocks(self, blocks: bytes) -> None:
        """Likewise, what is packed already."""
        self._writer.write(blocks)
        if self._writer.transport.get_write_buffer_size() > MOST_BYTES:
            self._writer.transport.abort()


class _SoundChannel:
    """One viewer's; a `companion.Listener`."""

    most_bytes = side_door.MOST_PDU_BYTES

    def __init__(self, relay: Relay, viewer: _ToViewer, channel: int) -> None:
        self._viewer = viewer
        self._channel = channel
        self._sound = Sound()
        self._companion = Companion(relay, self)

    def begin(self) -> None:
        self._viewer.send(self._channel, *self._sound.begin())

    def received(self, pdu: bytes) -> None:
        self._viewer.send(self._channel, *self._sound.received(pdu))

    async def run(self) -> None:
        await self._companion.run()

    def end(self) -> None:
        """Nothing is left to be done."""

    def played(self, samples: bytes) -> None:
        """See companion.Listener."""
        if self._viewer.is_free:
            self._viewer.send(self._channel, *self._sound.play(samples, now_ms=_now_ms()))

    def stopped_playing(self) -> None:
        """See companion.Listener."""
        self._viewer.send(self._channel, *self._sound.finish(now_ms=_now_ms()))


class _Session:
    """One viewer's channels, by xrdp's numbers."""

    def __init__(
        self,
        relay: Relay,
        link: ClipboardLink | None,
        microphone: Microphone | None,
        writer: asyncio.StreamWriter,
        setup: Setup,
    ) -> None:
        viewer = _ToViewer(writer)
        self._channels: dict[int, _SoundChannel | ClipboardChannel] = {}
        self._assemblies: dict[int, Assembly] = {}
        self.work: list[Callable[[], Awaitable[None]]] = []
        self._microphone: MicrophoneChannel | None = None
        if microphone and microphone_channel.TRANSPORT in setup.channels:
            self._microphone = MicrophoneChannel(microphone, viewer.send_blocks)
        if (number := setup.channels.get(sound.CHANNEL)) is not None:
            heard = _SoundChannel(relay, viewer, number)
            self.work.append(heard.run)
            self._add(number, heard)
        if link and (number := setup.channels.get(clipboard.CHANNEL)) is not None:
            to_viewer = functools.partial(viewer.send, number)
            self._add(number, ClipboardChannel(link.clipboard, to_viewer, lambda: viewer.is_free))

    def _add(self, number: int, channel: _SoundChannel | ClipboardChannel) -> None:
        self._channels[number] = channel
        self._assemblies[number] = Assembly(channel.most_bytes)

    def begin(self) -> None:
        """Opens the channels."""
        for each in self._channels.values():
            each.begin()
        if self._microphone:
            self._microphone.begin()

    def end(self) -> None:
        """The viewer has gone."""
        for each in self._channels.values():
            each.end()
        if self._microphone:
            self._microphone.end()

    def take(self, chunk: Chunk | Dynamic) -> None:
        """Takes a piece of what the viewer sent. Raises RdpError."""
        if not isinstance(chunk, Chunk):
            if self._microphone:
                self._microphone.take(chunk)
            return
        assembly = self._assemblies.get(chunk.channel)
        if assembly and (whole := assembly.feed(chunk)) is not None:
            self._channels[chunk.channel].received(whole)


def _now_ms() -> int:
    return int(1000 * time.monotonic())


async def serve(
    relay: Relay,
    link: ClipboardLink | None,
    microphone: Microphone | None,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Serves one connection of xrdp's to its end, and closes it."""
    try:
        blocks = rfb.MessageReader(side_door.block)
        async with asyncio.timeout(SETUP_SECONDS):
            setup, early = await _setup(reader, blocks)
        session = _Session(relay, link, microphone, writer, setup)
        try:
            session.begin()
            for each in early:
                session.take(each)
            await first_to_end(_from_viewer(session, reader, blocks, writer), *(each() for each in session.work))
        finally:
            session.end()
    except RdpError as error:
        log.warning("the channels of a viewer of %s ended: %s", relay.name, error)
    except (OSError, EOFError) as error:
        log.debug("the channels of a viewer of %s went: %r", relay.name, error)
    finally:
        writer.close()


Blocks = rfb.MessageReader[list[FromXrdp]]


async def _setup(reader: asyncio.StreamReader, blocks: Blocks) -> tuple[Setup, list[Chunk | Dynamic]]:
    """The setup, and what came right behind it. Raises RdpError, EOFError, OSError (a time-out is one)."""
    while data := await reader.read(READ_BYTES):
        messages = [each for block in blocks.feed(data) for each in block]
        if not messages:
            continue
        if not isinstance(messages[0], Setup):
            raise RdpError("xrdp began without naming the channels")
        return messages[0], [each for each in messages if not isinstance(each, Setup)]
    raise EOFError("xrdp went before it named the channels")


async def _from_viewer(session: _Session, reader: asyncio.StreamReader, blocks: Blocks, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(READ_BYTES):
        for block in blocks.feed(data):
            for each in block:
                if not isinstance(each, Setup):
                    session.take(each)
        await writer.drain()
