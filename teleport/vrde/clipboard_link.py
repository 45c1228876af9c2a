"""How a front reaches the clipboard of its guest: the driver of `clipboard` and `vdagent`.

::

    viewers ─▶ Clipboard ─▶ port com.redhat.spice.0 ─▶ spice-vdagentd                       the guest is on this host
    viewers ─▶ Clipboard ═ tunnel ═▶ the target's front, its Clipboard ─▶ port ─▶ …         it is on another

The port takes one connection, so the target's front alone has it; there another host's front counts as one more viewer, which speaks the
agent's protocol. With the clipboard switched off there is no connection. After a teleport the link dials the guest's new place, and the
agent, which has seen its port close, begins anew.
"""

import asyncio
import contextlib
import logging

from teleport.errors import TeleportError
from teleport.vrde import vdagent
from teleport.vrde.clipboard import Clipboard
from teleport.vrde.endpoint import Endpoint
from teleport.vrde.gates import Gates
from teleport.vrde.vdagent import AgentError, Dialect, Kind, Message, Messages

REDIAL_SECONDS = 1.0
READ_BYTES = 1 << 16
MOST_WAITING_BYTES = 4 * vdagent.MOST_TEXT_BYTES  # for a guest, or a front, that does not read

log = logging.getLogger("teleport.vrde.clipboard")


class ClipboardLink:
    """One front's. `endpoint` None: the guest has no such port."""

    def __init__(self, endpoint: Endpoint | None, gates: Gates) -> None:
        self.endpoint = endpoint
        self._is_on = gates.clipboard
        self._writer: asyncio.StreamWriter | None = None
        self._again = asyncio.Event()
        self.clipboard = Clipboard(self._to_guest, inwards=gates.clipboard_in, outwards=gates.clipboard_out)

    def retarget(self, endpoint: Endpoint | None) -> None:
        """The guest runs elsewhere."""
        self.endpoint = endpoint
        self._break_off()

    def allow(self, gates: Gates) -> None:
        """Which way text may go from now on."""
        self.clipboard.allow(inwards=gates.clipboard_in, outwards=gates.clipboard_out)
        if gates.clipboard != self._is_on:
            self._is_on = gates.clipboard
            self._break_off()

    async def run(self) -> None:
        """Serves until it is cancelled."""
        while True:
            self._again.clear()
            endpoint = self.endpoint
            if endpoint and self._is_on:
                try:
                    await self._serve(endpoint)
                except (OSError, TeleportError) as error:
                    log.debug("the guest's clipboard: %s", error)
                except AgentError as error:
                    log.warning("the guest's clipboard: its agent sends %s", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REDIAL_SECONDS if endpoint and self._is_on else None):
                    await self._again.wait()

    async def _serve(self, endpoint: Endpoint) -> None:
        reader, writer = await endpoint.dial()
        if self._again.is_set():  # meanwhile it was switched off, or the guest has moved
            writer.close()
            return
        self._writer = writer
        try:
            self.clipboard.connected()
            messages = Messages()
            while data := await reader.read(READ_BYTES):
                for each in messages.feed(data):
                    self.clipboard.received(each)
        finally:
            self._writer = None
            self.clipboard.lost()
            writer.transport.abort()

    def _break_off(self) -> None:
        self._again.set()
        if self._writer:
            self._writer.transport.abort()

    def _to_guest(self, data: bytes) -> None:
        if self._writer:
            _write(self._writer, data)

    async def serve_front(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves another host's front, which takes us for the guest's agent, to its end. Raises OSError."""
        front = _OtherFront(self.clipboard, writer)
        messages = Messages()
        self.clipboard.joined(front)
        try:
            while data := await reader.read(READ_BYTES):
                for each in messages.feed(data):
                    front.received(each)
        except AgentError as error:
            log.warning("the clipboard of another host's viewers: that front sends %s", error)
        finally:
            self.clipboard.left(front)


def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    if writer.transport.get_write_buffer_size() + len(data) > MOST_WAITING_BYTES:
        writer.transport.abort()  # its reader ends
    else:
        writer.write(data)


class _OtherFront:
    """Another host's front: a ViewerClipboard to us, and to it we are the guest's agent."""

    def __init__(self, clipboard: Clipboard, writer: asyncio.StreamWriter) -> None:
        self._clipboard = clipboard
        self._writer = writer
        self._dialect: Dialect | None = None
        self._text: str | None = None

    def offer(self, text: str | None) -> None:
        """See ViewerClipboard."""
        self._text = text
        if self._dialect:
            self._send(self._dialect.grab(vdagent.TEXT if text is not None else vdagent.NONE))

    def ask(self) -> None:
        """See ViewerClipboard."""
        if self._dialect:  # it has said that it copied
            self._send(self._dialect.request())

    def received(self, message: Message) -> None:
        """Takes one message of that front. Raises AgentError."""
        if message.kind is Kind.CAPABILITIES:
            self._dialect, asks = Dialect.of(message.body)
            if asks:
                self._send(vdagent.announcement(please_answer=False))
            if self._text is not None:
                self._send(self._dialect.grab())
            return
        if self._dialect is None or (said := self._dialect.read(message)) is None:
            return
        if said.kind is Kind.GRAB:
            self._text = None
            self._clipboard.copied(self, has_text=said.format == vdagent.TEXT)
        elif said.kind is Kind.RELEASE:
            self._clipboard.copied(self, has_text=False)
        elif said.kind is Kind.REQUEST:
            self._send(self._dialect.clipboard(self._text if said.format == vdagent.TEXT else None))
        elif said.kind is Kind.CLIPBOARD:
            self._clipboard.pasted(self, vdagent.text_of(said.data) if said.format == vdagent.TEXT else None)

    def _send(self, data: bytes) -> None:
        _write(self._writer, data)
