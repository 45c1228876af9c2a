"""Who is at that port? A bounded look before gRPC, so that a wrong port gets a clear answer at once.

gRPC's own answer to all of these is UNAVAILABLE, after its back-off. A gRPC server answers the HTTP/2 preface with a SETTINGS
frame (RFC 9113, 3.4); an HTTP/1 server says so, a VNC server `RFB 003.008`, sshd `SSH-2.0-`, and a silent one nothing.
"""

import asyncio
import contextlib
import socket
import time

import tenacity

from teleport.errors import ProtocolError, TeleportError, UnreachableError

ANSWER_SECONDS = 3.0
_RESOLVE_SECONDS = 5.0
_ATTEMPTS = 3  # for what may pass: a lost packet, a name server that is busy

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # and an empty SETTINGS frame
_FRAME_HEADER_BYTES = 9
_SETTINGS_TYPE = 4

_TELLING = (
    (b"HTTP/", "an HTTP server"),
    (b"<", "an HTTP server"),  # the oldest kind answers what it cannot parse with a bare page
    (b"RFB ", "a VNC server"),
    (b"SSH-", "an SSH server"),
    (b"\x15\x03", "a TLS server"),
    (b"\x03\x00", "a remote desktop (RDP) server"),  # TPKT, RFC 1006
    (b"220", "a mail or FTP server"),
    (b"QMP", "QEMU's monitor"),
    (b"{", "a JSON service (QEMU's monitor?)"),
)
_CHECK = "check the port: `teleport showvminfo` of the waiting VM shows it as teleporterport"


async def knock(host: str, port: int, *, timeout_seconds: float, retry_refused: bool = False) -> str:
    """Connects, and returns the numeric address that answered as gRPC does.

    All addresses of the name are tried (`localhost` is 127.0.0.1 and ::1 whatever the host's tables say). `timeout_seconds` bounds
    the connecting; the answer has 3 s more. A refused connection is final at once unless `retry_refused`. Raises UnreachableError
    (nobody, or silence) and ProtocolError (something else than Teleport).
    """
    failed = f"Failed to connect to port {port} on '{host}'"  # VirtualBox's words
    deadline = time.monotonic() + timeout_seconds
    addresses = await _resolve(host, failed, timeout_seconds=min(timeout_seconds, _RESOLVE_SECONDS))

    def passing(error: BaseException) -> bool:
        if isinstance(error, ConnectionRefusedError):
            return retry_refused
        return isinstance(error, OSError)

    stop: tenacity.stop.stop_base = tenacity.stop_after_delay(timeout_seconds)
    if not retry_refused:
        stop |= tenacity.stop_after_attempt(_ATTEMPTS)
    retrying = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(passing),
        stop=stop,
        wait=tenacity.wait_exponential_jitter(multiplier=0.1, max=1.0, jitter=0.1),
        reraise=True,
    )
    try:
        async with asyncio.timeout(timeout_seconds):
            async for attempt in retrying:
                with attempt:
                    reader, writer = await _connect_any(addresses, port, deadline)
    except TimeoutError as error:
        raise UnreachableError(
            failed, f"no answer within {timeout_seconds:g} s", "is the host up, and no firewall between?"
        ) from error
    except ConnectionRefusedError as error:
        raise UnreachableError(
            failed, "the connection was refused: nothing listens there", f"start the target VM so that it waits, or {_CHECK}"
        ) from error
    except OSError as error:
        raise UnreachableError(failed, error.strerror or str(error), "check the host's address and the network") from error
    try:
        return await _who(reader, writer, failed)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _resolve(host: str, failed: str, *, timeout_seconds: float) -> list[str]:
    if host.lower().rstrip(".") == "localhost":
        return ["127.0.0.1", "::1"]
    try:
        async with asyncio.timeout(timeout_seconds):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except TimeoutError as error:
        raise UnreachableError(
            failed, f"the name was not resolved within {timeout_seconds:g} s", "try the numeric address"
        ) from error
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UnreachableError(failed, f"the host's name cannot be resolved ({why})", "check its spelling") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def _connect_any(addresses: list[str], port: int, deadline: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The first address that accepts; each has its share of the time left. Raises the first address's OSError."""
    first: OSError | None = None
    for number, address in enumerate(addresses):
        share = max(0.1, deadline - time.monotonic()) / (len(addresses) - number)
        try:
            async with asyncio.timeout(share):
                return await asyncio.open_connection(address, port)
        except TimeoutError:
            first = first or TimeoutError(None, f"no answer within {share:.1f} s")
        except OSError as error:
            first = first or error
    assert first is not None
    raise first


async def _who(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, failed: str) -> str:
    address = str(writer.get_extra_info("peername")[0])
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            writer.write(_PREFACE)
            await writer.drain()
            first = await reader.readexactly(_FRAME_HEADER_BYTES)
    except TimeoutError as error:
        raise UnreachableError(
            failed,
            f"something accepts connections there but says nothing for {ANSWER_SECONDS:g} s: it is not a waiting VM",
            _CHECK,
        ) from error
    except asyncio.IncompleteReadError as error:
        first = error.partial
    except OSError:
        first = b""
    if len(first) == _FRAME_HEADER_BYTES and first[3] == _SETTINGS_TYPE and not any(first[5:]):
        return address
    raise _stranger(first, failed)


def _stranger(first: bytes, failed: str) -> TeleportError:
    for start, name in _TELLING:
        if first.startswith(start):
            return ProtocolError(failed, f"{name} answers there, not a waiting VM", _CHECK)
    if not first:
        return ProtocolError(failed, "it hangs up without a word: it is not a waiting VM, or one that is just ending", _CHECK)
    return ProtocolError(failed, f"something else than a waiting VM answers there ({first!r})", _CHECK)
