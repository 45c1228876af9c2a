"""The viewer's computer: one USB device of it, shared with a VM through the VM's display port.

::

    usbredirect ──TCP, loopback──▶ this ══ TLS, the display's port ══▶ front

Debian's `usbredirect` speaks for the device; instead of it, anything that speaks the host's side of usbredir at a port can be named.
The certificate must be known (by its fingerprint, or by an authority of this computer's and the host's name): the password goes there.
"""

import asyncio
import contextlib
import hashlib
import hmac
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from teleport.errors import NotFoundError, ProtocolError, RefusedError, UnreachableError
from teleport.vrde.endpoint import BUFFER_BYTES
from teleport.vrde.streams import first_to_end
from teleport.vrde.usb_frames import COOKIE, READ_BYTES, Claim, FrameKind, frame, read_frame, read_line, refusal_in

DIAL_SECONDS = 10.0
PROGRAM = "usbredirect"
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Place:
    """A VM's display. `fingerprint`: SHA-256 in hex, "" to check by this computer's authorities instead."""

    host: str
    port: int
    fingerprint: str = ""

    @property
    def shown(self) -> str:
        """For messages."""
        return f"the display at {self.host} port {self.port}"


async def connect(place: Place, claim: Claim) -> Stream:
    """Logs in. Raises UnreachableError, ProtocolError, RefusedError with the front's reason."""
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            reader, writer = await asyncio.open_connection(place.host, place.port, limit=BUFFER_BYTES)
            # X.224 connection request with a cookie, then RDP_NEG_REQ for TLS (MS-RDPBCGR 2.2.1.1)
            body = b"\xe0\0\0\0\0\0" + COOKIE + b"\r\n" + bytes.fromhex("0100080001000000")
            writer.write(bytes((3, 0, 0, 5 + len(body), len(body))) + body)
            confirm = await reader.readexactly(19)
            if confirm[11] != 2:
                raise RefusedError("remote USB", f"{place.shown} has no TLS (Security/Method=RDP)", "its VM must allow TLS")
            await writer.start_tls(_context(place), server_hostname=place.host)
    except ssl.SSLError as error:
        raise UnreachableError("remote USB", f"{place.shown} shows a certificate that this computer does not know ({error})",
                               "give --fingerprint, which `showvminfo` shows as vrdefingerprint") from error  # fmt: skip
    except (OSError, EOFError) as error:  # TimeoutError is one
        raise UnreachableError("remote USB", f"{place.shown} does not answer as Teleport's ({error or 'time-out'})") from error
    tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
    seen = hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest()
    if place.fingerprint and not hmac.compare_digest(seen, place.fingerprint):
        writer.close()
        raise UnreachableError("remote USB", f"{place.shown} shows another certificate, with the fingerprint {seen}",
                               "compare it with vrdefingerprint of `showvminfo`")  # fmt: skip
    writer.write(claim.line())
    try:
        refusal = refusal_in(await read_line(reader))
    except (OSError, EOFError) as error:
        raise ProtocolError("remote USB", f"{place.shown} ended the connection") from error
    if refusal:
        writer.close()
        raise RefusedError("remote USB", f"{place.shown}: {refusal}")
    return reader, writer


def _context(place: Place) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if place.fingerprint:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the fingerprint says more
    return context


async def share(place: Place, claim: Claim, device: Stream, *, say: Callable[[str], None]) -> None:
    """Shares what `device` speaks for until one side ends. `say` gets the front's notices. Raises as `connect`."""
    device_reader, device_writer = device
    reader, writer = await connect(place, claim)

    async def out() -> None:
        while data := await device_reader.read(READ_BYTES):
            writer.write(frame(FrameKind.USBREDIR, data))
            await writer.drain()

    async def back() -> None:
        while True:
            kind, data = await read_frame(reader)
            if kind is FrameKind.NOTICE:
                say(data.decode(errors="replace"))
            else:
                device_writer.write(data)
                await device_writer.drain()

    with contextlib.closing(writer), contextlib.closing(device_writer), contextlib.suppress(OSError, EOFError):
        await first_to_end(out(), back())


@contextlib.asynccontextmanager
async def local_device(vendor_id: int, product_id: int) -> AsyncIterator[Stream]:
    """`usbredirect` with that device of this computer, for as long as it is needed. Raises NotFoundError, UnreachableError."""
    came: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if came.done():
            writer.close()
        else:
            came.set_result((reader, writer))

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=BUFFER_BYTES)
    port = server.sockets[0].getsockname()[1]
    numbers = f"{vendor_id:04x}:{product_id:04x}"
    try:
        process = await asyncio.create_subprocess_exec(PROGRAM, "--device", numbers, "--to", f"127.0.0.1:{port}")
    except FileNotFoundError as error:
        server.close()
        raise NotFoundError(PROGRAM, "is not installed on this computer", "apt install usbredirect") from error
    ended = asyncio.ensure_future(process.wait())
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DIAL_SECONDS):
                await first_to_end(asyncio.shield(came), asyncio.shield(ended))
        if not came.done():
            raise UnreachableError(
                f"USB device {numbers}",
                f"{PROGRAM} does not give it",
                "it must be plugged in, and this user may need rights on it",
            )
        yield came.result()
    finally:
        server.close()
        if process.returncode is None:
            process.terminate()
        await ended


@contextlib.asynccontextmanager
async def served_device(host: str, port: int) -> AsyncIterator[Stream]:
    """A device that another program serves by usbredir. Raises UnreachableError."""
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            stream = await asyncio.open_connection(host, port, limit=BUFFER_BYTES)
    except OSError as error:
        raise UnreachableError(
            "remote USB", f"nothing serves a device at {host} port {port} ({error or 'time-out'})"
        ) from error
    with contextlib.closing(stream[1]):
        yield stream
