"""One viewer of a guest's screen, as the relay drives it: `rfb` and `passage` between the viewer's connection and one to the guest's VNC,
which may be exchanged under it (`switch`).

Requests run one update ahead: QEMU looks for changes by a timer that slows down whenever nobody is asking at that moment, so the relay asks
for the next update as soon as one begins, and passes it on when the viewer asks for it.

A switch: dial the new VNC → end the message under way → replay SetPixelFormat and SetEncodings → ask for a full update → drop the old one.
So the viewer sees one stream. A server that is lost without a switch is dialled again for 30 s.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from teleport.errors import TeleportError, UnreachableError
from teleport.vrde import rfb
from teleport.vrde.clipboard import Clipboard
from teleport.vrde.endpoint import BUFFER_BYTES, Endpoint
from teleport.vrde.gates import Gates
from teleport.vrde.pace import STILL_SECONDS, Pacer
from teleport.vrde.passage import Passage, Piece
from teleport.vrde.rfb import ClientKind, Encoding, ServerKind
from teleport.vrde.rfb_clipboard import RfbClipboard
from teleport.vrde.upstream import HANDSHAKE_SECONDS, Upstream, shake_hands

REDIAL_SECONDS = 30
REDIAL_EVERY_SECONDS = 0.25
RESIZE_HOLD_SECONDS = 0.4  # rdesktop loses updates that come right behind a change of size
READ_BYTES = 1 << 18
MOST_WAITING_BYTES = 4 * BUFFER_BYTES  # of the clipboard, for a viewer that does not read

log = logging.getLogger("teleport.vrde.relay")


class Screen(Protocol):
    """What a viewer is to see, as of now."""

    name: str
    gates: Gates

    @property
    def endpoint(self) -> Endpoint:
        """Where the guest's VNC is."""


class Viewer:
    """One viewer of one screen."""

    def __init__(
        self,
        screen: Screen,
        stream: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        *,
        label: str,
        clipboard: Clipboard | None,
        grants_sizes: bool,
    ) -> None:
        self._screen = screen
        self._reader, self._writer = stream
        self.label = label
        self.sent_bytes = 0
        self._upstream: Upstream | None = None
        self._pixel_format = b""
        self._encodings: bytes = b""
        self._asked = False  # for an update, at least once
        self._wanted = asyncio.Event()  # the viewer has asked, and was not answered yet
        self._request = b""  # its newest incremental request
        self._asked_server = False  # the server has a request that it was not seen to answer
        self._holds_head = False  # an update waits for the viewer to want it: nothing of it has gone out
        self._size = (0, 0)
        self._switching = asyncio.Lock()
        self._wake = asyncio.Event()
        self._pacer: Pacer | None = None
        self._passage: Passage | None = None
        self._owed_request: bytes | None = None
        self._clipboard = RfbClipboard(clipboard, self._tell) if clipboard else None
        self._grants_sizes = grants_sizes
        self._untold = bytearray()  # messages of our own, until the server's message under way has ended

    async def serve(self, password: rfb.Password | None, admit: Callable[[bool], Awaitable[str]]) -> None:
        """Serves the viewer to its end; returns quietly however that comes. `admit` hears whether the password was right, and says why
        the viewer may not come in; "" lets it in."""
        self.apply_gates()
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                security = rfb.viewer_security(password.challenge if password else b"")
                answer = await shake_hands(security, self._reader, self._writer)
            right = password is None or password.equals(answer.response, password.response)
            if why := await admit(right):
                self._send(rfb.viewer_refused(answer, why))
                return
            await self._welcome(answer)
            await self._work()
        except (OSError, EOFError) as error:
            log.debug("viewer %s went: %s", self.label, error)
        except (rfb.RfbError, TeleportError) as error:
            log.warning("viewer %s ended: %s", self.label, error)
        finally:
            if self._clipboard:
                self._clipboard.end()
            if self._upstream:
                self._upstream.writer.close()

    async def _welcome(self, answer: rfb.ViewerAnswer) -> None:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            self._upstream = await Upstream.open(self._screen.endpoint)
            init = self._upstream.init
            self._pixel_format, self._size = init.pixel_format, (init.width, init.height)
            name = self._screen.name.encode()[: rfb.MOST_NAME_BYTES]
            await shake_hands(rfb.viewer_welcome(answer, init.pack(name)), self._reader, self._writer)

    async def _work(self) -> None:
        tasks = [asyncio.create_task(each()) for each in (self._from_viewer, self._from_servers, self._keep_pace)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    def drop(self) -> None:
        """Ends the viewer's connection at once."""
        self._writer.transport.abort()

    def apply_gates(self) -> None:
        """Takes over the relay's gates; a picture that was hidden or shown until now is asked for again."""
        quality = self._screen.gates.quality
        if quality is None:
            self._pacer = None
        elif self._pacer is None or self._pacer.quality != quality:
            self._pacer = Pacer(quality)
        self._request_everything()

    # viewer → server

    async def _from_viewer(self) -> None:
        messages = rfb.MessageReader(rfb.client_message)
        while data := await self._reader.read(READ_BYTES):
            for message in messages.feed(data):
                await self._client_message(message)
            if self._upstream:
                with contextlib.suppress(OSError):  # a lost server is _from_servers' to notice
                    await self._upstream.writer.drain()

    async def _client_message(self, message: rfb.ClientMessage) -> None:
        gates, data = self._screen.gates, message.data
        match message.kind:
            case ClientKind.SET_PIXEL_FORMAT:
                rfb.pixel_bytes(data[4:])
                if self._asked:  # updates in the old format may be under way: a fresh connection has none
                    await self.switch(self._screen.endpoint, pixel_format=data[4:20])
                    return
                self._pixel_format = data[4:20]
            case ClientKind.SET_ENCODINGS:
                allowed = rfb.MEASURABLE if gates.audio else rfb.MEASURABLE - {Encoding.QEMU_AUDIO}
                wanted = rfb.encodings_of(data)
                data = self._encodings = rfb.set_encodings([e for e in wanted if e in allowed])
                if self._clipboard:
                    self._clipboard.encodings(wanted)
                if self._grants_sizes and rfb.EXTENDED_DESKTOP_SIZE in wanted:
                    self._tell(rfb.extended_resize(*self._size))
            case ClientKind.UPDATE_REQUEST:
                self._update_request(data)
                return
            case ClientKind.CUT_TEXT:  # never to QEMU: it would go to the other viewers
                if self._clipboard:
                    self._clipboard.received(data)
                return
            case ClientKind.SET_DESKTOP_SIZE:  # the guest's is its own: granted, and changed back at once
                if self._grants_sizes:
                    asked = rfb.desktop_size_of(data)
                    self._tell(rfb.extended_resize(*asked, was_asked_for=True) + rfb.extended_resize(*self._size))
                return
            case ClientKind.KEY | ClientKind.POINTER if not gates.input:
                return
            case ClientKind.QEMU if not (gates.audio if data[1] == 1 else gates.input):
                return
        self._to_server(data)

    def _update_request(self, data: bytes) -> None:
        self._asked = True
        self._wanted.set()
        if data[1]:
            self._request = data
            if self._pacer and self._pacer.seconds_until_request(time.monotonic()) > 0:
                self._owed_request = data  # only the newest counts: requests are not queued in RFB either
                return
            if self._asked_server:
                return
        self._asked_server = True
        self._to_server(data)

    def _to_server(self, data: bytes) -> None:
        # Looked up at the moment of writing: an await between would write to the server of before a switch.
        if self._upstream and not self._upstream.writer.is_closing():
            self._upstream.writer.write(data)

    def _request_everything(self) -> None:
        if self._asked:
            self._asked_server = True
            self._to_server(rfb.update_request(0, 0, *self._size, incremental=False))

    # server → viewer

    async def _from_servers(self) -> None:
        while True:
            upstream = self._upstream
            if upstream:
                try:
                    await self._pump(upstream)
                except (ConnectionError, rfb.RfbError) as error:
                    if self._writer.is_closing():
                        return
                    log.warning("viewer %s: the guest's display broke off: %s", self.label, error)
                if self._upstream is upstream:  # lost, not switched
                    upstream.writer.close()
                    self._upstream = None
            if not self._upstream:
                await self._redial()

    async def _pump(self, upstream: Upstream) -> None:
        passage = self._passage = Passage(self._pixel_format or upstream.init.pixel_format)
        passage.allows = self._allows
        while data := await upstream.reader.read(READ_BYTES):
            passage.pixel_format = self._pixel_format
            changes = (self._pacer and self._pacer.coarsens) or not self._screen.gates.display
            passage.transform = self._transform if changes else None
            for piece in passage.feed(data):
                if piece.begins_update and not await self._update_is_wanted(upstream):
                    return
                await self._pass_on(piece)
                if self._upstream is not upstream:
                    return

    async def _update_is_wanted(self, upstream: Upstream) -> bool:
        """Waits until the viewer asks for the update that begins, and its frame cap lets it pass; False when the server was exchanged
        meanwhile."""
        self._asked_server = False
        pacer = self._pacer
        if self._request and (pacer is None or pacer.asks_ahead):
            self._asked_server = True
            self._to_server(self._request)
        self._holds_head = True
        await self._wanted.wait()
        if pacer:
            await asyncio.sleep(pacer.seconds_until_update(time.monotonic()))
            pacer.update_began(time.monotonic())
        if self._upstream is not upstream:
            return False
        self._holds_head = False
        self._wanted.clear()
        return True

    async def _pass_on(self, piece: Piece) -> None:
        # Written before anything is awaited: what the passage takes for passed on is.
        self._send(piece.data)
        resized = piece.size is not None and piece.size != self._size
        if piece.size:
            self._size = piece.size
        if piece.ends:
            self._tell_waiting()
        await self._writer.drain()
        if resized and piece.ends:
            await asyncio.sleep(RESIZE_HOLD_SECONDS)

    def _allows(self, kind: ServerKind) -> bool:
        return kind is not ServerKind.CUT_TEXT and (kind is not ServerKind.QEMU or self._screen.gates.audio)

    def _transform(self, rectangle: rfb.Rectangle) -> bytes:
        if not self._screen.gates.display and rectangle.encoding in (Encoding.RAW, Encoding.CURSOR):
            return bytes(len(rectangle.data))
        return self._pacer.rectangle(rectangle, self._pixel_format, time.monotonic()) if self._pacer else rectangle.data

    def _send(self, data: bytes) -> None:
        self.sent_bytes += len(data)
        self._writer.write(data)

    def _tell(self, message: bytes) -> None:
        """Sends a whole message of our own as soon as `_tell_waiting` can. A viewer that doesn't read is dropped."""
        self._untold += message
        self._tell_waiting()
        if len(self._untold) > MOST_WAITING_BYTES:
            self.drop()

    def _tell_waiting(self) -> None:
        """Sends what waits, where it does not fall into a message of the server's, and the viewer takes what it is sent."""
        is_between = self._passage is None or self._holds_head or self._passage.is_between_messages
        if self._untold and is_between and self._writer.transport.get_write_buffer_size() < BUFFER_BYTES:
            self._send(bytes(self._untold))
            self._untold.clear()

    def _end_message(self) -> None:
        """Ends the update that the old server was sending."""
        if self._passage and not self._holds_head and (rest := self._passage.completion()):
            self._send(rest)
        self._passage, self._holds_head = None, False
        self._tell_waiting()

    async def _redial(self) -> None:
        until = time.monotonic() + REDIAL_SECONDS
        while not self._upstream:
            self._wake.clear()
            try:
                await self.switch(self._screen.endpoint)
            except UnreachableError as error:
                if time.monotonic() >= until:
                    raise
                log.debug("viewer %s: %s; trying again", self.label, error)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(REDIAL_EVERY_SECONDS):
                        await self._wake.wait()

    async def switch(self, endpoint: Endpoint, *, pixel_format: bytes = b"") -> None:
        """Puts another server behind this viewer. Raises UnreachableError, and then the old one stays."""
        async with self._switching:
            fresh = await Upstream.open(endpoint)
            if self._writer.is_closing():  # the viewer has left meanwhile: nobody else would close it
                fresh.writer.close()
                return
            old, self._upstream = self._upstream, fresh
            if old:
                old.writer.close()
            self._end_message()
            self._pixel_format = pixel_format or self._pixel_format
            if self._asked or self._encodings:
                set_format = b"\0\0\0\0" + self._pixel_format
                fresh.writer.write(set_format + (self._encodings or rfb.set_encodings([Encoding.RAW])))
            size = fresh.init.width, fresh.init.height
            if size != self._size:
                self._size = size
                self._send(rfb.resize(*size))
            self._request_everything()
            self._wake.set()

    def wake(self) -> None:
        """Ends a pause between two attempts to dial: the endpoint has changed."""
        self._wake.set()

    async def _keep_pace(self) -> None:
        """Sends on what waits or the frame cap held back, and asks again for what was shown coarse and stands still now."""
        while True:
            self._tell_waiting()
            pacer, now = self._pacer, time.monotonic()
            if pacer is None:
                await asyncio.sleep(STILL_SECONDS)
                if self._owed_request:  # the cap was lifted meanwhile
                    self._asked_server = True
                    self._to_server(self._owed_request)
                    self._owed_request = None
                continue
            if self._owed_request and pacer.seconds_until_request(now) <= 0:
                self._asked_server = True
                self._to_server(self._owed_request)
                self._owed_request = None
            if area := pacer.still(now):
                x, y, width, height = area
                width, height = min(width, self._size[0] - x), min(height, self._size[1] - y)
                if width > 0 and height > 0:
                    self._to_server(rfb.update_request(x, y, width, height, incremental=False))
            busy = self._owed_request is not None
            await asyncio.sleep(max(0.005, pacer.seconds_until_request(now)) if busy or pacer.has_coarse else 0.05)
