"""Unary calls of a synchronous stub, awaited from the agent's loop."""

import asyncio
import contextlib
import threading
from typing import Any

import grpc

from teleport.errors import UnreachableError
from teleport.wire.status import from_rpc_error


async def call(method: Any, request: object, *, timeout_seconds: float, where: str) -> Any:
    """One call through the stub's `future`; cancelling the await cancels the call. Raises TeleportError, translated."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    try:
        rpc = method.future(request, timeout=timeout_seconds)
    except ValueError as error:  # gRPC's answer on a channel that was closed meanwhile
        raise UnreachableError("the other side", f"the connection to {where} was closed here") from error

    def wake() -> None:
        if not done.done():
            done.set_result(None)

    rpc.add_done_callback(lambda _: None if loop.is_closed() else loop.call_soon_threadsafe(wake))
    try:
        await done
    except asyncio.CancelledError:
        rpc.cancel()
        raise
    try:
        return rpc.result()
    except grpc.RpcError as error:
        raise from_rpc_error(error, where=where) from error
    except grpc.FutureCancelledError as error:
        raise UnreachableError("the other side", f"the call to {where} was cancelled") from error


async def close(channel: grpc.Channel, *, limit_seconds: float = 1.0) -> None:
    """Ends a channel and all its calls. Waits for gRPC to have done so, but not for a peer that is frozen.

    `Channel.close` returns when every write under way has ended (tried: with the peer stopped and the socket's buffers full it
    waits until TCP gives up), so it has a thread of its own, which then outlives this call.
    """
    loop = asyncio.get_running_loop()
    closed = asyncio.Event()

    def work() -> None:
        channel.close()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(closed.set)

    threading.Thread(target=work, name="closing", daemon=True).start()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_seconds):
            await closed.wait()
