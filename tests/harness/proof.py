"""One teleport and all that must be true of it, judged from outside: for the demo, the tests and the long runs alike."""

import time
from dataclasses import dataclass
from typing import Any

from tests.harness.guest import Check, GuestConsole
from tests.harness.host import Host
from tests.harness.ticker import Continuity

_WORK_SECONDS = 20.0  # the slowest load rewrites a megabyte in one


class WrongError(Exception):
    """Something that was to be shown is not so."""


@dataclass(frozen=True)
class Move:
    """One teleport as seen from outside (`continuity`, `seconds` of the whole command), and its `outcome` by `--json`."""

    source: str
    target: str
    seconds: float
    continuity: Continuity
    outcome: dict[str, Any]
    process: int
    check: Check
    disk_sequence: int

    @property
    def gap_ms(self) -> float:
        """The guest's silence from its last word at the source to its first at the target, as they arrived outside."""
        assert self.continuity.switchover_ms is not None
        return self.continuity.switchover_ms


def demand(true: bool, otherwise: str) -> None:
    """Raises WrongError(otherwise) unless `true`."""
    if not true:
        raise WrongError(otherwise)


def proven_move(
    source: Host,
    target: Host,
    console: GuestConsole,
    before: Check,
    *,
    options: tuple[str, ...] = (),
    host: str = "localhost",
    max_gap_ms: float = 3000,
) -> Move:
    """Lets the target wait, teleports, and demands: one guest that goes on counting, in one process, its memory and disk whole.

    `before` is the guest's last check, and `console` listens to both hosts.
    """
    port = target.wait_for_teleport()
    demand(target.state == "teleportingin", f"{target.name} does not wait for a teleport but is {target.state}")
    counter = console.last_tick.counter if console.last_tick else 0
    begun = time.monotonic()
    outcome = source.teleport(port, *options, host=host)
    seconds = time.monotonic() - begun
    console.wait_for_tick(30, endpoint=target.name, after_counter=counter, count=100)
    continuity = console.continuity(begun)
    demand(continuity.is_whole, f"the guest's counter: {continuity}")
    demand(continuity.endpoints == (source.name, target.name), f"ticks came from {continuity.endpoints}")
    demand(continuity.gap_ms <= max_gap_ms, f"the guest was silent for {continuity.gap_ms:.0f} ms, allowed {max_gap_ms:.0f}")
    process = only_process(source, target)
    demand(process == outcome["target_qemu_pid"], f"process {process} runs it, but --json says {outcome['target_qemu_pid']}")
    demand(target.state == "running", f"{target.name} is {target.state}")
    check = console.check(f"at-{target.name}", timeout_seconds=180)
    demand(check.ok, f"the guest found its memory changed: {check.bad}")
    demand(check.digest == before.digest, f"resident memory: {before.digest} before, {check.digest} after")
    # A whole megabyte may be more than it had time for: then it is asked again, and must have gone on.
    deadline = time.monotonic() + _WORK_SECONDS
    while check.ok and check.written_mb <= before.written_mb and time.monotonic() < deadline:
        check = console.check(f"at-{target.name}", timeout_seconds=180)
    demand(check.ok and check.written_mb > before.written_mb, "the guest did no work meanwhile")
    demand(not console.corruption, f"the guest found corruption: {console.corruption}")
    disk_sequence = console.disk()
    demand(console.net(), "the guest's gateway does not answer")
    return Move(source.name, target.name, seconds, continuity, outcome, process, check, disk_sequence)


def only_process(source: Host, target: Host) -> int:
    """The one QEMU that runs the guest now, by /proc and not by anybody's word."""
    running = target.home.qemus()
    others = [pid for pid in source.home.qemus() if pid not in running]
    demand(not others, f"{source.name} still has a QEMU: {others}")
    demand(len(running) == 1, f"{target.name} has {len(running)} QEMUs")
    return running[0]
