"""Two agents of one host find each other, and pass the guest's RAM from one to the other.

::

    target                                                source
      │  connect to \\0NAME (abstract: names are those of one network namespace, so that reaching it proves it)
      │──────────────────────────────────────────────────▶│  SO_PEERCRED: the same user, or closed
      │◀── challenge S ───────────────────────────────────│
      │─── challenge T, HMAC(nonce, "target" S T) ────────▶│
      │◀── HMAC(nonce, "source" T S) ─────────────────────│  `met`
      │─── ram ───────────────────────────────────────────▶│
      │◀── size + the memfd ──────────────────────────────│
      │─── process + its pidfd ───────────────────────────▶│  the source can kill T's QEMU, and wait for its death, before it
      │◀── ok ────────────────────────────────────────────│  resumes on the same memory

The nonce went from one to the other through the session: who answers here *is* who is there. Packets as in
`teleport.host.fd_messages`. The pidfd outlives the connection, so that a target's agent may die at any time.
"""

import asyncio
import contextlib
import hmac
import os
import secrets
import socket
import struct

from teleport.errors import HypervisorError, ProtocolError, TeleportError, UnreachableError
from teleport.host.fd_messages import Message, close_all, receive_async, send
from teleport.host.process import kill_by_pidfd, open_pidfd
from teleport.model import QemuProcess

_ANSWER_SECONDS = 5.0
_WHAT = "the other agent of this host"


def _address(name: str) -> bytes:
    return b"\0" + name.encode()


def _proof(nonce: str, role: str, *challenges: str) -> str:
    return hmac.digest(nonce.encode(), "\0".join(("teleport same-host 1", role, *challenges)).encode(), "sha256").hex()


def _same_user(connection: socket.socket) -> bool:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", credentials)[1] == os.geteuid())


async def _receive(connection: socket.socket) -> tuple[Message, list[int]]:
    """The next message, within 5 s. Raises UnreachableError, ProtocolError."""
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            received = await receive_async(connection)
    except TimeoutError as error:
        raise UnreachableError(_WHAT, f"did not answer within {_ANSWER_SECONDS:g} s") from error
    except OSError as error:
        raise UnreachableError(_WHAT, error.strerror or str(error)) from error
    if received is None:
        raise UnreachableError(_WHAT, "closed the connection")
    return received


def _text(message: Message, key: str) -> str:
    value = message.get(key)
    if not isinstance(value, str):
        raise ProtocolError(_WHAT, f"its message lacks {key}")
    return value


class HandleServer:
    """The source's side, for one target's QEMU. `ram_fd` stays the caller's and open until `close`. To be made in an event loop."""

    def __init__(self, name: str, nonce: str, *, ram_fd: int | None) -> None:
        self.name = name
        self.nonce = nonce
        self.met = False
        self._ram_fd = ram_fd
        self._ram_given = False
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._process: asyncio.Future[QemuProcess] = asyncio.get_running_loop().create_future()
        self._pidfd: int | None = None

    async def start(self) -> None:
        """Listens. Raises HypervisorError when the name is taken."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._socket.bind(_address(self.name))
        except OSError as error:
            self._socket.close()
            raise HypervisorError(f"same-host handle {self.name}", error.strerror or str(error)) from error
        self._socket.listen(4)
        self._socket.setblocking(False)
        self._accepting = asyncio.create_task(self._accept(self._socket), name=f"same-host handle {self.name}")

    async def target_process(self) -> QemuProcess:
        """The target's QEMU, once it was given. Raises UnreachableError when it does not come within 5 s."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await asyncio.shield(self._process)
        except TimeoutError as error:
            raise UnreachableError(_WHAT, "did not say which QEMU maps the guest's memory") from error

    async def kill_target(self) -> None:
        """Kills the target's QEMU and returns when it is dead: its mapping of the guest's memory is gone.

        Raises HypervisorError when that cannot be known: the memory was passed on and no process was named.
        """
        if self._pidfd is not None:
            await kill_by_pidfd(self._pidfd, what="the target's QEMU")
        elif self._ram_given:
            raise HypervisorError(
                "the target's QEMU", "it has this guest's memory, and never said which process it is", "end it by hand"
            )

    def close(self) -> None:
        """Listens no more and forgets the target's QEMU, which lives on."""
        if self._accepting is not None:
            self._accepting.cancel()
        if self._socket is not None:
            self._socket.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as peers:
            while True:
                connection, _ = await loop.sock_accept(listener)
                peers.create_task(self._serve(connection))

    async def _serve(self, connection: socket.socket) -> None:
        """One peer, from its proof to its end; a stranger is left without an answer."""
        with connection, contextlib.suppress(TeleportError, OSError):
            connection.setblocking(False)
            if not _same_user(connection):
                return
            mine = secrets.token_hex(16)
            send(connection, {"challenge": mine})
            hello, fds = await _receive(connection)
            close_all(fds)
            theirs = _text(hello, "challenge")
            if not hmac.compare_digest(_text(hello, "proof"), _proof(self.nonce, "target", mine, theirs)):
                return
            send(connection, {"proof": _proof(self.nonce, "source", theirs, mine)})
            self.met = True
            while (received := await receive_async(connection)) is not None:
                self._answer(connection, *received)

    def _answer(self, connection: socket.socket, request: Message, fds: list[int]) -> None:
        match request.get("op"):
            case "ram" if self._ram_fd is not None:
                self._ram_given = True
                send(connection, {"ok": "ram"}, [self._ram_fd])
            case "process" if len(fds) == 1 and not self._process.done():
                pid, ticks = request.get("pid"), request.get("start_ticks")
                if not isinstance(pid, int) or not isinstance(ticks, int):
                    raise ProtocolError(_WHAT, "its message names no process")
                self._pidfd = fds.pop()
                self._process.set_result(QemuProcess(pid=pid, start_ticks=ticks, label=str(request.get("label", ""))))
                send(connection, {"ok": "process"})
            case other:
                send(connection, {"error": f"cannot do {other}"})
        close_all(fds)


class HandleClient:
    """The target's side: connected means that the other end is the session's source and runs on this very host."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._one_at_a_time = asyncio.Lock()

    @classmethod
    async def connect(cls, name: str, nonce: str) -> "HandleClient":
        """Finds the source. Raises UnreachableError when it is not in this network namespace, ProtocolError when it is another."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.setblocking(False)
        try:
            try:
                connection.connect(_address(name))
            except OSError as error:
                raise UnreachableError(_WHAT, error.strerror or str(error)) from error
            if not _same_user(connection):
                raise ProtocolError(_WHAT, "belongs to another user")
            hello, fds = await _receive(connection)
            close_all(fds)
            theirs = _text(hello, "challenge")
            mine = secrets.token_hex(16)
            send(connection, {"challenge": mine, "proof": _proof(nonce, "target", theirs, mine)})
            answer, fds = await _receive(connection)
            close_all(fds)
            if not hmac.compare_digest(_text(answer, "proof"), _proof(nonce, "source", mine, theirs)):
                raise ProtocolError(_WHAT, "does not know this session")
        except BaseException:
            connection.close()
            raise
        return cls(connection)

    async def fetch_ram(self) -> int:
        """The source's RAM: a descriptor that is the caller's. Raises UnreachableError, ProtocolError."""
        _, fds = await self._ask({"op": "ram"}, [])
        if len(fds) != 1:
            close_all(fds)
            raise ProtocolError(_WHAT, "sent no memory")
        return fds[0]

    async def give_process(self, process: QemuProcess) -> None:
        """Hands the source the QEMU that maps its memory, so that it can kill it. Raises UnreachableError, HypervisorError."""
        pidfd = open_pidfd(process)
        if pidfd is None:
            raise HypervisorError(f"QEMU {process.label}", f"pid {process.pid} is gone")
        try:
            request = {"op": "process", "pid": process.pid, "start_ticks": process.start_ticks, "label": process.label}
            _, fds = await self._ask(request, [pidfd])
            close_all(fds)
        finally:
            os.close(pidfd)

    def close(self) -> None:
        """Ends the connection; the source keeps the pidfd."""
        self._connection.close()

    async def _ask(self, request: Message, fds: list[int]) -> tuple[Message, list[int]]:
        async with self._one_at_a_time:
            try:
                send(self._connection, request, fds)
            except OSError as error:
                raise UnreachableError(_WHAT, error.strerror or str(error)) from error
            answer, received = await _receive(self._connection)
        if "error" in answer:
            close_all(received)
            raise ProtocolError(_WHAT, str(answer["error"]))
        return answer, received
