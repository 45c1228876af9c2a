"""Who is at that port? A bounded look before gRPC, so that a wrong port gets a clear answer at once.

A gRPC server speaks first once it has the HTTP/2 preface: a SETTINGS frame. An HTTP/1 server answers `HTTP/1.1 400`, a VNC server
says `RFB 003.008`, sshd `SSH-2.0`, and a silent one nothing.
"""

import asyncio
import contextlib

import tenacity

from teleport.errors import ProtocolError, UnreachableError

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(
    [0, 0, 0, 4, 0, 0, 0, 0, 0]
)  # and an empty SETTINGS frame (RFC 9113, 3.4)
_SETTINGS = 4
SILENCE_SECONDS = 3.0

_TELLING = (
    (b"HTTP/", "a web server (HTTP)"),
    (b"RFB ", "a VNC server"),
    (b"SSH-", "an SSH server"),
    (b"\x16\x03", "a TLS server"),
    (b"\x15\x03", "a TLS server"),
)


async def knock(host: str, port: int, *, timeout_seconds: float) -> str:
    """Connects, and returns the address that answered as gRPC does.

    A refused or unreachable port is tried again until `timeout_seconds` are over. Raises UnreachableError (nobody, or silence) and
    ProtocolError (something else than Teleport).
    """
    failed = f"Failed to connect to port {port} on '{host}'"
    retrying = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(ConnectionRefusedError),
        stop=tenacity.stop_after_delay(min(timeout_seconds, 2.0)),
        wait=tenacity.wait_exponential_jitter(initial=0.05, max=0.5),
        reraise=True,
    )
    try:
        async with asyncio.timeout(timeout_seconds):
            async for attempt in retrying:
                with attempt:
                    reader, writer = await asyncio.open_connection(host, port)
    except TimeoutError as error:
        raise UnreachableError(
            failed, f"no answer within {timeout_seconds:g} s", "a firewall, or a host that is down?"
        ) from error
    except ConnectionRefusedError as error:
        raise UnreachableError(failed, "connection refused", "is the target VM started and waiting there?") from error
    except OSError as error:
        raise UnreachableError(failed, error.strerror or str(error), "check the host's name and the network") from error
    try:
        return await _listen(reader, writer, failed)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, failed: str) -> str:
    address = str(writer.get_extra_info("peername")[0])
    try:
        # whoever speaks first by itself (VNC, SSH) does so at once; gRPC's SETTINGS come by themselves too
        async with asyncio.timeout(SILENCE_SECONDS):
            writer.write(_PREFACE)
            await writer.drain()
            first = await reader.readexactly(9)
    except TimeoutError as error:
        raise UnreachableError(
            failed, f"something listens there but says nothing for {SILENCE_SECONDS:g} s", "it is not a waiting VM"
        ) from error
    except asyncio.IncompleteReadError as error:
        first = error.partial
    except OSError as error:
        raise UnreachableError(failed, error.strerror or str(error)) from error
    for start, name in _TELLING:
        if first.startswith(start):
            raise ProtocolError(failed, f"{name} answers there, not Teleport", "check the port")
    if len(first) == 9 and first[3] == _SETTINGS:
        return address
    if not first:
        raise ProtocolError(failed, "it hangs up without a word: it is not Teleport, or it is just ending", "check the port")
    raise ProtocolError(failed, "something else than Teleport answers there", "check the port")
