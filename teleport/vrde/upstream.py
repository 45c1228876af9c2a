"""The relay's connection to a guest's VNC server."""

import asyncio
from dataclasses import dataclass
from typing import TypeVar

from teleport.errors import UnreachableError
from teleport.vrde import rfb
from teleport.vrde.endpoint import Endpoint

HANDSHAKE_SECONDS = 10
T = TypeVar("T")


async def shake_hands(handshake: rfb.Handshake[T], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> T:
    """Drives a handshake of `rfb`. Raises RfbError, OSError or IncompleteReadError."""
    answer = b""
    try:
        step = next(handshake)
        while True:
            if isinstance(step, int):
                answer = await reader.readexactly(step)
            else:
                writer.write(step)
                await writer.drain()
            step = handshake.send(answer)
    except StopIteration as finished:
        value: T = finished.value
        return value


@dataclass(eq=False)
class Upstream:
    """One connection to a VNC server, past its handshake."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    init: rfb.ServerInit

    @classmethod
    async def open(cls, endpoint: Endpoint) -> "Upstream":
        """Connects and shakes hands. Raises UnreachableError."""
        reader, writer = await endpoint.dial()
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                return cls(reader, writer, await shake_hands(rfb.server_handshake(), reader, writer))
        except (OSError, EOFError, rfb.RfbError) as error:
            writer.close()
            raise UnreachableError("the guest's display", f"{endpoint} is no VNC server ({error})") from error
        except BaseException:
            writer.close()
            raise
