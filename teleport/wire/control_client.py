"""The control API, asked: simple and synchronous, for the command line."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from teleport.errors import RunnerGoneError, StateError, TeleportError, UnreachableError
from teleport.model import Outcome, Progress
from teleport.wire import convert
from teleport.wire._generated.teleport.v1 import control_pb2 as control
from teleport.wire._generated.teleport.v1 import control_pb2_grpc as control_grpc
from teleport.wire.options import CHANNEL_OPTIONS
from teleport.wire.status import failure_from_wire, from_rpc_error

_ANSWER_SECONDS = 60.0
_STATUS_SECONDS = 5.0
# Nobody there; the call was cut off; an agent that is ending says so itself (`teleport.wire.bridge`: ABORTED).
_GONE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.ABORTED})

Event = Progress | str | Outcome | TeleportError


class ControlClient:
    """One runner's control socket. Methods raise what the runner raised, or StateError when nobody serves it."""

    def __init__(self, path: Path, *, vm_name: str) -> None:
        self._vm_name = vm_name
        if not path.exists():
            raise StateError(f"VM {vm_name!r}", "is not running", f"teleport startvm {shlex.quote(vm_name)}")
        self._channel = grpc.insecure_channel(f"unix:{path.resolve()}", options=CHANNEL_OPTIONS)
        self._stub = control_grpc.ControlStub(self._channel)

    def __enter__(self) -> "ControlClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def status(self) -> control.StatusResponse:
        """How the VM is."""
        answer: control.StatusResponse = self._ask(self._stub.Status, control.StatusRequest(), timeout_seconds=_STATUS_SECONDS)
        return answer

    def power(self, action: str) -> str:
        """Pause, resume, reset, poweroff, acpipowerbutton; the state after it."""
        return str(self._ask(self._stub.Power, control.PowerRequest(action=action)).state)

    def execute(self, command: str, *arguments: str) -> str:
        """A command of free form; what it prints."""
        return str(self._ask(self._stub.Execute, control.ExecuteRequest(command=command, arguments=arguments)).text)

    def teleport(self, request: control.TeleportRequest) -> Iterator[Event]:
        """Teleports; the last event is an Outcome or an error. Raises RunnerGoneError when there comes none any more."""
        event: Event = ""
        for event in self._events(self._stub.Teleport(request)):
            yield event
        if not isinstance(event, Outcome | TeleportError):
            raise RunnerGoneError(f"VM {self._vm_name!r}", "its runner ended without a word", "showvminfo")

    def watch(self) -> Iterator[Event]:
        """All that happens from now on, until the VM is over."""
        return self._events(self._stub.Watch(control.WatchRequest()))

    def cancel(self) -> str:
        """Cancels a teleport; says what comes of it."""
        return str(self._ask(self._stub.Cancel, control.CancelRequest()).text)

    def resolve(self, *, run_here: bool, moved: bool, confirmed: bool) -> str:
        """Decides a guest in doubt."""
        request = control.ResolveRequest(run_here=run_here, moved=moved, confirmed=confirmed)
        return str(self._ask(self._stub.Resolve, request).text)

    def _ask(self, method: Any, request: Any, *, timeout_seconds: float = _ANSWER_SECONDS) -> Any:
        try:
            return method(request, timeout=timeout_seconds)
        except grpc.RpcError as error:
            raise self._translated(error) from error

    def _events(self, call: Any) -> Iterator[Event]:
        try:
            for message in call:
                yield event_from_wire(message.event)
        except grpc.RpcError as error:
            raise self._translated(error) from error
        finally:
            call.cancel()  # an iterator that is left early; what it told of goes on

    def _translated(self, error: grpc.RpcError) -> TeleportError:
        found = from_rpc_error(error, where=f"the runner of VM {self._vm_name!r}")
        if isinstance(found, UnreachableError) and error.code() in _GONE:
            return RunnerGoneError(
                f"VM {self._vm_name!r}", "its runner does not answer (it has just ended, or died)", "showvminfo"
            )
        return found


def event_from_wire(event: control.Event) -> Event:
    """One event of a message; kinds that this build does not know become notes."""
    match event.WhichOneof("event"):
        case "progress":
            return convert.progress_from_wire(event.progress)
        case "outcome":
            return convert.outcome_from_wire(event.outcome)
        case "failure":
            return failure_from_wire(event.failure)
        case _:
            return event.note
