"""The guest in a browser: noVNC's page and a WebSocket on the relay, with the display's own authentication and TLS.

::

    browser ─ GET /#TICKET ─▶ page (noVNC's files; the fragment stays in the browser)
            ─ WebSocket /TICKET/socket ─▶ origin checked, ticket used up ─▶ RFB, as any viewer of the relay
            ─ WebSocket /login ─▶ {"user": …, "password": …, "domain": …} ─▶ {"ticket": …} or {"refused": …}

A ticket is good for one WebSocket, within a minute of being handed out: over the front's control socket, to whoever may enter its
folder (`teleport console`), or against a login. The page at ``/`` asks for the login.
"""

import asyncio
import contextlib
import http
import json
import mimetypes
import os
import secrets
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from teleport.errors import NotFoundError
from teleport.vrde.endpoint import BUFFER_BYTES
from teleport.vrde.extension import Context
from teleport.vrde.login import Login
from teleport.vrde.streams import READ_BYTES, first_to_end

TICKET_SECONDS = 60
MOST_TICKETS = 256
LOGIN_SECONDS = 60
MOST_MESSAGE_BYTES = 1 << 20
PAGE = Path(__file__).with_name("console.html")
# Nothing but our own files and our own socket: a page of the guest's console must not be framed or scripted by others.
POLICY = "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; frame-ancestors 'none'"


def novnc_folder() -> Path:
    """Where noVNC's package is unpacked. Raises NotFoundError with what to do."""
    choices = [Path(__file__).parents[2] / ".cache" / "novnc" / "package", Path("/usr/share/novnc")]
    if named := os.environ.get("TELEPORT_NOVNC"):
        choices.insert(0, Path(named))
    for each in choices:
        if (each / "core" / "rfb.js").is_file():
            return each
    raise NotFoundError(
        "the browser console", "noVNC is not installed", "run deploy/set-up (it needs npm), or set TELEPORT_NOVNC"
    )


@dataclass(frozen=True)
class _Ticket:
    screen: int
    user: str
    until: float


class Tickets:
    """One-time tickets. `clock` gives seconds that only go forward."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._open: dict[str, _Ticket] = {}

    def issue(self, *, screen: int, user: str) -> str:
        """A fresh one."""
        self._drop_old()
        while len(self._open) >= MOST_TICKETS:
            del self._open[next(iter(self._open))]
        ticket = secrets.token_urlsafe(24)
        self._open[ticket] = _Ticket(screen, user, self._clock() + TICKET_SECONDS)
        return ticket

    def known(self, ticket: str) -> bool:
        """Whether it could still be used (it stays)."""
        self._drop_old()
        return ticket in self._open

    def use(self, ticket: str) -> _Ticket | None:
        """Uses it up; None when there is none of that name any more."""
        self._drop_old()
        return self._open.pop(ticket, None)

    def _drop_old(self) -> None:
        now = self._clock()
        for ticket in [name for name, each in self._open.items() if each.until < now]:
            del self._open[ticket]


class BrowserConsole:
    """The page's server; one a front, started when somebody first asks for it."""

    def __init__(self, context: Context, tls: ssl.SSLContext) -> None:
        self._context = context
        self._tls = tls
        self._tickets = Tickets(time.monotonic)
        self._folder = novnc_folder()
        self._server: Server | None = None
        self.port = 0

    async def start(self, address: str, port: int) -> None:
        """Listens on `address`; port 0 picks a free one. Raises OSError."""
        self._server = await serve(
            self._socket,
            address,
            port,
            ssl=self._tls,
            process_request=self._request,
            subprotocols=None,
            compression=None,
            max_size=MOST_MESSAGE_BYTES,
            open_timeout=10,
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    async def stop(self) -> None:
        """Ends it with all its connections."""
        if self._server:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    def ticket(self, screen: int) -> str:
        """A ticket for somebody who has shown already who he is."""
        return self._tickets.issue(screen=screen, user="(local)")

    # HTTP

    def _request(self, connection: ServerConnection, request: Request) -> Response | None:
        path = urlsplit(request.path).path
        if request.headers.get("Upgrade", "").lower() == "websocket":
            if not _same_origin(request.headers):
                return connection.respond(http.HTTPStatus.FORBIDDEN, "this page may not connect here\n")
            ticket = path.strip("/").partition("/")[0]
            if path != "/login" and not self._tickets.known(ticket):
                return connection.respond(http.HTTPStatus.FORBIDDEN, "the ticket is used up: ask for another one\n")
            return None
        page = self._page(path)
        return _file(connection, page) if page else connection.respond(http.HTTPStatus.NOT_FOUND, "not found\n")

    def _page(self, path: str) -> Path | None:
        own = {"/": PAGE, "/console.js": PAGE.with_suffix(".js")}
        if path in own:
            return own[path]
        wanted = (self._folder / path.removeprefix("/novnc/")).resolve()
        inside = path.startswith("/novnc/") and wanted.is_relative_to(self._folder.resolve()) and wanted.is_file()
        return wanted if inside else None

    # WebSocket

    async def _socket(self, connection: ServerConnection) -> None:
        request = connection.request
        path = urlsplit(request.path).path if request else ""
        with contextlib.suppress(ConnectionClosed, OSError, TimeoutError):
            if path == "/login":
                await self._login(connection)
                return
            ticket = self._tickets.use(path.strip("/").partition("/")[0])
            if ticket is None:
                await connection.close(1008, "the ticket is used up")
                return
            await self._view(connection, ticket)

    async def _login(self, connection: ServerConnection) -> None:
        address = _address(connection)
        async with asyncio.timeout(LOGIN_SECONDS):
            try:
                raw = json.loads(await connection.recv())
                login = Login(str(raw["user"]), str(raw["password"]), str(raw.get("domain", "")), address)
                f"{login.user}{login.password}{login.domain}".encode()  # half of a surrogate pair is no text: JSON can name one
                screen = int(raw.get("screen", 1))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                await connection.close(1008, "this is no login")
                return
            if not await self._context.throttle.decide(self._context.authenticator, login):
                self._context.note(f"browser {address} refused: wrong user or password (user {login.user[:64]!r})")
                await connection.send(json.dumps({"refused": "wrong user or password"}))
                return
            await connection.send(json.dumps({"ticket": self._tickets.issue(screen=screen, user=login.user)}))

    async def _view(self, connection: ServerConnection, ticket: _Ticket) -> None:
        try:
            relay = self._context.screens.relay(ticket.screen)
        except IndexError:
            await connection.close(1008, f"the guest has no screen {ticket.screen}")
            return
        client = f"{_address(connection)} (browser)"
        transport = connection.transport
        session = self._context.sessions.admit(
            client=client, user=ticket.user, screen=ticket.screen, protection="TLS", close=lambda _: transport.abort()
        )
        if session is None:
            await connection.close(1008, "another viewer is connected")
            return
        link = self._context.clipboard
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours, limit=BUFFER_BYTES)
        relay_reader, relay_writer = await asyncio.open_connection(sock=theirs, limit=BUFFER_BYTES)
        try:
            await first_to_end(
                relay.serve(relay_reader, relay_writer, label=client, clipboard=link.clipboard if link else None),
                _to_browser(connection, reader),
                _from_browser(connection, writer),
            )
        finally:
            writer.close()
            relay_writer.close()
            self._context.sessions.left(session)


async def _to_browser(connection: ServerConnection, reader: asyncio.StreamReader) -> None:
    while data := await reader.read(READ_BYTES):
        await connection.send(data)


async def _from_browser(connection: ServerConnection, writer: asyncio.StreamWriter) -> None:
    async for message in connection:
        if isinstance(message, str):
            await connection.close(1003, "RFB is binary")
            return
        writer.write(message)
        await writer.drain()


def _address(connection: ServerConnection) -> str:
    return str(connection.remote_address[0]).removeprefix("::ffff:")


def _same_origin(headers: Headers) -> bool:
    """A browser says where the page came from: it must be ours. Other programs say nothing, and have a ticket or a password."""
    origin = headers.get("Origin")
    return origin is None or urlsplit(origin).netloc == headers.get("Host")


def _file(connection: ServerConnection, path: Path) -> Response:
    body = path.read_bytes()
    kind = "text/javascript" if path.suffix == ".js" else mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    response = connection.respond(http.HTTPStatus.OK, "")
    headers = Headers(
        {
            "Content-Type": f"{kind}; charset=utf-8" if kind.startswith("text/") else kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": POLICY,
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
            "Connection": "close",
        }
    )
    return Response(response.status_code, response.reason_phrase, headers, body)
