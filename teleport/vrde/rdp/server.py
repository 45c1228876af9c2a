"""One VM's RDP display: front → private xrdp → relay → the guest's VNC.

::

    viewer              front                                   xrdp (security_layer=rdp, crypt_level=none)
      │─ X.224 request ──▶│ chooses TLS or Standard RDP Security  │
      │                   │─ plain X.224 request ────────────────▶│
      │◀ X.224 confirm ───│◀ confirm (dropped) ───────────────────│
      │═ TLS, or RC4 from the Security Exchange on ═              │
      │─ Connect-Initial ▶│─ nothing to encrypt, the guest's size ▶│  (`conference`)
      │─ MCS … ──────────▶│─ and dynamic channels, as xrdp needs ▶│   (`dynamic_channels`)
      │─ Client Info ────▶│ the login; refused: the end           │
      │                   │─ Client Info, rewritten: @screen ────▶│── dials the relay of that screen
      │◀─────────────────▶│◀─────────────────────────────────────▶│   from here on bytes are passed through (TLS) or recoded (RC4)
                          │◀── sound, clipboard, … (side_door) ──▶│   between the viewer's channels and the guest (`channels`)

Until a viewer is let in everything about it is bounded: 30 s, one PDU of memory, and so many of them at once.
"""

import asyncio
import contextlib
import functools
import logging
import secrets
import socket
import ssl
from collections.abc import Mapping

from teleport.errors import TeleportError, UnreachableError
from teleport.machines.vrde import VrdeSettings
from teleport.machines.vrde_properties import SecurityMethod
from teleport.vrde import certificate, usb_frames, usb_login, vnc_password
from teleport.vrde.endpoint import BUFFER_BYTES
from teleport.vrde.extension import Bound, Context
from teleport.vrde.listen import listen
from teleport.vrde.login import Login
from teleport.vrde.rdp import channels, pdu
from teleport.vrde.rdp.conference import Offer
from teleport.vrde.rdp.dynamic_channels import StandIn, VersionLift
from teleport.vrde.rdp.link import FAREWELL_SECONDS, Link, read_pdu
from teleport.vrde.rdp.logon import ClientInfo, Logon
from teleport.vrde.rdp.pdu import ConnectionRequest, ErrorInfo, Protocol, RdpError, Refusal, SendData
from teleport.vrde.rdp.security import ServerKey, StandardSecurity
from teleport.vrde.rdp.xrdp import ScreenAddress, Xrdp
from teleport.vrde.sessions import Ending
from teleport.vrde.streams import first_to_end, peer_of
from teleport.vrde.usb_frames import Claim

LOGON_SECONDS = 30
FIRST_PDU_SECONDS = 10
MOST_PENDING = 32
MOST_LOGON_PDUS = 64
RESTART_SECONDS = 1.0
_WORDS = {Ending.TAKEN_OVER: ErrorInfo.ANOTHER_CONNECTION, Ending.ENDED_HERE: ErrorInfo.ENDED_BY_ADMINISTRATOR}

log = logging.getLogger("teleport.vrde.rdp")


class _RefusedError(Exception):
    """The viewer may not come in; the text says why, for the log."""


def _protection(settings: VrdeSettings) -> dict[str, str]:
    return {name: value for name, value in settings.properties.items() if name.startswith("Security/")}


class RdpServer:
    """The DisplayServer of the extension `rdp`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._settings = context.settings
        self._sessions = context.sessions
        self._screens = context.screens
        self._servers: list[asyncio.Server] = []
        self._supervisor: asyncio.Task[None] | None = None
        self._xrdp: Xrdp | None = None
        self._addresses: tuple[ScreenAddress, ...] = ()
        self._pending = 0
        self._connections: set[asyncio.Task[None]] = set()
        self._leaving: set[asyncio.Task[None]] = set()  # of the connections: those that are saying why they end
        self._certificate: certificate.Certificate | None = None
        self._server_key: ServerKey | None = None

    # DisplayServer

    async def start(self) -> Bound:
        """See DisplayServer."""
        try:
            self._protect(self._settings)
            bound, sockets = listen(self._settings.ports, self._settings.address)
            try:
                self._addresses = tuple([await self._serve_relay(n + 1) for n in range(len(self._screens))])
                await self._start_xrdp()
            except BaseException:
                for each in sockets:
                    each.close()
                raise
            for each in sockets:
                self._servers.append(await asyncio.start_server(self._accept, sock=each, limit=BUFFER_BYTES))
            self._supervisor = asyncio.create_task(self._supervise())
        except BaseException:
            await self.stop()
            raise
        return bound

    async def stop(self) -> None:
        """See DisplayServer."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        if self._supervisor:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
            self._supervisor = None
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=2 * FAREWELL_SECONDS)
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        if self._xrdp:
            await self._xrdp.stop()
            self._xrdp = None

    async def update(self, settings: VrdeSettings) -> None:
        """See DisplayServer. Raises UsageError for certificates that cannot be used; then everything is as before."""
        if certificate.is_half_named(settings):
            self._context.note(
                "only one of Security/ServerCertificate and ServerPrivateKey is set: the certificate stays as it is"
            )
        elif _protection(settings) != _protection(self._settings):
            self._protect(settings)
        self._settings = settings

    def _protect(self, settings: VrdeSettings) -> None:
        """Certificate and key for viewers that connect from now on."""
        if settings.security is not SecurityMethod.RDP:
            self._certificate = certificate.load(settings, self._context.keys)
        if settings.security is not SecurityMethod.TLS:
            self._server_key = self._server_key or ServerKey()

    def details(self) -> Mapping[str, str]:
        """See DisplayServer."""
        facts = {"security": self._settings.security.value}
        if self._certificate:
            facts["fingerprint"] = self._certificate.fingerprint
            facts["self_signed"] = "yes" if self._certificate.self_signed else "no"
        return facts

    # behind the front

    async def _serve_relay(self, number: int) -> ScreenAddress:
        relay = self._screens.relay(number)
        password = vnc_password.random_password()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await relay.serve(
                reader, writer, label=f"screen {number}", password=lambda: vnc_password.fresh(password), grants_sizes=True
            )

        ip = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(254) + 1}.{secrets.randbelow(254) + 1}"

        async def serve_channels(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await channels.serve(relay, self._context.clipboard, self._context.microphone, reader, writer)

        server = await asyncio.start_server(serve, ip, 0, limit=BUFFER_BYTES)
        self._servers.append(server)
        return ScreenAddress(number, ip, server.sockets[0].getsockname()[1], password, serve_channels)

    async def _start_xrdp(self) -> None:
        xrdp = Xrdp(self._context.folder)
        await xrdp.start(self._addresses)
        self._xrdp = xrdp

    async def _supervise(self) -> None:
        while True:
            xrdp = self._xrdp
            if xrdp:
                await xrdp.wait_dead()
                if self._xrdp is xrdp:
                    log.error("xrdp ended: %s; starting it again", xrdp.last_words())
                    await xrdp.stop()
                    with contextlib.suppress(TeleportError):
                        await self._start_xrdp()
            await asyncio.sleep(RESTART_SECONDS)

    # viewers

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task:
            self._connections.add(task)
        client = peer_of(writer)[1]
        try:
            await self._serve(reader, writer)
        except _RefusedError as error:
            self._context.note(f"client {client} refused: {error}")
        except (RdpError, ssl.SSLError) as error:
            self._context.note(f"client {client} dropped: {error}")
        except (OSError, EOFError) as error:
            log.debug("client %s went: %r", client, error)
        finally:
            writer.transport.abort() if writer.is_closing() else writer.close()
            if task:
                self._connections.discard(task)
                self._leaving.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address, client = peer_of(writer)
        if self._pending >= MOST_PENDING:
            raise _RefusedError("too many viewers are logging in")
        connection: socket.socket = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a half-open connection ends some day
        self._pending += 1
        link: Link | None = None
        claim: Claim | None = None
        try:
            try:
                async with asyncio.timeout(LOGON_SECONDS):
                    request = await self._request(reader)
                    if request.cookie == usb_frames.COOKIE:
                        claim = await self._admit_usb(reader, writer)
                    else:
                        link = await self._negotiate(request, reader, writer)
                        logon, rewritten = await self._log_on(link, address)
            except TimeoutError as error:
                raise _RefusedError(f"no login within {LOGON_SECONDS} s") from error
            finally:
                self._pending -= 1
            if link is None:
                if claim and self._context.usb:
                    await self._context.usb.serve(reader, writer, claim)
                return
            session = self._sessions.admit(
                client=client, user=logon.user, screen=logon.screen, protection=link.protection,
                close=functools.partial(self._end, link, asyncio.current_task()),
            )  # fmt: skip
            if session is None:
                await link.say_farewell(ErrorInfo.DENIED)
                return
            try:
                link.back_writer.write(rewritten)
                await first_to_end(link.to_xrdp(), link.answers, link.ended())
                await link.say_farewell()
            finally:
                self._sessions.left(session)
        finally:
            if link:
                await link.close()

    def _end(self, link: Link, serving: asyncio.Task[None] | None, why: Ending) -> None:
        """Ends a session from here; `stop` waits until its viewer was told."""
        if serving:
            self._leaving.add(serving)
        link.end(_WORDS[why])

    async def _request(self, reader: asyncio.StreamReader) -> ConnectionRequest:
        try:
            async with asyncio.timeout(FIRST_PDU_SECONDS):
                return ConnectionRequest.parse(await read_pdu(reader))
        except TimeoutError as error:
            raise _RefusedError("it says nothing") from error

    async def _admit_usb(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Claim:
        """A device instead of a viewer. Raises _RefusedError."""
        try:
            return await usb_login.admit(self._context, reader, writer, shown=self._certificate)
        except TeleportError as error:
            raise _RefusedError(str(error)) from error

    async def _negotiate(self, request: ConnectionRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Link:
        """X.224's answer, up to the chosen protection."""
        method = self._settings.security
        tls = bool(request.protocols & Protocol.TLS) and method is not SecurityMethod.RDP
        if not tls and method is SecurityMethod.TLS:
            writer.write(pdu.refuse(Refusal.TLS_REQUIRED))
            await writer.drain()
            raise _RefusedError("it does not offer TLS, which Security/Method asks for")
        if self._xrdp is None:
            raise _RefusedError("xrdp is not running")
        back_reader, back_writer = await asyncio.open_unix_connection(self._xrdp.socket_path, limit=BUFFER_BYTES)
        try:
            back_writer.write(pdu.PLAIN_REQUEST)
            await read_pdu(back_reader)  # its confirm: the viewer gets our own
            security: StandardSecurity | None = None
            data = None
            if tls and self._certificate:
                writer.write(pdu.confirm(Protocol.TLS))
                await writer.drain()
                await writer.start_tls(self._certificate.context)
                protection = writer.get_extra_info("ssl_object").version()
                offer = Offer.parse(await read_pdu(reader))  # TLS is all there is, whatever else it offers
            else:
                if self._server_key is None:
                    raise _RefusedError("Standard RDP Security is switched off")
                writer.write(pdu.confirm(Protocol.RDP) if request.negotiates else pdu.CONFIRM_WITHOUT_NEGOTIATION)
                protection, security = "Standard RDP Security", StandardSecurity(self._server_key)
                offer = Offer.parse(await read_pdu(reader))
                data = security.choose(offer.methods)
            back_writer.write(offer.for_xrdp(await self._guest_size()))
            answer = offer.answer(
                await read_pdu(back_reader), requested=request.protocols if request.negotiates else None, security=data
            )
            writer.write(answer.pdu)
            dynamic = VersionLift if offer.has_dynamic_channels else StandIn
            return Link(
                (reader, writer), (back_reader, back_writer), security=security, protection=protection,
                knows_error_info=offer.knows_error_info, dynamic_channels=dynamic(answer.dynamic_channel),
            )  # fmt: skip
        except BaseException:
            back_writer.close()
            raise

    async def _guest_size(self) -> tuple[int, int] | None:
        """The first screen's in pixels, so that xrdp needs not change the viewer's at once; None while the guest's display is not there.
        Which screen the viewer wants, it says later."""
        try:
            return await self._screens.relay(1).size()
        except UnreachableError:
            return None

    async def _log_on(self, link: Link, address: str) -> tuple[Logon, bytes]:
        """Passes PDUs on up to the Client Info, and decides. Raises _RefusedError."""
        for _ in range(MOST_LOGON_PDUS):
            data = await link.next_for_xrdp()
            sent = SendData.parse(data) if data[0] == 3 else None
            if sent and ClientInfo.is_in(sent.payload):
                break
            link.back_writer.write(data)
        else:
            raise RdpError("no Client Info PDU")
        info = ClientInfo.parse(sent.payload)
        logon = Logon.of(info)
        if logon.screen > len(self._screens):
            await link.say_farewell(ErrorInfo.DENIED)
            raise _RefusedError(f"the guest has no screen @{logon.screen}")
        login = Login(logon.user, logon.password, logon.domain, address)
        if not await self._context.throttle.decide(self._context.authenticator, login):
            await link.say_farewell(ErrorInfo.DENIED)
            raise _RefusedError(f"wrong user or password (user {logon.user[:64]!r})")
        return logon, SendData(sent.head, info.for_xrdp(logon.screen).pack()).pack()
