"""One channel of QEMU's stream between a blocking socket and a gRPC stream, both ways, with credits.

::

    QEMU ── socket ──▶ outgoing() ── frames ──▶ gRPC ──▶ the peer's incoming() ── socket ──▶ QEMU
         ◀── socket ── incoming() ◀── frames ── gRPC ◀── the peer's outgoing() ◀── socket ──

gRPC hides its socket, so that what it buffers cannot be seen: what is in flight is bounded by credits instead. Bytes that the peer has
not acknowledged (handed to its QEMU) never exceed the window, which follows the rate that is measured: about 40 ms of it, since
buffered bytes become downtime. `outgoing` runs in gRPC's thread, `incoming` in one more; either's failure closes the socket, so that
QEMU notices at once.
"""

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Iterator

from teleport.errors import ProtocolError, TeleportError, UnreachableError
from teleport.wire.frames import Frame, pack, unpack

CHUNK_BYTES = 2 << 20
_READ_BYTES = 1 << 20
FIRST_WINDOW_BYTES = 4 << 20
SMALLEST_WINDOW_BYTES = 1 << 20
LARGEST_WINDOW_BYTES = 16 << 20
_WINDOW_SECONDS = 0.04
_RATE_SECONDS = 0.1
_POLL_MS = 500


class Pump:
    """One channel of one epoch on one side. Thread-safe between one caller of `outgoing` and one of `incoming`."""

    def __init__(self, sock: socket.socket, *, epoch: str, channel: int) -> None:
        self.sent_bytes = 0
        self.received_bytes = 0
        self.error: TeleportError | None = None
        self.finished = threading.Event()
        self._sock = sock
        self._epoch = epoch
        self._channel = channel
        self._acknowledged_bytes = 0  # by the peer, of what we sent
        self._told_bytes = 0  # to the peer, of what we received
        self._window_bytes = FIRST_WINDOW_BYTES
        self._rate_since = time.monotonic()
        self._rate_from_bytes = 0
        self._read_all = False
        self._wrote_all = False
        self._closed = False
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()

    @property
    def in_flight_bytes(self) -> int:
        """Sent and not yet handed to the peer's QEMU."""
        return self.sent_bytes - self._acknowledged_bytes

    def outgoing(self) -> Iterator[bytes]:
        """Packed frames for the peer, until both directions have ended or the pump is closed."""
        poller = select.poll()
        poller.register(self._wake_fd, select.POLLIN)
        listening = False
        try:
            while not self._closed and not (self._read_all and self._wrote_all):
                wanted = not self._read_all and self.in_flight_bytes < self._window_bytes
                if wanted and not listening:
                    poller.register(self._sock, select.POLLIN)
                elif listening and not wanted:
                    poller.unregister(self._sock)
                listening = wanted
                ready = {fd for fd, _ in poller.poll(_POLL_MS)}
                if self._wake_fd in ready:
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(self._wake_fd)
                if self._sock.fileno() in ready:
                    yield from self._read()
                elif self._told_bytes < self.received_bytes:
                    yield self._frame()
            if self._told_bytes < self.received_bytes:
                yield self._frame()
        except (OSError, ValueError) as error:
            self.close(UnreachableError("stream", f"QEMU's end broke: {error}"))
        finally:
            if self._read_all and self._wrote_all:
                self.finished.set()

    def _read(self) -> Iterator[bytes]:
        parts: list[bytes] = []
        total = 0
        flags = 0
        while total < CHUNK_BYTES:
            try:
                part = self._sock.recv(_READ_BYTES, flags)
            except BlockingIOError:
                break
            except ConnectionResetError:
                part = b""
            if not part:
                self._read_all = True
                break
            parts.append(part)
            total += len(part)
            flags = socket.MSG_DONTWAIT
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        yield self._frame(data, end=self._read_all)

    def _frame(self, data: bytes = b"", *, end: bool = False) -> bytes:
        offset = self.sent_bytes
        self.sent_bytes += len(data)
        self._told_bytes = self.received_bytes
        frame = Frame(
            epoch=self._epoch, channel=self._channel, offset=offset, acknowledged=self._told_bytes, end=end, data=data
        )
        return pack(frame)

    def incoming(self, raw: bytes) -> None:
        """One frame of the peer. Raises ProtocolError for a foreign or misplaced one, UnreachableError when QEMU's end broke."""
        frame = unpack(raw)
        if frame.epoch != self._epoch or frame.channel != self._channel:
            raise ProtocolError("stream", "a message of another epoch or channel came in")
        if frame.acknowledged > self.sent_bytes:
            raise ProtocolError("stream", "the peer acknowledges more than was sent")
        if frame.acknowledged > self._acknowledged_bytes:
            self._acknowledged_bytes = frame.acknowledged
            self._measure()
            self._wake()
        if frame.data:
            if frame.offset != self.received_bytes:
                raise ProtocolError("stream", f"bytes at {frame.offset} came where {self.received_bytes} was expected")
            try:
                self._sock.sendall(frame.data)
            except OSError as error:
                raise UnreachableError("stream", f"QEMU's end broke: {error.strerror or error}") from error
            self.received_bytes += len(frame.data)
            self._wake()
        if frame.end:
            with contextlib.suppress(OSError):  # QEMU may be gone already, which is how a stream ends
                self._sock.shutdown(socket.SHUT_WR)
            self._wrote_all = True
            self._wake()

    def _measure(self) -> None:
        elapsed = time.monotonic() - self._rate_since
        if elapsed < _RATE_SECONDS:
            return
        rate = (self._acknowledged_bytes - self._rate_from_bytes) / elapsed
        self._window_bytes = int(max(SMALLEST_WINDOW_BYTES, min(LARGEST_WINDOW_BYTES, rate * _WINDOW_SECONDS)))
        self._rate_since = time.monotonic()
        self._rate_from_bytes = self._acknowledged_bytes

    def close(self, error: TeleportError | None = None) -> None:
        """Ends both directions now; the first error is kept."""
        with self._lock:
            if self.finished.is_set() and self._closed:
                return
            self.error = self.error or error
            self._closed = True
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._wake()
        self.finished.set()

    def release(self) -> None:
        """Closes the descriptors, once no thread uses them any more."""
        self.close()
        self._sock.close()
        with self._lock:
            if self._wake_fd >= 0:
                os.close(self._wake_fd)
                self._wake_fd = -1

    def _wake(self) -> None:
        with self._lock:
            if self._wake_fd >= 0:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_write(self._wake_fd, 1)
