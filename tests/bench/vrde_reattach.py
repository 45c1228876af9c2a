"""How soon a connected viewer sees the guest again: `.venv/bin/python -m tests.bench.vrde_reattach [--moves 6] [--limit-ms 500]`.

Real teleports of the counter guest, there and back, on one host (plans shared and raw in turn) and between two network namespaces
(needs root), with xfreerdp and rdesktop connected all the time. A picture of the counter is taken every 5 ms. Measured is from the
moment when the target had its guest continued, as its runner logs it, to the first change after the front's switch; the counter itself
changes every 55 ms. Exits 1 when one took longer than the limit.
"""

import argparse
import contextlib
import statistics
import sys
import threading
import time
from datetime import datetime
from types import TracebackType
from typing import Self

from tests.harness.home import end_on_sigterm
from tests.harness.host import Host
from tests.harness.namespaces import Cable
from tests.integration.test_display import Pair, ended
from tests.integration.vrde.desk import COUNTER, Viewer, rdesktop, xfreerdp

LOOK_SECONDS = 0.005


class Watcher:
    """Notes when the counter in a viewer's window changes, in a thread of its own. A context manager."""

    def __init__(self, viewer: Viewer) -> None:
        self.changes_ms: list[float] = []  # of the day's clock, as the logs have it
        self._viewer = viewer
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        last = b""
        while not self._done.wait(LOOK_SECONDS):
            picture = self._viewer.x.image(*COUNTER)
            if picture != last:
                self.changes_ms.append(time.time() * 1e3)
            last = picture

    def first_change_ms(self, after_ms: float) -> float:
        """The first one after that time."""
        return next(at for at in self.changes_ms if at > after_ms)


def logged_ms(host: Host, line: str) -> float:
    """When this host's runner last logged `line`: milliseconds of the day's clock, which both have."""
    log = (host.home.folder / "machines" / host.name / "logs/teleport.log").read_text()
    stamp = [each[:23] for each in log.splitlines() if line in each][-1]
    return datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S,%f").timestamp() * 1000


def switched_ms(*hosts: Host) -> float:
    """When a front, which logs where one of these hosts does, last put the guest's new place behind its viewers: what they see from then
    on comes from there."""
    found = []
    for host in hosts:
        with contextlib.suppress(IndexError):  # it has logged none yet
            found.append(logged_ms(host, "viewers switched in"))
    return max(found)


def moves(pair: Pair, near: tuple[str, ...], arguments: argparse.Namespace, *, far: bool) -> list[float]:
    """Teleports there and back; the milliseconds of each move and viewer. Printed too."""
    port = pair.start()
    front_of = (pair.here,) if far else (pair.here, pair.there)  # between hosts it stays where it is
    viewers = [
        pair.view(*near, *xfreerdp(port)),
        pair.view(*near, *rdesktop(port), stdin=b"yes\n"),
    ]
    found = []
    for number in range(arguments.moves):
        options = ("--insecure",) if far else ()
        address = ("10.77.0.2", "10.77.0.1")[number % 2] if far else "localhost"
        teleporter = pair.there.wait_for_teleport(*options)
        plan = "raw" if far else ("shared", "raw")[number // 2 % 2]
        with Watcher(viewers[0]) as first, Watcher(viewers[1]) as second:
            outcome = pair.here.teleport(teleporter, "--plan", plan, *options, host=address)
            time.sleep(1)
        resumed, switched = logged_ms(pair.there, "claimed → started"), switched_ms(*front_of)
        seen = [each.first_change_ms(switched) - resumed for each in (first, second)]
        print(
            f"{'two hosts' if far else 'one host'}, {plan}: paused {outcome['downtime_ms']:.0f} ms; switched after"
            f" {switched - resumed:.0f} ms, seen again after {seen[0]:.0f} ms (xfreerdp), {seen[1]:.0f} ms (rdesktop)",
            flush=True,
        )
        found += seen
        pair.swap()
    return found


def main() -> int:
    """Runs it and cleans up."""
    end_on_sigterm()
    parser = argparse.ArgumentParser(description="From the resume at the target to the first new pixels at a viewer.")
    parser.add_argument("--moves", type=int, default=6, help="teleports on one host, and as many between two (6)")
    parser.add_argument("--limit-ms", type=float, default=500, help="the longest that is not called wrong (500)")
    arguments = parser.parse_args()
    found = []
    for far in (False, True):
        with Cable() if far else contextlib.nullcontext() as cable:
            enter = (cable.near.enter, cable.far.enter) if cable else ()
            with ended(Pair(*enter)) as pair:
                found += moves(pair, enter[0] if enter else (), arguments, far=far)
    print(
        f"{len(found)} times: median {statistics.median(found):.0f} ms, longest {max(found):.0f} ms (limit {arguments.limit_ms:.0f})"
    )
    return 1 if max(found) > arguments.limit_ms else 0


if __name__ == "__main__":
    sys.exit(main())
