"""Blocking calls that may never come back (dead NFS, a hung FUSE), bounded: the thread is abandoned, the agent goes on.

The default executor is no good for this: its threads are joined when the interpreter ends, and a few hung ones would fill it.
"""

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

Result = TypeVar("Result")


async def in_thread(call: Callable[[], Result], *, timeout_seconds: float, name: str = "blocking call") -> Result:
    """Runs `call` in a daemon thread of its own and returns its result or raises its error.

    Raises TimeoutError after `timeout_seconds`; the call may still take effect later. The same when the caller is cancelled.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(outcome: Callable[[], None]) -> None:
        if not future.done():  # else given up meanwhile
            outcome()

    def work() -> None:
        try:
            outcome = partial(future.set_result, call())
        except BaseException as error:  # carried to the caller, whatever it is
            outcome = partial(future.set_exception, error)
        try:
            loop.call_soon_threadsafe(settle, outcome)
        except RuntimeError:  # the loop has ended: nobody waits
            return

    threading.Thread(target=work, name=name, daemon=True).start()
    async with asyncio.timeout(timeout_seconds):
        return await future
