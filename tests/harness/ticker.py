"""An outsider's view of a guest: its ticks as they arrive on serial lines, before, across and after a teleport.

The guest's own clock stops with it, so a pause can only be seen from outside: by this process' monotonic clock at the arrival of
each line. The guest's counter says the rest:

- a counter that is missed: the guest's words were lost, or it ran where nobody listened;
- a counter seen twice: two guests run, or one was resumed from an older state;
- a counter that goes back: an older state was resumed.

Each place where the guest may speak (the source's serial line, the target's) is an Endpoint; lines of all are merged in the order
of arrival. A line that was cut by the switchover (its head said by the source, its tail by the target) is put together again.
"""

import bisect
import itertools
import re
import selectors
import socket
import statistics
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

TICK = re.compile(r"TICK (\d+) (\d+)")
# Files and absent sockets are looked at this often; it is the error of a gap measured there. A connected socket has none.
_POLL_SECONDS = 0.002


@dataclass(frozen=True)
class Line:
    """One line that is not a tick. `arrival_seconds` is this process' time.monotonic()."""

    arrival_seconds: float
    endpoint: str
    text: str


@dataclass(frozen=True)
class Tick:
    """One tick: the guest's counter and clock, and when and where it arrived."""

    arrival_seconds: float
    endpoint: str
    counter: int
    guest_ms: int


@dataclass(frozen=True)
class Continuity:
    """What the ticks of a stretch of time say. Gaps and intervals are arrival times, in milliseconds."""

    ticks: int
    endpoints: tuple[str, ...]  # in the order in which they were first heard
    switchover_ms: float | None  # the longest silence between two endpoints; None where all was said at one
    gap_ms: float  # the longest silence of all: also what the host's load did
    gap_before: Tick
    gap_after: Tick
    median_ms: float
    p99_ms: float
    missing: tuple[tuple[int, int], ...]  # (last heard, next heard)
    repeated: tuple[int, ...]
    backward: tuple[tuple[int, int], ...]
    clock_back: tuple[tuple[int, int], ...]  # guest milliseconds that went back although the counter went on

    @property
    def is_whole(self) -> bool:
        """One guest, that was never resumed from an older state and lost no word."""
        return not (self.missing or self.repeated or self.backward or self.clock_back)

    def __str__(self) -> str:
        verdict = (
            "no jump"
            if self.is_whole
            else (
                f"missing {self.missing[:3]}, repeated {self.repeated[:3]}, backward {self.backward[:3]}, clock {self.clock_back[:3]}"
            )
        )
        switchover = "" if self.switchover_ms is None else f" switchover {self.switchover_ms:.0f} ms,"
        return (
            f"{self.ticks} ticks over {' -> '.join(self.endpoints)}:{switchover} longest gap {self.gap_ms:.0f} ms"
            f" at counter {self.gap_before.counter} (ordinary interval: median {self.median_ms:.1f}, p99 {self.p99_ms:.1f} ms); {verdict}"
        )


class Endpoint:
    """One place where the guest may speak.

    `rest` is the begun line, `cut` the one that was begun when it was last closed; `fresh` until the first line since it was opened.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.rest = b""
        self.cut = b""
        self.fresh = True
        self.socket: socket.socket | None = None  # to wait on; None for what must be looked at again and again

    def open(self) -> bool:
        """Tries to open it; True when it is open now."""
        raise NotImplementedError

    def read(self) -> bytes | None:
        """What has arrived (b"" for nothing), or None when the other side is gone."""
        raise NotImplementedError

    def send(self, data: bytes) -> None:
        """Says something to the guest."""
        raise RuntimeError(f"nobody can be spoken to through {self.name}")

    def close(self) -> None:
        """Lets go of it; a later open starts anew."""


class FileTail(Endpoint):
    """A serial port in mode `file`, append=on; source and target may name the same file."""

    def __init__(self, path: Path, name: str = "") -> None:
        super().__init__(name or path.name)
        self._path = path
        self._stream: FileIO | None = None

    def open(self) -> bool:
        if self._stream is None:
            try:
                self._stream = self._path.open("rb", buffering=0)
            except FileNotFoundError:
                return False
        return True

    def read(self) -> bytes | None:
        return self._stream.read(65536) if self._stream else None

    def close(self) -> None:
        if self._stream:
            self._stream.close()
        self._stream = None


class SocketServer(Endpoint):
    """A serial port in mode `server` (a unix socket's path) or `tcpserver` (a loopback port): QEMU listens, we connect, again and again."""

    def __init__(self, address: Path | int, name: str = "") -> None:
        super().__init__(name or str(address))
        self._address = address

    def open(self) -> bool:
        if self.socket:
            return True
        tcp = isinstance(self._address, int)
        candidate = socket.socket(socket.AF_INET if tcp else socket.AF_UNIX)
        try:
            candidate.connect(("127.0.0.1", self._address) if tcp else str(self._address))
        except (FileNotFoundError, ConnectionError):
            candidate.close()
            return False
        candidate.setblocking(False)
        self.socket, self.fresh = candidate, True
        return True

    def read(self) -> bytes | None:
        assert self.socket
        try:
            return self.socket.recv(65536) or None
        except BlockingIOError:
            return b""
        except ConnectionError:
            return None

    def send(self, data: bytes) -> None:
        if not self.socket:
            raise RuntimeError(f"nobody listens at {self.name}")
        self.socket.sendall(data)

    def close(self) -> None:
        if self.socket:
            self.socket.close()
            # Only over a begun line: who ends may accept one more connection (a QEMU's listener outlives its client) and say nothing
            # on it, and the head that waits for its tail is the one of the connection before.
            self.cut, self.rest = self.rest or self.cut, b""
        self.socket = None


class Ticker:
    """Listens to any number of endpoints in a thread of its own. A context manager."""

    def __init__(self, *endpoints: Endpoint) -> None:
        self._selector = selectors.DefaultSelector()
        self._endpoints: list[Endpoint] = []
        self._heard = threading.Condition()
        self._ticks: list[Tick] = []
        self._looks = 0
        self._lines: list[Line] = []
        self._active: Endpoint | None = None
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._listen, name="ticker", daemon=True)
        for endpoint in endpoints:
            self.add(endpoint)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join()
        for endpoint in self._endpoints:
            endpoint.close()
        self._selector.close()

    def add(self, endpoint: Endpoint) -> None:
        """Listens there too, from when it can be opened."""
        with self._heard:
            self._endpoints.append(endpoint)

    @property
    def active(self) -> str:
        """The endpoint that ticked last."""
        with self._heard:
            return self._active.name if self._active else ""

    @property
    def last_tick(self) -> Tick | None:
        """The newest tick."""
        with self._heard:
            return self._ticks[-1] if self._ticks else None

    def settled_tick(self) -> Tick | None:
        """The newest tick of a guest that was stopped, once all that it had said was read: two whole looks brought nothing new."""
        while True:
            with self._heard:
                before, seen = len(self._ticks), self._looks
                deadline = time.monotonic() + 10
                while self._looks < seen + 2:
                    self._wait(deadline, "the listener does not look")
                if len(self._ticks) == before:
                    return self._ticks[-1] if self._ticks else None

    def lines(self, pattern: str = "", after: int = 0) -> list[Line]:
        """The lines that are not ticks, those that match `pattern` from their start; `after` as `mark` gave it."""
        with self._heard:
            return [line for line in self._lines[after:] if re.match(pattern, line.text)]

    def mark(self) -> int:
        """A place in the lines, for `wait_for` and `lines`."""
        with self._heard:
            return len(self._lines)

    def send(self, command: str) -> None:
        """A command line to the guest, where it runs now (where it ticked last, else the first place that is open)."""
        with self._heard:
            target = self._active or next((e for e in self._endpoints if e.open()), None)
        if target is None:
            raise RuntimeError("the guest has not been heard yet")
        target.send(command.encode() + b"\n")

    def wait_for(self, pattern: str, timeout_seconds: float, after: int = 0) -> re.Match[str]:
        """The first line from `after` on that matches `pattern` whole. TimeoutError tells what was heard instead."""
        compiled = re.compile(pattern)
        deadline = time.monotonic() + timeout_seconds
        with self._heard:
            position = after
            while True:
                for line in self._lines[position:]:
                    if match := compiled.fullmatch(line.text):
                        return match
                position = len(self._lines)
                self._wait(deadline, f"no line {pattern!r}")

    def wait_for_tick(self, timeout_seconds: float, *, endpoint: str = "", after_counter: int = -1, count: int = 1) -> Tick:
        """Waits until `count` more ticks with a counter above `after_counter` were heard (at `endpoint`), and returns the last one."""
        deadline = time.monotonic() + timeout_seconds
        with self._heard:
            position, seen = 0, 0
            while True:
                for tick in self._ticks[position:]:
                    if tick.counter > after_counter and endpoint in ("", tick.endpoint):
                        seen += 1
                        if seen >= count:
                            return tick
                position = len(self._ticks)
                self._wait(deadline, f"no tick beyond {after_counter} at {endpoint or 'any endpoint'}")

    def continuity(self, since_seconds: float = 0.0, until_seconds: float = float("inf")) -> Continuity:
        """Judges the ticks that arrived between two times of time.monotonic(), and the one before. ValueError for fewer than two."""
        with self._heard:
            arrivals = [tick.arrival_seconds for tick in self._ticks]
            # A silence that begins right at the start is one too: from the last tick before it.
            begin, end = bisect.bisect_left(arrivals, since_seconds), bisect.bisect_right(arrivals, until_seconds)
            return judge(self._ticks[max(0, begin - 1) : end])

    def _wait(self, deadline: float, what: str) -> None:
        if self._failure:
            raise RuntimeError("the listener failed") from self._failure
        if time.monotonic() >= deadline or not self._thread.is_alive():
            last = self._ticks[-1] if self._ticks else None
            raise TimeoutError(f"{what}; last tick {last}; last lines {[line.text for line in self._lines[-8:]]}")
        self._heard.wait(max(0.001, min(0.5, deadline - time.monotonic())))

    def _listen(self) -> None:
        try:
            while not self._stopping.is_set():
                self._turn()
                with self._heard:
                    self._looks += 1
                    self._heard.notify_all()
        except BaseException as error:
            with self._heard:
                self._failure = error
                self._heard.notify_all()
            raise

    def _turn(self) -> None:
        with self._heard:
            endpoints = list(self._endpoints)
        registered = {key.data for key in self._selector.get_map().values()}
        polled = False
        for endpoint in endpoints:
            if not endpoint.open() or endpoint.socket is None:
                polled = True
            elif endpoint not in registered:
                self._selector.register(endpoint.socket, selectors.EVENT_READ, endpoint)
        ready = {key.data for key, _ in self._selector.select(_POLL_SECONDS if polled else 0.1)}
        arrival = time.monotonic()
        ready |= {endpoint for endpoint in endpoints if endpoint.socket is None and endpoint.open()}
        # If both sides of a switchover are ready at once, the one that ran until now spoke first.
        for endpoint in sorted(ready, key=lambda each: each is not self._active):
            data = endpoint.read()
            if data is None:
                if endpoint.socket:
                    self._selector.unregister(endpoint.socket)
                endpoint.close()
            elif data:
                self._take(endpoint, data, arrival)

    def _take(self, endpoint: Endpoint, data: bytes, arrival: float) -> None:
        *complete, rest = (endpoint.rest + data).split(b"\n")
        with self._heard:
            for raw in complete:
                self._take_line(endpoint, raw.decode(errors="replace").rstrip("\r"), arrival)
                endpoint.fresh, endpoint.cut = False, b""  # it speaks again: nothing that it said before is still to be ended
            endpoint.rest = rest
            self._heard.notify_all()

    def _take_line(self, endpoint: Endpoint, text: str, arrival: float) -> None:
        match = TICK.fullmatch(text)
        if endpoint.fresh and not match:
            match = self._joined(text)
        if match:
            self._active = endpoint
            self._ticks.append(Tick(arrival, endpoint.name, int(match[1]), int(match[2])))
        elif text:
            self._lines.append(Line(arrival, endpoint.name, text))

    def _joined(self, tail: str) -> re.Match[str] | None:
        """The next tick, if `tail` ends a line whose head was said elsewhere before the switchover."""
        heads = [head for each in self._endpoints for head in (each.rest, each.cut) if head]
        for head in heads:
            match = TICK.fullmatch(head.decode(errors="replace") + tail)
            if match and self._ticks and int(match[1]) == self._ticks[-1].counter + 1:
                return match
        return None


def judge(ticks: Iterable[Tick]) -> Continuity:
    """Judges ticks in the order of their arrival. ValueError for fewer than two."""
    ordered = list(ticks)
    pairs = list(itertools.pairwise(ordered))
    if not pairs:
        raise ValueError("fewer than two ticks were heard")
    seen: set[int] = set()
    repeated = []
    for tick in ordered:
        if tick.counter in seen:
            repeated.append(tick.counter)
        seen.add(tick.counter)
    intervals = sorted((b.arrival_seconds - a.arrival_seconds) * 1000 for a, b in pairs)
    before, after = max(pairs, key=lambda pair: pair[1].arrival_seconds - pair[0].arrival_seconds)
    switchovers = [(b.arrival_seconds - a.arrival_seconds) * 1000 for a, b in pairs if a.endpoint != b.endpoint]
    return Continuity(
        ticks=len(ordered),
        endpoints=tuple(dict.fromkeys(tick.endpoint for tick in ordered)),
        switchover_ms=max(switchovers) if switchovers else None,
        gap_ms=intervals[-1],
        gap_before=before,
        gap_after=after,
        median_ms=statistics.median(intervals),
        p99_ms=intervals[int(len(intervals) * 0.99)] if len(intervals) > 1 else intervals[0],
        missing=tuple((a.counter, b.counter) for a, b in pairs if b.counter > a.counter + 1),
        repeated=tuple(repeated),
        backward=tuple((a.counter, b.counter) for a, b in pairs if b.counter < a.counter),
        clock_back=tuple((a.guest_ms, b.guest_ms) for a, b in pairs if b.counter > a.counter and b.guest_ms < a.guest_ms),
    )
