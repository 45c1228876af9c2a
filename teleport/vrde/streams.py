"""Small asyncio pieces that fronts share."""

import asyncio
import contextlib
from collections.abc import Awaitable, Iterator

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


class Connections:
    """The tasks that serve a port's connections, to be ended together."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()

    @contextlib.contextmanager
    def one(self) -> Iterator[int]:
        """The current task is one of them as long as the block; how many there are."""
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            yield len(self._tasks)
        finally:
            self._tasks.discard(task)

    def cancel(self) -> None:
        """Ends them; they are not waited for."""
        for task in self._tasks:
            task.cancel()

    async def end(self) -> None:
        """Ends them; none is left."""
        self.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


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
