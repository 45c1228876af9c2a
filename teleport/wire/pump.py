"""One channel of QEMU's stream between a blocking socket and a gRPC stream, both ways, with credits.

::

    QEMU ── socket ──▶ outgoing() ── frames ──▶ gRPC ──▶ the peer's incoming() ── socket ──▶ QEMU
         ◀── socket ── incoming() ◀── frames ── gRPC ◀── the peer's outgoing() ◀── socket ──

gRPC hides its socket, so that what it buffers cannot be seen: what is in flight is bounded by credits instead (see
`teleport.wire.credits`), and a sender without credit does not read its QEMU, which then waits as on a slow link.

Two threads use a pump: gRPC's own runs `outgoing`, another `feed`s what comes in. A failure of either shuts the socket down, so that
QEMU notices at once and the other thread ends; the descriptors are closed when the last of them has left.
An end of QEMU's stream ends one direction only: the return path stays until its QEMU ends it too.
"""

import contextlib
import fcntl
import os
import select
import socket
import sys
import termios
import threading
import time
from collections.abc import Iterable, Iterator

from teleport.errors import ProtocolError, TeleportError, UnreachableError
from teleport.wire.allocator import keep_freed_memory
from teleport.wire.credits import CreditWindow
from teleport.wire.frames import Frame, pack, unpack

CHUNK_BYTES = 1 << 20  # fits the cores' own caches: 2 MiB take a fifth longer here, 512 KiB too
# A message costs both agents 0.6 ms of their processors whatever its size (measured: 256 KiB a message takes twice as much a byte as
# 2 MiB), and an agent that goes before QEMU finds little in the socket each time. So a source waits a moment for a whole chunk,
WORTH_BYTES = 1 << 20
GATHER_SECONDS = 0.001
# ... if it has seen more than QEMU's small talk (return path, device state's last bytes), which is never delayed.
_BULK_BYTES = 32 << 10
# What arrived is acknowledged a chunk at a time, or when nothing came for a while, so that no sender waits long for what is unsaid.
ACKNOWLEDGE_BYTES = 1 << 20
_UNSAID_MS = 3


class Pump:
    """One channel of one epoch on one side. `sock` becomes the pump's.

    `ours` names the QEMU at `sock` in errors. `source`: bytes that come back for a QEMU that has closed its end already are dropped;
    at a target they are an error.
    """

    def __init__(
        self, sock: socket.socket, *, epoch: str, channel: int, ours: str, source: bool, window: CreditWindow | None = None
    ) -> None:
        keep_freed_memory()
        self.sent_bytes = 0
        self.received_bytes = 0
        self.error: TeleportError | None = None
        self._sock = sock
        self._epoch = epoch
        self._channel = channel
        self._ours = ours
        self._source = source
        self._window = window or CreditWindow()
        self._told_bytes = 0  # to the peer, of what we received
        self._read_all = False  # our QEMU has ended its direction
        self._wrote_all = False  # the peer's has
        self._closed = False
        self._users = 0
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()

    @property
    def in_flight_bytes(self) -> int:
        """Sent and not yet handed to the peer's QEMU."""
        return self._window.in_flight_bytes

    @property
    def complete(self) -> bool:
        """Both directions have ended as they should."""
        return self._read_all and self._wrote_all

    # ------------------------------------------------------------------ from our QEMU to the peer
    def outgoing(self) -> Iterator[bytes]:
        """Packed frames for the peer, until both directions have ended or the pump is closed. The first opens the channel there."""
        if not self._enter():
            return
        try:
            yield self._frame()
            poller = select.poll()
            poller.register(self._wake_fd, select.POLLIN)
            buffer = memoryview(bytearray(CHUNK_BYTES))
            listening = False
            while not self._closed and not self.complete:
                with self._lock:
                    room = 0 if self._read_all else self._window.room_bytes(worth_bytes=WORTH_BYTES)
                if room and not listening:
                    poller.register(self._sock, select.POLLIN)
                elif listening and not room:
                    poller.unregister(self._sock)
                listening = bool(room)
                unsaid = self._told_bytes < self.received_bytes
                ready = {fd for fd, _ in poller.poll(_UNSAID_MS if unsaid else None)}
                if self._wake_fd in ready:
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(self._wake_fd)
                if ready - {self._wake_fd}:
                    self._gather(min(room, CHUNK_BYTES))
                    yield self._frame(self._read(buffer[:room]))
                elif self._owes() or (unsaid and not ready):
                    yield self._frame()
            if not self._closed and self._told_bytes < self.received_bytes:
                yield self._frame()
        except OSError as error:
            self.close(UnreachableError("stream", f"{self._ours} cannot be read from: {error.strerror or error}"))
        finally:
            self._leave()

    def _gather(self, wanted_bytes: int) -> None:
        """Waits until QEMU has written what is wanted, for as long as it keeps writing much."""
        found = 0
        while self._source and found < wanted_bytes:
            before, found = found, _unread_bytes(self._sock)
            if found < _BULK_BYTES or found == before or found >= wanted_bytes:
                break
            time.sleep(GATHER_SECONDS)

    def _read(self, room: memoryview) -> memoryview:
        """What there is now, up to the room; nothing means the end."""
        total = flags = 0
        while total < len(room):
            try:
                count = self._sock.recv_into(room[total:], 0, flags)
            except BlockingIOError:
                break
            except ConnectionResetError:
                count = 0
            if not count:
                self._read_all = True
                break
            total += count
            flags = socket.MSG_DONTWAIT
        return room[:total]

    def _owes(self) -> bool:
        unsaid = self.received_bytes - self._told_bytes
        return unsaid >= ACKNOWLEDGE_BYTES or (unsaid > 0 and self._wrote_all)

    def _frame(self, data: memoryview | bytes = b"") -> bytes:
        offset = self.sent_bytes
        with self._lock:
            self._window.sent(len(data), time.monotonic())
        self.sent_bytes += len(data)
        self._told_bytes = self.received_bytes
        return pack(
            Frame(
                epoch=self._epoch,
                channel=self._channel,
                offset=offset,
                acknowledged=self._told_bytes,
                end=self._read_all,
                data=data,
            )
        )

    # ------------------------------------------------------------------ from the peer to our QEMU
    def feed(self, frames: Iterable[bytes]) -> None:
        """Everything that the peer sends, to its end. Errors end the pump and are kept; a library's own are raised."""
        if not self._enter():
            return
        try:
            for raw in frames:
                self.incoming(raw)
            if not self.complete and not self._wrote_all:
                self.close(UnreachableError("stream", "the other side left in the middle of it"))
        except TeleportError as error:
            self.close(error)
        finally:
            self._leave()

    def incoming(self, raw: bytes) -> None:
        """One frame of the peer. Raises ProtocolError for a foreign or misplaced one, UnreachableError when QEMU's end broke."""
        frame = unpack(raw)
        if frame.epoch != self._epoch or frame.channel != self._channel:
            raise ProtocolError(
                "stream",
                f"bytes of epoch {frame.epoch!r}, channel {frame.channel} came into channel {self._channel} of {self._epoch!r}",
            )
        if frame.data and frame.offset != self.received_bytes:
            raise ProtocolError("stream", f"bytes at offset {frame.offset} came where {self.received_bytes} was expected")
        if frame.data and self._wrote_all:
            raise ProtocolError("stream", "bytes came after the end")
        try:
            with self._lock:
                was_full = self._window.holds_back
                self._window.acknowledged(frame.acknowledged, time.monotonic())
        except ValueError as error:
            raise ProtocolError("stream", f"the peer {error}") from error
        if frame.data:
            self._write(frame.data)
            self.received_bytes += len(frame.data)
        if frame.end and not self._wrote_all:
            with contextlib.suppress(OSError):  # QEMU may be gone already, which is how a stream ends
                self._sock.shutdown(socket.SHUT_WR)
            self._wrote_all = True
        # Where all that came before is said, `outgoing` may be waiting without end: it must learn that there is something to say again.
        # (Looked at after counting: if it says what came before in this very moment, it sees the new count when it looks again.)
        first_unsaid = bool(frame.data) and self._told_bytes == self.received_bytes - len(frame.data)
        if was_full or self._wrote_all or first_unsaid or self._owes():
            self._wake()

    def _write(self, data: memoryview | bytes) -> None:
        try:
            self._sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            if self._source and self._read_all:
                return
            raise UnreachableError("stream", f"{self._ours} closed its end") from error
        except OSError as error:
            raise UnreachableError("stream", f"{self._ours} cannot be written to: {error.strerror or error}") from error

    # ------------------------------------------------------------------ the end
    def close(self, error: TeleportError | None = None) -> None:
        """Ends both directions now, from any thread; the first error is kept, and none after a complete stream."""
        with self._lock:
            if error and not self._closed and not self.complete:
                self.error = error
            self._closed = True
            if self._sock.fileno() >= 0:
                with contextlib.suppress(OSError):
                    self._sock.shutdown(socket.SHUT_RDWR)
            self._close_unused()
        self._wake()

    def _enter(self) -> bool:
        with self._lock:
            if self._closed:
                return False
            self._users += 1
            return True

    def _leave(self) -> None:
        with self._lock:
            self._users -= 1
            self._close_unused()

    def _close_unused(self) -> None:
        """A descriptor is closed only when no thread can be waiting on it: its number may be another's by then."""
        if self._closed and not self._users:
            self._sock.close()
            if self._wake_fd >= 0:
                os.close(self._wake_fd)
                self._wake_fd = -1

    def _wake(self) -> None:
        with self._lock:
            if self._wake_fd >= 0:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_write(self._wake_fd, 1)


def _unread_bytes(sock: socket.socket) -> int:
    """What a socket has received and nobody has read."""
    count = bytearray(4)
    fcntl.ioctl(sock, termios.FIONREAD, count)
    return int.from_bytes(count, sys.byteorder)
