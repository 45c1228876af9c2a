"""Small asyncio pieces that fronts share."""

import asyncio
from collections.abc import Awaitable

READ_BYTES = 1 << 16


async def first_to_end(*each: Awaitable[object]) -> None:
    """Runs all (tasks go on) until the first ends, cancels the rest, and raises what the first raised."""
    tasks = [asyncio.ensure_future(one) for one in each]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        if not task.cancelled() and (error := task.exception()):
            raise error


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copies bytes to the end of `reader`, never holding more than the two buffers."""
    while data := await reader.read(READ_BYTES):
        writer.write(data)
        await writer.drain()


def peer_of(writer: asyncio.StreamWriter) -> tuple[str, str]:
    """(address, address with port) of a connection's other end, as logs show it."""
    name = writer.get_extra_info("peername")
    if not isinstance(name, tuple):
        return "local", "local"
    address = str(name[0]).removeprefix("::ffff:")
    return address, f"[{address}]:{name[1]}" if ":" in address else f"{address}:{name[1]}"
