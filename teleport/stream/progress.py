"""What a person is told while memory moves: one percentage that never goes back, rates, and whether it converges. Pure."""

from dataclasses import dataclass

from teleport.model import MigrationInfo, Progress, Stage

_CHECKED_PERCENT = 5
_COPIED_PERCENT = 95
_SMOOTHING = 0.4  # weight of the newest rate: fast enough to show a change, slow enough to read


@dataclass(frozen=True)
class Gauge:
    """What the last look left behind: feed it to `advance` with the next one."""

    percent: int = 0
    seen_at_seconds: float = 0.0
    seen_bytes: int = 0
    rate_bytes_per_second: float = 0.0


def advance(gauge: Gauge, info: MigrationInfo, *, now_seconds: float, sent_bytes: int, plan: str) -> tuple[Gauge, Progress]:
    """The next line of progress from QEMU's figures (`info`) and the bytes that went to the wire, at a monotonic time.

    A round's pages are dirtied again while they are sent, so that what remains goes up and down: the percentage is of the memory
    that is already there and only ever moves forward. Not converging: the guest dirties memory at least as fast as it is sent,
    and the first round is over.
    """
    elapsed = now_seconds - gauge.seen_at_seconds
    rate = gauge.rate_bytes_per_second
    if gauge.seen_at_seconds and elapsed > 0:
        fresh = (sent_bytes - gauge.seen_bytes) / elapsed
        rate = fresh if not rate else rate + _SMOOTHING * (fresh - rate)
    done = 1 - info.remaining_bytes / info.total_bytes if info.total_bytes else 0.0
    percent = max(gauge.percent, int(_CHECKED_PERCENT + (_COPIED_PERCENT - _CHECKED_PERCENT) * max(0.0, min(1.0, done))))
    dirty = float(info.dirty_pages_per_second * info.page_bytes)
    converging = info.rounds < 2 or not rate or dirty < rate
    eta = info.remaining_bytes / (rate - dirty) if converging and rate > dirty else None
    progress = Progress(
        stage=Stage.COPYING,
        percent=percent,
        round=info.rounds,
        sent_bytes=sent_bytes,
        remaining_bytes=info.remaining_bytes,
        rate_bytes_per_second=rate,
        dirty_bytes_per_second=dirty,
        eta_seconds=eta,
        converging=converging,
        plan=plan,
    )
    return Gauge(percent, now_seconds, sent_bytes, rate), progress


@dataclass(frozen=True)
class DowntimeSteps:
    """Which downtime limit QEMU is given: short first, longer only when the guest keeps memory busy, never above what was allowed."""

    first_ms: int = 50
    allowed_ms: int = 250
    rounds_per_step: int = 3

    def limit_ms(self, rounds: int) -> int:
        """The limit after `rounds` precopy rounds: 50 ms cost little time and cut the gap from ~320 to ~60 ms (architecture.md)."""
        first = min(self.first_ms, self.allowed_ms)
        doublings = max(0, rounds - 2) // self.rounds_per_step
        return min(self.allowed_ms, first << min(doublings, 12))


def describe(event: Progress, *, percent: bool = True) -> str:
    """One look in words: stage and round, bytes, rate, dirty rate, remaining, when it ends or that it does not converge."""
    words = [f"copying, round {event.round}" if event.stage is Stage.COPYING and event.round else event.stage.value]
    if event.sent_bytes:
        words.append(f"{_size(event.sent_bytes)} sent")
    if event.rate_bytes_per_second:
        words.append(f"{_size(event.rate_bytes_per_second)}/s")
    if event.dirty_bytes_per_second:
        words.append(f"guest writes {_size(event.dirty_bytes_per_second)}/s")
    if event.remaining_bytes:
        words.append(f"{_size(event.remaining_bytes)} left")
    if not event.converging:
        words.append("does not converge: allow a longer --maxdowntime, or cancel")
    elif event.eta_seconds is not None and event.stage is Stage.COPYING:
        words.append(f"about {event.eta_seconds:.0f} s")
    return (f"{event.percent:3d}% " if percent else "") + ", ".join(words)


def _size(count_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count_bytes < 1000:
            return f"{count_bytes:.0f} {unit}"
        count_bytes /= 1000
    return f"{count_bytes:.1f} TB"
