"""The driver of `rfb`: viewers on one side, the guest's VNC on the other, which may be exchanged under them.

Requests run one update ahead: QEMU looks for changes by a timer that slows down whenever nobody is asking at that moment, so the relay asks
for the next update as soon as one begins, and passes it on when the viewer asks for it.

Each viewer has a connection of its own to QEMU. QEMU throttles each by itself, so a viewer that stops reading stalls neither the guest
nor the others; what the relay holds for it is bounded by its buffers and one message.

A switch (`retarget`): dial the new VNC → end the message under way → replay SetPixelFormat and SetEncodings → ask for a full update →
drop the old one. So the viewer sees one stream. A server that is lost without a switch is dialled again for 30 s.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator

from teleport.errors import TeleportError, UnreachableError
from teleport.vrde import rfb
from teleport.vrde.endpoint import BUFFER_BYTES, Endpoint
from teleport.vrde.gates import Gates
from teleport.vrde.pace import STILL_SECONDS, Pacer
from teleport.vrde.passage import Passage, Piece
from teleport.vrde.rfb import ClientKind, Encoding, ServerKind
from teleport.vrde.upstream import HANDSHAKE_SECONDS, Upstream, shake_hands

REDIAL_SECONDS = 30
REDIAL_EVERY_SECONDS = 0.25
RESIZE_HOLD_SECONDS = 0.4  # rdesktop loses updates that come right behind a change of size
MOST_VIEWERS = 64
READ_BYTES = 1 << 18

log = logging.getLogger("teleport.vrde.relay")


class Viewer:
    """One viewer of one screen."""

    def __init__(self, relay: "Relay", reader: asyncio.StreamReader, writer: asyncio.StreamWriter, label: str) -> None:
        self._relay = relay
        self._reader = reader
        self._writer = writer
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

    async def serve(self, password: rfb.Password | None, admit: Callable[[bool], bool]) -> None:
        """Serves the viewer to its end; returns quietly however that comes."""
        self.apply_gates()
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                self._upstream = await Upstream.open(self._relay.endpoint)
                init = self._upstream.init
                self._pixel_format, self._size = init.pixel_format, (init.width, init.height)
                name = self._relay.name.encode()[: rfb.MOST_NAME_BYTES]
                right = await shake_hands(rfb.viewer_handshake(init.pack(name), password), self._reader, self._writer)
            if not admit(right):
                return
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
        except (OSError, EOFError) as error:
            log.debug("viewer %s went: %s", self.label, error)
        except (rfb.RfbError, TeleportError) as error:
            log.warning("viewer %s ended: %s", self.label, error)
        finally:
            if self._upstream:
                self._upstream.writer.close()

    def drop(self) -> None:
        """Ends the viewer's connection at once."""
        self._writer.transport.abort()

    def apply_gates(self) -> None:
        """Takes over the relay's gates; a picture that was hidden or shown until now is asked for again."""
        quality = self._relay.gates.quality
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
        gates, data = self._relay.gates, message.data
        match message.kind:
            case ClientKind.SET_PIXEL_FORMAT:
                rfb.pixel_bytes(data[4:])
                if self._asked:  # updates in the old format may be under way: a fresh connection has none
                    await self.switch(self._relay.endpoint, pixel_format=data[4:20])
                    return
                self._pixel_format = data[4:20]
            case ClientKind.SET_ENCODINGS:
                allowed = rfb.MEASURABLE if gates.audio else rfb.MEASURABLE - {Encoding.QEMU_AUDIO}
                data = self._encodings = rfb.set_encodings([e for e in rfb.encodings_of(data) if e in allowed])
            case ClientKind.UPDATE_REQUEST:
                self._update_request(data)
                return
            case ClientKind.CUT_TEXT if not gates.clipboard:
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
            passage.transform = self._transform if self._pacer or not self._relay.gates.display else None
            for piece in passage.feed(data):
                if piece.begins_update and not await self._update_is_wanted(upstream):
                    return
                await self._pass_on(piece)
                if self._upstream is not upstream:
                    return

    async def _update_is_wanted(self, upstream: Upstream) -> bool:
        """Waits until the viewer asks for the update that begins; False when the server was exchanged meanwhile."""
        self._asked_server = False
        if self._request and not self._pacer:
            self._asked_server = True
            self._to_server(self._request)
        self._holds_head = True
        await self._wanted.wait()
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
        if piece.begins_update and self._pacer:
            self._pacer.update_began(time.monotonic())
        await self._writer.drain()
        if resized and piece.ends:
            await asyncio.sleep(RESIZE_HOLD_SECONDS)

    def _allows(self, kind: ServerKind) -> bool:
        gates = self._relay.gates
        return not ((kind is ServerKind.CUT_TEXT and not gates.clipboard) or (kind is ServerKind.QEMU and not gates.audio))

    def _transform(self, rectangle: rfb.Rectangle) -> bytes:
        if not self._relay.gates.display and rectangle.encoding in (Encoding.RAW, Encoding.CURSOR):
            return bytes(len(rectangle.data))
        return self._pacer.rectangle(rectangle, self._pixel_format, time.monotonic()) if self._pacer else rectangle.data

    def _send(self, data: bytes) -> None:
        self.sent_bytes += len(data)
        self._writer.write(data)

    def _end_message(self) -> None:
        """Ends the update that the old server was sending."""
        if self._passage and not self._holds_head and (rest := self._passage.completion()):
            self._send(rest)
        self._passage, self._holds_head = None, False

    async def _redial(self) -> None:
        until = time.monotonic() + REDIAL_SECONDS
        while not self._upstream:
            self._wake.clear()
            try:
                await self.switch(self._relay.endpoint)
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
        """Sends on what the frame cap held back, and asks again for what was shown coarse and stands still now."""
        while True:
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


class Relay:
    """All viewers of one screen of one guest."""

    def __init__(self, *, endpoint: Endpoint, name: str, gates: Gates) -> None:
        self._endpoint = endpoint
        self.name = name
        self.gates = gates
        self._viewers: set[Viewer] = set()
        self._watchers: set[Callable[[], None]] = set()

    @property
    def endpoint(self) -> Endpoint:
        """Where the guest's VNC is."""
        return self._endpoint

    @endpoint.setter
    def endpoint(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._tell_watchers()

    @contextlib.contextmanager
    def watched(self, watcher: Callable[[], None]) -> Iterator[None]:
        """Calls `watcher` whenever the endpoint or the gates were exchanged."""
        self._watchers.add(watcher)
        try:
            yield
        finally:
            self._watchers.discard(watcher)

    def _tell_watchers(self) -> None:
        for each in tuple(self._watchers):
            each()

    @property
    def viewers(self) -> tuple[Viewer, ...]:
        """The viewers of now."""
        return tuple(self._viewers)

    async def serve(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        label: str,
        password: Callable[[], rfb.Password] | None = None,
        admit: Callable[[bool], bool] | None = None,
    ) -> None:
        """Serves one viewer to its end and closes it.

        `admit` is told once whether the password was right, and says whether the viewer may go on.
        """
        viewer = Viewer(self, reader, writer, label)
        writer.transport.set_write_buffer_limits(high=BUFFER_BYTES)
        with self._among(viewer), contextlib.closing(writer):
            if len(self._viewers) > MOST_VIEWERS:
                log.warning("viewer %s refused: %d viewers are enough", label, MOST_VIEWERS)
                return
            await viewer.serve(password() if password else None, admit or (lambda right: right))

    @contextlib.contextmanager
    def _among(self, viewer: Viewer) -> Iterator[None]:
        self._viewers.add(viewer)
        try:
            yield
        finally:
            self._viewers.discard(viewer)

    async def retarget(self, endpoint: Endpoint) -> int:
        """Switches all viewers to another server and returns how many are there now.

        A viewer whose switch fails keeps trying by itself, for 30 s. Raises UnreachableError when none could be switched (and nothing
        answers there), and then everything is as before.
        """
        if not self._viewers:
            probe = await Upstream.open(endpoint)
            probe.writer.close()
            self.endpoint = endpoint
            return 0
        before, self.endpoint = self.endpoint, endpoint
        viewers = self.viewers
        ends = await asyncio.gather(*(each.switch(endpoint) for each in viewers), return_exceptions=True)
        failures = [end for end in ends if isinstance(end, BaseException)]
        for failure in failures:
            if not isinstance(failure, TeleportError | OSError):
                raise failure
        if failures and len(failures) == len(viewers):
            self.endpoint = before
            raise failures[0]
        for each in viewers:
            each.wake()
        return len(viewers) - len(failures)

    def set_gates(self, gates: Gates) -> None:
        """Changes what all viewers may see and do, at once."""
        self.gates = gates
        for each in self._viewers:
            each.apply_gates()
        self._tell_watchers()

    def drop_all(self) -> None:
        """Ends all viewers' connections."""
        for each in self.viewers:
            each.drop()
