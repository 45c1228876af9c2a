"""A link between two hosts that a test can cut: a TCP relay on loopback."""

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class Link:
    """Connections to `port` (on 127.0.0.1) come out at `far_port`. A context manager.

    `cut` breaks all of them and refuses new ones, as when a network interface goes; `mend` lets new ones through again.
    """

    def __init__(self, far_port: int) -> None:
        self._far_port = far_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._whole = True
        self._ends: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    @property
    def port(self) -> int:
        """The near end's port."""
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)

    def cut(self) -> None:
        """Breaks every connection."""
        with self._lock:
            self._whole = False
            ends = tuple(self._ends)
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """From now on connections come through again."""
        with self._lock:
            self._whole = True

    def _spawn(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._far_port), 5)
            except OSError:
                near.close()
                continue
            with self._lock:
                whole = self._whole
                if whole:
                    self._ends |= {near, far}
            if not whole:
                near.close()
                far.close()
                continue
            done = threading.Barrier(2)
            self._spawn(self._carry, near, far, done)
            self._spawn(self._carry, far, near, done)

    def _carry(self, source: socket.socket, sink: socket.socket, done: threading.Barrier) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 20):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        with contextlib.suppress(threading.BrokenBarrierError):
            if done.wait() == 0:  # closed by one, when nobody uses them any more
                with self._lock:
                    self._ends -= {source, sink}
                source.close()
                sink.close()
