"""The unix sockets through which QEMU's migration streams pass an agent.

A source's QEMU connects to where we listen, a target's listens and we connect: like that QEMU can open further channels
(multifd) on the same path. The sockets are blocking and belong to the threads that carry the bytes.

Measured here (QEMU 10.0.2, 1 GiB of random memory, one reading thread): 1.8 GB/s by reads of 64 KiB, 3.0 by 256 KiB, 3.4 by
1 MiB, 3.6 by 4 MiB, with nothing else to do. Beside a busy guest QEMU's own send buffer (208 KiB) does limit: see `migration_pair`.
"""

import asyncio
import contextlib
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from teleport.errors import HypervisorError

BUFFER_BYTES = 1 << 20
PAIR_BUFFER_BYTES = 4 << 20
_LONGEST_PATH = 107  # sun_path's 108 bytes and its end
ACCEPT_SECONDS = 30.0


def _new_socket() -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    _enlarge(connection)
    return connection


def _enlarge(connection: socket.socket) -> None:
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        connection.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)


def migration_pair() -> tuple[socket.socket, socket.socket]:
    """A connected pair for one stream: our blocking end, and QEMU's, to be passed by `give_fd` (and closed here then).

    What QEMU may write before it waits is its end's send buffer, which only the maker of the socket can enlarge: with QEMU's own 208 KiB
    each hand-over of the processor carries that little, which costs most where vCPUs keep the cores busy.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PAIR_BUFFER_BYTES)
    return ours, theirs


class UnixListener:
    """Listens on `path` (at most 107 bytes) from its construction on; the path is removed at the end. Raises HypervisorError."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if len(str(self.path).encode()) > _LONGEST_PATH:
            raise HypervisorError(
                f"migration socket {self.path}", "its path is longer than 107 bytes", "use a shorter runtime folder"
            )
        self._socket = _new_socket()
        try:
            self.path.unlink(missing_ok=True)
            self._socket.bind(str(self.path))
            self._socket.listen(64)
        except OSError as error:
            self._socket.close()
            raise HypervisorError(f"migration socket {self.path}", error.strerror or str(error)) from error
        self._socket.setblocking(False)

    async def accept(self, *, timeout_seconds: float = ACCEPT_SECONDS) -> socket.socket:
        """The next connection, blocking, the caller's. Raises HypervisorError when QEMU does not connect in time."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_seconds):
                connection, _ = await loop.sock_accept(self._socket)
        except TimeoutError as error:
            raise HypervisorError("migration", f"QEMU did not connect to {self.path} within {timeout_seconds:g} s") from error
        connection.setblocking(True)
        _enlarge(connection)
        return connection

    def close(self) -> None:
        """Listens no more; accepted connections live on."""
        self._socket.close()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def connect_unix(path: Path | str) -> socket.socket:
    """A blocking connection to a QEMU that listens there (its `migrate-incoming` has answered). Raises HypervisorError."""
    connection = _new_socket()
    try:
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        raise HypervisorError(
            f"migration socket {path}", error.strerror or str(error), "QEMU's own words are in its stderr"
        ) from error
    return connection
