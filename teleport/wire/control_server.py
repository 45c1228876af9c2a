"""The control API served on a unix socket. Its folder has mode 0700: gRPC never checks who is at the other end of one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import grpc

from teleport.errors import StateError, TeleportError
from teleport.model import Outcome, Progress
from teleport.wire import convert
from teleport.wire._generated.teleport.v1 import control_pb2 as control
from teleport.wire._generated.teleport.v1 import control_pb2_grpc as control_grpc
from teleport.wire.bridge import LoopBridge, answered
from teleport.wire.options import CHANNEL_OPTIONS
from teleport.wire.status import failure_to_wire

_THREADS = 16
_STOP_SECONDS = 2.0
_LOOK_SECONDS = 0.01
_LIMIT_SECONDS = 120.0  # longer than any verb's own limits: the agent's loop is stuck

T = TypeVar("T")

Event = Progress | str | Outcome | TeleportError


@dataclass(frozen=True)
class Status:
    """What a runner says of its VM. `properties` are further machine-readable values."""

    state: str
    version: str
    qemu_pid: int
    agent_pid: int
    guardian_pid: int
    teleporter_port: int
    detail: str
    properties: dict[str, str]


class ControlHandler(Protocol):
    """What an agent does for each verb; every method may raise TeleportError, which crosses whole."""

    async def status(self) -> Status:
        """How the VM is."""

    async def power(self, action: str) -> str:
        """Pause, resume, reset, poweroff, acpipowerbutton; the state after it."""

    async def execute(self, command: str, arguments: tuple[str, ...]) -> str:
        """A command of free form; what it prints."""

    def teleport(self, request: control.TeleportRequest) -> AsyncIterator[Event]:
        """Teleports; the last event is an Outcome or an error."""

    async def cancel(self) -> str:
        """Cancels a teleport."""

    def watch(self) -> AsyncIterator[Event]:
        """All that happens from now on."""

    async def resolve(self, *, run_here: bool, moved: bool, confirmed: bool) -> str:
        """Decides a guest in doubt."""


class ControlServer:
    """Serves one handler on one socket."""

    def __init__(self, handler: ControlHandler, *, path: Path) -> None:
        self._path = path
        self._bridge = LoopBridge(asyncio.get_running_loop())
        self._servicer = _Servicer(handler, self._bridge)
        self._server: grpc.Server | None = None

    async def start(self) -> None:
        """Binds the socket; a dead predecessor's is replaced. Raises StateError."""
        self._path.unlink(missing_ok=True)
        server = grpc.server(ThreadPoolExecutor(_THREADS, thread_name_prefix="control"), options=CHANNEL_OPTIONS)
        control_grpc.add_ControlServicer_to_server(self._servicer, server)
        try:
            server.add_insecure_port(f"unix:{self._path}")
        except RuntimeError as error:  # gRPC names no reason
            raise StateError(
                f"control socket {self._path}",
                "cannot be bound: its folder cannot be written, or its path is longer than 107 bytes",
                "use a shorter TELEPORT_HOME",
            ) from error
        server.start()
        self._server = server

    async def stop(self) -> None:
        """Removes the socket, lets calls under way end and their callers hang up, each within a bounded time."""
        self._path.unlink(missing_ok=True)
        if self._server:
            await self._callers_gone()
            stopped = self._server.stop(_STOP_SECONDS)
            await asyncio.to_thread(stopped.wait, _STOP_SECONDS + 1)
            self._server = None
            self._bridge.close()  # only now: the last event of a teleport is still on its way out

    async def _callers_gone(self) -> None:
        """Until nobody is connected: gRPC throws away an answer that a caller has not read yet, if we close first and its own next
        write fails (seen under load: "Stream removed (sendmsg: Broken pipe)" in place of a teleport's outcome).
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                while _is_connected(self._path):  # noqa: ASYNC110 - the kernel says it to nobody
                    await asyncio.sleep(_LOOK_SECONDS)


def _is_connected(path: Path) -> bool:
    """Whether an accepted connection of this socket lives, by /proc/net/unix (proc(5): … state, 03 connected; inode; path)."""
    for line in Path("/proc/net/unix").read_text(errors="replace").splitlines():
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[5] == "03" and fields[7] == str(path):
            return True
    return False


def event_to_wire(event: Event) -> control.Event:
    """One event as a message."""
    match event:
        case Progress():
            return control.Event(progress=convert.progress_to_wire(event))
        case Outcome():
            return control.Event(outcome=convert.outcome_to_wire(event))
        case TeleportError():
            return control.Event(failure=failure_to_wire(event))
        case _:
            return control.Event(note=event)


class _Servicer(control_grpc.ControlServicer):
    def __init__(self, handler: ControlHandler, bridge: LoopBridge) -> None:
        self._handler = handler
        self._bridge = bridge

    def _ask(self, work: Coroutine[Any, Any, T], context: grpc.ServicerContext) -> T:
        with answered(context):
            return self._bridge.ask(work, what="the runner", limit_seconds=_LIMIT_SECONDS)
        raise AssertionError("answered ends the call")

    def Status(self, request: control.StatusRequest, context: grpc.ServicerContext) -> control.StatusResponse:
        return control.StatusResponse(**vars(self._ask(self._handler.status(), context)))

    def Power(self, request: control.PowerRequest, context: grpc.ServicerContext) -> control.PowerResponse:
        return control.PowerResponse(state=self._ask(self._handler.power(request.action), context))

    def Execute(self, request: control.ExecuteRequest, context: grpc.ServicerContext) -> control.ExecuteResponse:
        work = self._handler.execute(request.command, tuple(request.arguments))
        return control.ExecuteResponse(text=self._ask(work, context))

    def Teleport(self, request: control.TeleportRequest, context: grpc.ServicerContext) -> Iterator[control.TeleportResponse]:
        for event in self._tell(self._handler.teleport(request), context):
            yield control.TeleportResponse(event=event)

    def Cancel(self, request: control.CancelRequest, context: grpc.ServicerContext) -> control.CancelResponse:
        return control.CancelResponse(text=self._ask(self._handler.cancel(), context))

    def Watch(self, request: control.WatchRequest, context: grpc.ServicerContext) -> Iterator[control.WatchResponse]:
        for event in self._tell(self._handler.watch(), context):
            yield control.WatchResponse(event=event)

    def Resolve(self, request: control.ResolveRequest, context: grpc.ServicerContext) -> control.ResolveResponse:
        work = self._handler.resolve(run_here=request.run_here, moved=request.moved, confirmed=request.confirmed)
        return control.ResolveResponse(text=self._ask(work, context))

    def _tell(self, events: AsyncIterator[Event], context: grpc.ServicerContext) -> Iterator[control.Event]:
        with answered(context):
            for event in self._bridge.each(events, context):
                yield event_to_wire(event)
