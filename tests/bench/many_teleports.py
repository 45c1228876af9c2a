"""One guest that dirties 40 MB/s goes there and back, N times over both plans; every arrival is proved.

    deploy/soak [--runs 100] [--plans shared,raw] [--memory 256] [--no-verify-ram] [--json FILE]

Each time: one process runs it, its counter did not jump, all of its RAM and video memory was the same at both ends bit for bit
(hashed in the pause), the guest's own check of its memory, its disk and its gateway answer. Exits 1 at the first teleport that is
not as it should be, with the logs of both hosts.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.harness.guest import GuestConsole, Load
from tests.harness.home import CommandFailedError, Home, end_on_sigterm
from tests.harness.host import Host
from tests.harness.proof import Move, WrongError, demand, proven_move

DIRTY_MB_S = 40


def many(hosts: tuple[Host, Host], disk: Path, arguments: argparse.Namespace, moves: list[Move]) -> None:
    """Appends the moves to `moves`, each proved. Raises WrongError and CommandFailedError."""
    memory = arguments.memory
    load = Load(resident_mb=memory // 4, rewrite_mb=memory // 8, dirty_mb_s=DIRTY_MB_S, disk=True)
    plans = arguments.plans.split(",")
    for host in hosts:
        host.define(load=load, memory_mb=memory, disk=disk)
    with GuestConsole(*(host.endpoint for host in hosts)) as console:
        hosts[0].start()
        console.wait_ready(300)
        check = console.check("before", timeout_seconds=180)
        demand(check.ok, f"the guest's memory was wrong before it moved: {check.bad}")
        for run in range(arguments.runs):
            plan = plans[run // 2 % len(plans)]  # there and back over each
            source, target = hosts[run % 2], hosts[(run + 1) % 2]
            options = ("--plan", plan, *([] if arguments.no_verify_ram else ["--verify-ram"]))
            move = proven_move(source, target, console, check, options=options, max_gap_ms=arguments.max_gap_ms)
            demand(move.outcome["plan"] == plan, f"it went by plan {move.outcome['plan']}")
            demand(arguments.no_verify_ram or bool(move.outcome["ram_verified"]), "RAM was not verified")
            moves.append(move)
            check = move.check
            print(
                f"{run + 1:4}/{arguments.runs} {plan:6} gap {move.gap_ms:5.0f} ms, switchover {move.outcome['downtime_ms']:5.0f} ms,"
                f" {move.outcome['sent_bytes'] / 1e6:7.1f} MB, command {move.seconds:5.2f} s; RAM {move.outcome['ram_verified'][:8]},"
                f" guest ok after {check.written_mb} MB rewritten",
                flush=True,
            )
        whole = console.continuity()
        demand(whole.is_whole, f"the guest's counter from first to last: {whole}")
        hosts[arguments.runs % 2].run("controlvm", hosts[arguments.runs % 2].name, "poweroff")
    for host in hosts:
        left = host.home.leftovers()
        demand(not left, f"{host.name} left behind: {left}")


def report(moves: list[Move], arguments: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """What came of it, also as printed."""
    print(f"\n{len(moves)} of {arguments.runs} teleports proved in {seconds:.0f} s")
    result: dict[str, Any] = {"runs": arguments.runs, "proved": len(moves), "seconds": seconds, "plans": {}}
    for plan in arguments.plans.split(","):
        of_plan = [move for move in moves if move.outcome["plan"] == plan]
        if not of_plan:
            continue
        gaps = sorted(move.gap_ms for move in of_plan)
        switchovers = sorted(float(move.outcome["downtime_ms"]) for move in of_plan)
        result["plans"][plan] = {"runs": len(of_plan), "gap_ms": gaps, "switchover_ms": switchovers}
        print(
            f"  {plan:6} {len(of_plan):3} teleports; gap from outside: median {statistics.median(gaps):.0f}, max {gaps[-1]:.0f} ms;"
            f" switchover: median {statistics.median(switchovers):.0f}, max {switchovers[-1]:.0f} ms"
        )
    if moves:
        result["rewritten_mb"] = moves[-1].check.written_mb
        print(f"  the guest rewrote {moves[-1].check.written_mb:,} MB of its memory meanwhile, each pass verified")
    if not arguments.no_verify_ram:
        print("  (the gaps hold the hashing of all RAM at both ends)")
    return result


def main() -> int:
    """Runs it and cleans up."""
    end_on_sigterm()
    parser = argparse.ArgumentParser(prog="deploy/soak", description="Many teleports of one guest, each proved.")
    parser.add_argument("--runs", type=int, default=100, help="teleports in all (100)")
    parser.add_argument("--plans", default="shared,raw", help="data paths, there and back over each in turn (shared,raw)")
    parser.add_argument("--memory", type=int, default=256, help="the guest's RAM in MB (256)")
    parser.add_argument("--no-verify-ram", action="store_true", help="don't hash all RAM in the pause on both sides")
    parser.add_argument("--max-gap-ms", type=float, default=10_000, help="longest silence that is not called wrong (10 s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there too")
    arguments = parser.parse_args()
    hosts = (Host("S", Home("s")), Host("T", Home("t")))
    moves: list[Move] = []
    begun = time.monotonic()
    wrong = ""
    try:
        with tempfile.TemporaryDirectory(prefix="many-", dir="/tmp") as folder:
            many(hosts, Path(folder) / "disk.qcow2", arguments, moves)
    except (WrongError, CommandFailedError, TimeoutError, RuntimeError) as error:
        wrong = str(error)
        for host in hosts:
            print(host.home.logs(), file=sys.stderr)
    finally:
        for host in hosts:
            host.home.end()
    result = report(moves, arguments, time.monotonic() - begun)
    if arguments.json:
        arguments.json.write_text(json.dumps({**result, "wrong": wrong}, indent=2) + "\n")
    if wrong:
        print(f"WRONG at teleport {len(moves) + 1}: {wrong}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
