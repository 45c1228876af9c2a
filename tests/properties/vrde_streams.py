"""What the properties of the display's channels share: streams whose other end says anything.

Of each channel (`test_vrde_sound` and its neighbours): garbage ends in a message, in the parser's own error, or in the end of that one
connection; memory stays bounded, and who else is connected notices nothing. Longer and with new examples:
`HYPOTHESIS_PROFILE=search deploy/test tests/properties`.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from hypothesis import strategies as st

from teleport.errors import ProtocolError
from teleport.vrde.rdp.pdu import RdpError
from tests.harness.session import passing_folder

SECONDS = 20
sizes = st.one_of(st.integers(0, 100), st.integers(0, 2**32 - 1))
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def served(serve: Serve, parts: list[bytes]) -> bytes:
    """Runs `serve` against a client that says these parts and hangs up; what it was told. Fails where `serve` raises anything but what a
    front's own accept loop takes for the end of one connection."""

    async def body() -> bytes:
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await serve(reader, writer)
            except (OSError, EOFError):
                ended.set_result(None)
            except BaseException as error:
                ended.set_exception(error)
            else:
                ended.set_result(None)
            writer.close()

        with passing_folder() as folder:
            async with await asyncio.start_unix_server(accept, f"{folder}/s"):
                reader, writer = await asyncio.open_unix_connection(f"{folder}/s")
                with contextlib.closing(writer):
                    told = asyncio.create_task(reader.read())
                    with contextlib.suppress(ConnectionError):
                        for part in parts:
                            writer.write(part)
                            await writer.drain()
                        writer.write_eof()
                    await ended
                    try:
                        return await told
                    except ConnectionError:
                        return b""

    return asyncio.run(asyncio.wait_for(body(), SECONDS))


def fed(parse: Callable[[asyncio.StreamReader], Awaitable[object]], data: bytes, *, times: int = 4) -> list[object]:
    """What `parse` reads from a stream of just these bytes, until it has enough of them."""

    async def body() -> list[object]:
        reader, found = asyncio.StreamReader(), []
        reader.feed_data(data)
        reader.feed_eof()
        with contextlib.suppress(EOFError, ProtocolError, RdpError):
            for _ in range(times):
                found.append(await parse(reader))
        return found

    return asyncio.run(body())
