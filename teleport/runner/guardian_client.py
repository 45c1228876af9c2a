"""The agent's side of the guardian (see `teleport.runner.guardian` for the requests)."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from teleport.errors import BusyError, HypervisorError, ProtocolError, StateError, StorageError, TeleportError, UnreachableError
from teleport.host.fd_messages import Message, close_all, receive, send
from teleport.host.ram import create_ram, populate
from teleport.model import QemuProcess
from teleport.runner.guarded import RAM
from teleport.runner.guardian import RESTARTS_VARIABLE, SOCKET_VARIABLE

_ERRORS = {kind.kind: kind for kind in (BusyError, HypervisorError, ProtocolError, StateError, StorageError, TeleportError)}


@dataclass(frozen=True)
class GuardedQemu:
    """A QEMU that the guardian knows. `ram_fd` is the receiver's to close; `status` is a wait status once it is dead and was a child."""

    process: QemuProcess
    alive: bool
    status: int | None
    ram_fd: int | None


class GuardianClient:
    """One agent's connection to its guardian. Methods raise what the guardian raised, or UnreachableError once it is gone."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._connection.setblocking(False)
        self._connection.set_inheritable(False)
        self._loop = asyncio.get_running_loop()
        self._asked = 0
        self._answers: dict[int, asyncio.Future[tuple[Message, list[int]]]] = {}
        self._gone = asyncio.Event()
        self._loop.add_reader(self._connection, self._on_readable)

    @classmethod
    def from_environment(cls) -> "GuardianClient":
        """The connection that the guardian passed to this process. Raises UnreachableError when there is none."""
        number = os.environ.pop(SOCKET_VARIABLE, "")
        if not number.isdigit():
            raise UnreachableError("the guardian", f"{SOCKET_VARIABLE} is not set", "agents are started by `teleport startvm`")
        return cls(socket.socket(fileno=int(number)))

    @staticmethod
    def restarts() -> int:
        """How often the guardian has restarted the agent; 0 for its first."""
        return int(os.environ.get(RESTARTS_VARIABLE, "0"))

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        label: str,
        stderr_path: Path,
        ram_bytes: int = 0,
        ram_fd: int | None = None,
        huge_pages: bool = False,
        prefault: bool = False,
        fds: Mapping[str, int] | None = None,
    ) -> tuple[QemuProcess, int | None]:
        """Starts a QEMU; returns the process and its RAM's descriptor, which is the caller's to close.

        With `ram_bytes` and no `ram_fd` a memfd is made (of `huge_pages`, and populated with `prefault`); ``{fd:ram}`` in `argv`
        stands for its number in QEMU, ``{fd:NAME}`` for those of `fds`, which the caller keeps and closes. A QEMU that dies at once
        is seen when its monitor is connected.
        """
        made_fd = create_ram(ram_bytes, huge_pages=huge_pages) if ram_bytes and ram_fd is None else None
        own_fd = made_fd if ram_fd is None else ram_fd
        passed = {**({} if own_fd is None else {RAM: own_fd}), **(fds or {})}
        try:
            if prefault and own_fd is not None:
                await populate(own_fd)
            answer, _ = await self._ask(
                {
                    "op": "spawn",
                    "label": label,
                    "argv": list(argv),
                    "stderr": str(stderr_path),
                    "ram_bytes": ram_bytes,
                    "fds": list(passed),
                },
                list(passed.values()),
            )
        except BaseException:
            if made_fd is not None:
                os.close(made_fd)
            raise
        process = _process(answer["process"])
        if process.start_ticks == 0:
            raise HypervisorError(f"QEMU {label}", "could not be started")
        return process, own_fd

    async def list_qemus(self) -> tuple[GuardedQemu, ...]:
        """All that were spawned and not forgotten, oldest first."""
        answer, fds = await self._ask({"op": "list"})
        rams = iter(fds)
        return tuple(
            GuardedQemu(
                process=_process(entry["process"]),
                alive=entry["alive"],
                status=entry["status"],
                ram_fd=next(rams) if entry["has_ram"] else None,
            )
            for entry in answer["qemus"]
        )

    async def forget(self, process: QemuProcess) -> None:
        """The guardian lets go of a dead QEMU and its RAM; one that is gone has done so. Raises StateError while it lives."""
        with contextlib.suppress(UnreachableError):
            await self._ask({"op": "forget", "pid": process.pid})

    async def ready(self) -> None:
        """Says that this agent is up: if it dies from now on, another takes its place."""
        await self._ask({"op": "ready"})

    async def finish(self, code: int) -> None:
        """The VM is over: exit after this, and the guardian tidies up and exits with `code`. Raises StateError while a QEMU lives."""
        await self._ask({"op": "finish", "code": code})

    async def wait_gone(self) -> None:
        """Returns when the guardian is gone: the agent must leave then (`teleport.runner.leaving`)."""
        await self._gone.wait()

    def close(self) -> None:
        """Ends the connection; the guardian takes that for the agent's end."""
        self._end()
        self._connection.close()

    async def _ask(self, request: Message, fds: Sequence[int] = ()) -> tuple[Message, list[int]]:
        if self._gone.is_set():
            raise UnreachableError("the guardian", "is gone")
        self._asked += 1
        number = self._asked
        self._answers[number] = self._loop.create_future()
        try:
            try:
                send(self._connection, {**request, "id": number}, fds)
            except OSError as error:
                raise UnreachableError("the guardian", error.strerror or str(error)) from error
            message, attached = await self._answers[number]
        finally:
            del self._answers[number]
        if "ok" in message:
            return message["ok"], attached
        close_all(attached)
        kind, *words = message["error"]
        raise _ERRORS.get(kind, TeleportError)(*words)

    def _on_readable(self) -> None:
        try:
            received = receive(self._connection)
        except BlockingIOError:
            return
        except (OSError, ProtocolError):
            received = None
        if received is None:
            self._end()
            return
        answer = self._answers.get(received[0].get("id", 0))
        if answer is not None and not answer.done():
            answer.set_result(received)
        else:  # who asked was cancelled
            close_all(received[1])

    def _end(self) -> None:
        self._loop.remove_reader(self._connection)
        self._gone.set()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(UnreachableError("the guardian", "is gone"))


def _process(entry: Mapping[str, Any]) -> QemuProcess:
    """Out of the guardian's own `asdict`, by way of JSON."""
    return QemuProcess(**{**entry, "argv": tuple(entry["argv"])})
