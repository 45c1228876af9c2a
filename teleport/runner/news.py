"""What an agent has to say: into its log, and to whoever watches the VM."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from teleport.model import Progress
from teleport.wire.control_server import Event

log = logging.getLogger(__name__)

Listening = asyncio.Queue[Event | None]


class News:
    """One agent's."""

    def __init__(self) -> None:
        self._listeners: set[Listening] = set()

    def say(self, news: Progress | str) -> None:
        """Into the log, and to those who watch."""
        if isinstance(news, str):
            log.info("%s", news)
        self.tell(news)

    def tell(self, news: Event) -> None:
        """To those who watch."""
        for listener in self._listeners:
            listener.put_nowait(news)

    def end(self) -> None:
        """Nothing comes any more."""
        for listener in self._listeners:
            listener.put_nowait(None)

    @contextlib.asynccontextmanager
    async def listen(self) -> AsyncIterator[Listening]:
        """A queue of everything that happens meanwhile; None comes when the VM is over."""
        queue: Listening = asyncio.Queue()
        self._listeners.add(queue)
        try:
            yield queue
        finally:
            self._listeners.discard(queue)
