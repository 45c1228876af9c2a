"""How many bytes of one channel may be in flight: a window that follows what the path carries.

In flight is what was sent and not yet handed to the peer's QEMU, wherever it waits (gRPC hides its sockets). All of it becomes
downtime at the switchover, so it should be little: what the path carries in its own round trip, and QUEUE_SECONDS of its rate.
A window of W on a path of rate r and round trip t gives r = W / t while W is too small, so that W := r * (t + QUEUE_SECONDS) grows
until a queue of QUEUE_SECONDS stands, and shrinks when the path gets slower. The shortest round trip seen stands for t.
"""

from collections import deque

FIRST_BYTES = 4 << 20
FLOOR_BYTES = 1 << 20
CEILING_BYTES = 16 << 20
QUEUE_SECONDS = 0.03
_SAMPLE_SECONDS = 0.1
_MARK_BYTES = 64 << 10  # a round trip is measured about once in so many bytes


class CreditWindow:
    """Told what was sent and acknowledged (offsets in bytes, times in monotonic seconds); `bytes` is the window now."""

    def __init__(
        self, *, first_bytes: int = FIRST_BYTES, floor_bytes: int = FLOOR_BYTES, ceiling_bytes: int = CEILING_BYTES
    ) -> None:
        self.bytes = first_bytes
        self._floor_bytes = floor_bytes
        self._ceiling_bytes = ceiling_bytes
        self._sent_bytes = 0
        self._acknowledged_bytes = 0
        self._marks: deque[tuple[int, float]] = deque()
        self._round_trip_seconds = float("inf")
        self._was_full = False
        self.holds_back = False  # the last answer of `room_bytes` was 0
        self._sample_from: tuple[int, float] | None = None

    @property
    def in_flight_bytes(self) -> int:
        """Sent and not acknowledged."""
        return self._sent_bytes - self._acknowledged_bytes

    def room_bytes(self, *, worth_bytes: int = 1) -> int:
        """How much may be sent now: 0, or at least `worth_bytes` (of a small window half of it).

        0 is noted: only a sender who was held back has measured the path.
        """
        room = self.bytes - self.in_flight_bytes
        self.holds_back = room < min(worth_bytes, self.bytes // 2)
        if self.holds_back:
            self._was_full = True
            return 0
        return room

    def sent(self, count: int, now_seconds: float) -> None:
        """`count` more bytes are on their way."""
        if not count:
            return
        if self._sample_from is None or not self.in_flight_bytes:
            self._sample_from = (self._acknowledged_bytes, now_seconds)  # an idle path measures nothing
            self._was_full = False
        self._sent_bytes += count
        if not self._marks or self._sent_bytes - self._marks[-1][0] >= _MARK_BYTES:
            self._marks.append((self._sent_bytes, now_seconds))

    def acknowledged(self, offset: int, now_seconds: float) -> None:
        """Everything before `offset` has been handed to the peer's QEMU. Raises ValueError beyond what was sent; older news is ignored."""
        if offset > self._sent_bytes:
            raise ValueError("acknowledges more than was sent")
        if offset <= self._acknowledged_bytes:
            return
        self._acknowledged_bytes = offset
        while self._marks and self._marks[0][0] <= offset:
            self._round_trip_seconds = min(self._round_trip_seconds, now_seconds - self._marks.popleft()[1])
        self._adapt(now_seconds)

    def _adapt(self, now_seconds: float) -> None:
        if self._sample_from is None:
            return
        from_bytes, since = self._sample_from
        elapsed = now_seconds - since
        if elapsed < _SAMPLE_SECONDS:
            return
        if self._was_full and self._round_trip_seconds != float("inf"):
            rate = (self._acknowledged_bytes - from_bytes) / elapsed
            wanted = int(rate * (self._round_trip_seconds + QUEUE_SECONDS))
            # by halves and doubles at most: one odd sample must not throw it
            wanted = max(self.bytes // 2, min(self.bytes * 2, wanted))
            self.bytes = max(self._floor_bytes, min(self._ceiling_bytes, wanted))
        self._sample_from = (self._acknowledged_bytes, now_seconds)
        self._was_full = False
