"""Where a guest's VNC, or its agent, is: `unix:PATH` beside us, or `tunnel:HOST:PORT:FINGERPRINT:TICKET:SCREEN` on another host (see
`tunnel`)."""

import asyncio
import hashlib
import hmac
import ssl
from dataclasses import dataclass

from teleport.errors import UnreachableError, UsageError

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
BUFFER_BYTES = 1 << 20
DIAL_SECONDS = 5
TICKET_BYTES = 32
# instead of a screen's number: the guest's agent, its clipboard (see `clipboard_link`), what it records (see `microphone`)
AGENT, CLIPBOARD, MICROPHONE = 0, 254, 253
CHANNELS = {"agent": AGENT, "clipboard": CLIPBOARD, "microphone": MICROPHONE}  # by their names in a front's config and commands


@dataclass(frozen=True)
class UnixEndpoint:
    """A VNC server on a unix socket whose folder protects it."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"

    async def dial(self) -> Stream:
        """Connects. Raises UnreachableError within 5 s."""
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                return await asyncio.open_unix_connection(self.path, limit=BUFFER_BYTES)
        except OSError as error:  # TimeoutError is one
            raise UnreachableError("the guest's display", f"{self} does not answer ({error or 'time-out'})") from error


@dataclass(frozen=True)
class TunnelEndpoint:
    """A VNC server behind a tunnel on another host: TLS to `host`:`port`, whose certificate has this SHA-256 `fingerprint` (hex),
    opened by `ticket` (64 hex digits), both learnt over the agents' authenticated channel. `screen` counts from 1;
    `AGENT` and `CLIPBOARD` stand for the guest's agents, `MICROPHONE` for what it records."""

    host: str
    port: int
    fingerprint: str
    ticket: str
    screen: int = 1

    def __str__(self) -> str:
        return f"tunnel:{self.host}:{self.port}"  # the ticket stays out of logs

    async def dial(self) -> Stream:
        """Connects and shows the ticket. Raises UnreachableError within 5 s, also for a certificate that is not the expected one."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False  # the fingerprint says more than a name
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                reader, writer = await asyncio.open_connection(self.host, self.port, ssl=context, limit=BUFFER_BYTES)
                tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
                seen = hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest()
                if not hmac.compare_digest(seen, self.fingerprint):
                    writer.close()
                    raise UnreachableError("the guest's display", f"{self} shows a certificate that was not announced")
                writer.write(bytes.fromhex(self.ticket) + bytes((self.screen,)))
                return reader, writer
        except OSError as error:
            raise UnreachableError("the guest's display", f"{self} does not answer ({error or 'time-out'})") from error


Endpoint = UnixEndpoint | TunnelEndpoint


def to_text(endpoint: Endpoint) -> str:
    """The endpoint whole, its secret included: for control sockets and files of mode 0600."""
    if isinstance(endpoint, UnixEndpoint):
        return str(endpoint)
    return f"tunnel:{endpoint.host}:{endpoint.port}:{endpoint.fingerprint}:{endpoint.ticket}:{endpoint.screen}"


def from_text(text: str) -> Endpoint:
    """Reads `to_text`'s form. Raises UsageError."""
    kind, _, rest = text.partition(":")
    if kind == "unix" and rest.startswith("/") and len(rest.encode()) < 108:  # sun_path's size on Linux
        return UnixEndpoint(rest)
    parts = rest.rsplit(":", 4)
    if kind == "tunnel" and len(parts) == 5:
        host, port, fingerprint, ticket, screen = parts
        hexadecimal = all(len(h) == 64 and set(h) <= set("0123456789abcdef") for h in (fingerprint, ticket))
        if hexadecimal and port.isdigit() and screen.isdigit() and int(screen) <= 255 and 1 <= int(port) <= 65535:
            return TunnelEndpoint(host.strip("[]"), int(port), fingerprint, ticket, int(screen))
    raise UsageError("the guest's display", "the endpoint is not of the form unix:/PATH or tunnel:…")
