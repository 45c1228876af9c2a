"""A viewer and its xrdp: how bytes go between the two, and how a session is ended from here with a word to the viewer."""

import asyncio
import contextlib

from teleport.vrde.rdp import pdu
from teleport.vrde.rdp.dynamic_channels import StandIn, VersionLift
from teleport.vrde.rdp.pdu import ErrorInfo, FrameFollower
from teleport.vrde.rdp.security import StandardSecurity
from teleport.vrde.streams import READ_BYTES, pipe

FAREWELL_SECONDS = 1.0  # a viewer that does not read is not waited for any longer


async def read_pdu(reader: asyncio.StreamReader) -> bytes:
    """One whole PDU. Raises RdpError, IncompleteReadError, OSError."""
    data = await reader.readexactly(2)
    while (length := pdu.frame_length(data)) is None:
        data += await reader.readexactly(1)
    return data + await reader.readexactly(length - len(data))


class Link:
    """`back_reader` and `back_writer` are xrdp's side; `security` None: TLS is around it all; `dynamic_channels`
    does what the viewer's need."""

    def __init__(
        self,
        viewer: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        back: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        *,
        security: StandardSecurity | None,
        protection: str,
        knows_error_info: bool,
        dynamic_channels: StandIn | VersionLift,
    ) -> None:
        self._reader, self._writer = viewer
        self.back_reader, self.back_writer = back
        self._security = security
        self.protection = protection
        self._knows_error_info = knows_error_info
        self._stand_in = dynamic_channels if isinstance(dynamic_channels, StandIn) else None
        self._lift = dynamic_channels if isinstance(dynamic_channels, VersionLift) else None
        self._is_passed_as_it_comes = security is None and self._stand_in is None
        self._follower = FrameFollower()
        self._ended = asyncio.Event()
        self._why: ErrorInfo | None = None
        self.answers = asyncio.create_task(self._to_viewer())  # a task for good: cancelling it could cut a PDU in two

    async def close(self) -> None:
        """Ends xrdp's side."""
        self.back_writer.close()
        self.answers.cancel()
        await asyncio.gather(self.answers, return_exceptions=True)

    async def _to_viewer(self) -> None:
        """xrdp's bytes to the viewer, to their end."""
        if self._is_passed_as_it_comes:
            while data := await self.back_reader.read(READ_BYTES):
                self._follower.feed(data)
                self._writer.write(data)
                await self._writer.drain()
            return
        while True:
            data = await read_pdu(self.back_reader)
            if self._stand_in:
                passed = self._stand_in.from_xrdp(data)
                self.back_writer.write(passed.to_xrdp)
                data = passed.to_viewer
            if data:
                self._writer.write(self._security.from_server(data) if self._security else data)
                await self._writer.drain()

    async def to_xrdp(self) -> None:
        """The viewer's bytes to xrdp, to their end."""
        # PDU by PDU where they are looked into, or `_to_viewer` may put one of its own between.
        while not self._is_passed_as_it_comes or (self._lift and not self._lift.is_done):
            self.back_writer.write(await self.next_for_xrdp())
            await self.back_writer.drain()
        await pipe(self._reader, self.back_writer)

    async def next_for_xrdp(self) -> bytes:
        """The viewer's next PDU as xrdp is to get it."""
        while True:
            data = await read_pdu(self._reader)
            recoded = self._security.from_viewer(data) if self._security else data
            if recoded is not None:
                return self._lift.from_viewer(recoded) if self._lift else recoded

    def end(self, why: ErrorInfo) -> None:
        """Makes `ended` return, which says why to the viewer."""
        self._why = why
        self._ended.set()

    async def ended(self) -> None:
        """Waits for `end`."""
        await self._ended.wait()

    async def say_farewell(self, why: ErrorInfo | None = None) -> None:
        """The last words to a viewer, at the end of the PDU under way: why, or as `end` said; then its connection ends. Does nothing for
        a session that nobody ended."""
        why = why or self._why
        if why is None:
            return
        with contextlib.suppress(TimeoutError, OSError, EOFError, pdu.RdpError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                self.answers.cancel()
                await asyncio.gather(self.answers, return_exceptions=True)
                while missing := self._follower.missing_bytes:
                    rest = await self.back_reader.readexactly(missing)
                    self._follower.feed(rest)
                    self._writer.write(rest)
                if self._knows_error_info:
                    words = pdu.error_info(why)
                    self._writer.write(self._security.from_server(words) if self._security else words)
                self._writer.write(pdu.DISCONNECT)
                self._writer.close()
                await self._writer.wait_closed()
        self._writer.transport.abort()
