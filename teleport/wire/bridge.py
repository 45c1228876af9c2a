"""Between a server's threads and the agent's loop.

gRPC's servers call their handlers in threads of a pool: what the agent decides is asked of its loop, with a limit on how long
that may take.
"""

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

import grpc

from teleport.errors import TeleportError, UnreachableError
from teleport.wire.status import abort_with

log = logging.getLogger(__name__)

T = TypeVar("T")
_ENDING = "it is just ending"


class _Over:
    """The end of what an iterator yields."""


class LoopBridge:
    """What a server's threads ask of one loop. `close` cancels whatever is outstanding, and refuses the rest."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._outstanding: set[Future[Any]] = set()
        self._lock = threading.Lock()
        self._closed = False

    def _submit(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        with self._lock:
            if self._closed or self._loop.is_closed():
                work.close()
                raise UnreachableError("the other side", _ENDING)
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
            self._outstanding.add(future)
        future.add_done_callback(self._forget)
        return future

    def _forget(self, future: "Future[Any]") -> None:
        with self._lock:
            self._outstanding.discard(future)

    def _give_up(self, future: "Future[Any]") -> None:
        future.cancel()

    def ask(self, work: Coroutine[Any, Any, T], *, what: str, limit_seconds: float) -> T:
        """Runs `work` in the loop and waits for its result, also when the caller has gone: what began must end in a known state.

        Work that takes longer than the limit is cancelled. Raises what `work` raised, UnreachableError when it has no end.
        """
        future = self._submit(work)
        try:
            return future.result(limit_seconds)
        except CancelledError as error:
            raise UnreachableError(what, f"the other side: {_ENDING}") from error
        except TimeoutError as error:
            if future.done():  # a time-out of its own
                raise UnreachableError(what, "the other side waited in vain for something of its own") from error
            future.cancel()
            raise UnreachableError(what, f"the other side did not finish it within {limit_seconds:g} s") from error

    def each(self, items: AsyncIterator[T], context: grpc.ServicerContext) -> Iterator[T]:
        """What an asynchronous iterator yields in the loop, for as long as the caller listens; it is closed afterwards.

        An error that the iterator raises is raised here; UnreachableError when this side ends meanwhile.
        """
        came: queue.SimpleQueue[T | _Over] = queue.SimpleQueue()

        async def drain() -> None:
            try:
                async for item in items:
                    came.put(item)
            finally:
                close = getattr(items, "aclose", None)
                if close:
                    await close()

        future = self._submit(drain())
        future.add_done_callback(lambda _: came.put(_Over()))
        if not context.add_callback(lambda: self._give_up(future)):
            future.cancel()
        try:
            while not isinstance(item := came.get(), _Over):
                yield item
            future.result()
        except CancelledError as error:
            if context.is_active():
                raise UnreachableError("the other side", _ENDING) from error
        finally:
            future.cancel()

    def close(self) -> None:
        """Releases the threads that wait."""
        with self._lock:
            self._closed = True
            outstanding = tuple(self._outstanding)
        for future in outstanding:
            future.cancel()


@contextlib.contextmanager
def answered(context: grpc.ServicerContext) -> Iterator[None]:
    """Ends a handler's call with the whole error that it raised; an unforeseen one is logged here and named there."""
    try:
        yield
    except TeleportError as error:
        abort_with(context, error)
    except Exception as error:
        if context.is_active():
            log.exception("a call failed")
        why = f"an unforeseen error there ({type(error).__name__}: {error})"
        abort_with(context, TeleportError("the other side", why, "its log has the details"))
