"""The guest's display for a front on another host: VNC through TLS, for who knows the ticket.

::

    viewer ─▶ front (stays on the source's host) ═ TLS 1.3, certificate by fingerprint ═▶ tunnel (target's front) ─▶ QEMU's VNC
                                                   ticket (32 bytes), screen (1 byte), then RFB
                                                   (screen 0: the guest's agent, then its JSON;
                                                    253: what it records, see `microphone`;
                                                    254: its clipboard, then spice-vdagent's protocol;
                                                    255: a USB device that is shared there, see `usb_frames`)

Fingerprint and ticket travel over the agents' authenticated channel, so neither a certificate authority nor a password is needed. The
ticket is good as long as the tunnel is open, since a front that lost its connection comes again. When the guest moves on from here,
the connections break, the other front dials again, and finds the guest where this front's own screens are now.
"""

import asyncio
import contextlib
import hmac
import logging
import secrets
import ssl

from teleport.errors import BusyError, TeleportError
from teleport.vrde import certificate
from teleport.vrde.endpoint import AGENT, BUFFER_BYTES, CLIPBOARD, MICROPHONE, TICKET_BYTES, Endpoint
from teleport.vrde.extension import Context
from teleport.vrde.guest_agent import GuestAgent
from teleport.vrde.streams import Connections, first_to_end, peer_of, pipe
from teleport.vrde.usb import USB

TICKET_SECONDS = 10
MOST_CONNECTIONS = 64

log = logging.getLogger("teleport.vrde.tunnel")


class Tunnel:
    """At most one listener a front; opened when it is first wanted."""

    def __init__(self, context: Context, agent: GuestAgent) -> None:
        self._context = context
        self._agent = agent
        self._ticket = b""
        self._fingerprint = ""
        self._server: asyncio.Server | None = None
        self._connections = Connections()

    async def open(self, *, address: str, port: int) -> dict[str, object]:
        """`port`, `fingerprint` and `ticket` (hex), the parts of an endpoint ``tunnel:HOST:PORT:FINGERPRINT:TICKET:SCREEN``.

        Port 0 picks a free one; asked again, it says what is open already. Raises BusyError.
        """
        if self._server is None:
            shown = certificate.load(self._context.settings, self._context.keys)
            self._fingerprint = shown.fingerprint.replace(":", "").lower()
            self._ticket = secrets.token_bytes(TICKET_BYTES)
            context = shown.context
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            try:
                self._server = await asyncio.start_server(self._accept, address, port, ssl=context, limit=BUFFER_BYTES)
            except OSError as error:
                raise BusyError("the display's tunnel", f"{address} port {port} cannot be bound: {error.strerror}") from error
            self._context.note(f"tunnel for another host's front on port {self._port} of {address}")
        return {
            "port": self._port,
            "fingerprint": self._fingerprint,
            "ticket": self._ticket.hex(),
            "screens": len(self._context.screens),
            "agent": self._agent.endpoint is not None,
            "clipboard": bool(self._context.clipboard and self._context.clipboard.endpoint),
            "microphone": bool(self._context.microphone and self._context.microphone.endpoint),
        }

    @property
    def _port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1]) if self._server else 0

    async def stop(self) -> None:
        """Ends it with all its connections."""
        if self._server:
            self._server.close()
            self._server = None
        await self._connections.end()

    def break_off(self) -> None:
        """Ends the connections, so that the other fronts dial again: the guest is elsewhere now."""
        self._connections.cancel()

    def _endpoint(self, screen: int) -> Endpoint | None:
        """What a number stands for; None when there is no such screen, or no agent."""
        if screen == AGENT:
            return self._agent.endpoint
        return self._context.screens.relay(screen).endpoint if screen <= len(self._context.screens) else None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = peer_of(writer)[1]
        with contextlib.closing(writer), self._connections.one() as count:
            if count > MOST_CONNECTIONS:
                return
            try:
                await self._serve(reader, writer, client)
            except (OSError, EOFError, TeleportError) as error:
                log.debug("tunnel: %s went: %s", client, error)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: str) -> None:
        async with asyncio.timeout(TICKET_SECONDS):
            shown = await reader.readexactly(TICKET_BYTES + 1)
        endpoint = self._endpoint(shown[-1])
        known = hmac.compare_digest(shown[:TICKET_BYTES], self._ticket)
        if known and shown[-1] == USB and self._context.usb:
            await self._context.usb.serve_front(reader, writer)
            return
        if known and shown[-1] == CLIPBOARD and self._context.clipboard:
            await self._context.clipboard.serve_front(reader, writer)
            return
        if known and shown[-1] == MICROPHONE and self._context.microphone:
            await self._context.microphone.serve_front(reader, writer)
            return
        if not known or endpoint is None:
            self._context.note(f"tunnel: {client} refused: wrong ticket")
            return
        back_reader, back_writer = await endpoint.dial()
        with contextlib.closing(back_writer):
            await first_to_end(pipe(reader, back_writer), pipe(back_reader, writer))
