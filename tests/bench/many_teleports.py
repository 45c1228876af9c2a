"""One guest that dirties 40 MB/s goes back and forth N times over each plan; every arrival is proved.

    .venv/bin/python -m tests.bench.many_teleports [--runs 100] [--plans shared,raw] [--memory 256] [--verify-ram]

Exits 1 at the first teleport that is not as it should be, with the logs of both hosts.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from tests.harness.guest import GuestConsole, Load
from tests.harness.home import CommandFailedError, Home, end_on_sigterm
from tests.harness.host import Host
from tests.harness.proof import Move, WrongError, demand, proven_move


def many(hosts: tuple[Host, Host], disk: Path, arguments: argparse.Namespace) -> list[Move]:
    """The moves, each proved. Raises WrongError and CommandFailedError."""
    moves: list[Move] = []
    load = Load(resident_mb=arguments.memory // 4, rewrite_mb=arguments.memory // 8, dirty_mb_s=40, disk=True)
    for host in hosts:
        host.define(load=load, memory_mb=arguments.memory, disk=disk)
    with GuestConsole(*(host.endpoint for host in hosts)) as console:
        hosts[0].start()
        console.wait_ready(180)
        check = console.check("before")
        demand(check.ok, f"the guest's memory was wrong before it moved: {check.bad}")
        for plan in arguments.plans.split(","):
            for run in range(arguments.runs):
                source, target = hosts[len(moves) % 2], hosts[(len(moves) + 1) % 2]
                options = ("--plan", plan, *(["--verify-ram"] if arguments.verify_ram else []))
                move = proven_move(source, target, console, check, options=options, max_gap_ms=arguments.max_gap_ms)
                moves.append(move)
                check = move.check
                print(
                    f"{plan} {run + 1}/{arguments.runs}: gap {move.gap_ms:.0f} ms, whole command {move.seconds:.2f} s,"
                    f" downtime {float(move.outcome['downtime_ms']):.0f} ms, {int(move.outcome['sent_bytes']):,} bytes,"
                    f" memory ok after {check.written_mb} MB rewritten",
                    flush=True,
                )
        whole = console.continuity()
        demand(whole.is_whole, f"the guest's counter from first to last: {whole}")
        hosts[(len(moves)) % 2].run("controlvm", hosts[len(moves) % 2].name, "poweroff")
    for host in hosts:
        left = host.home.leftovers()
        demand(not left, f"{host.name} left behind: {left}")
    return moves


def main() -> int:
    """Runs it and cleans up."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.many_teleports")
    parser.add_argument("--runs", type=int, default=100, help="teleports over each plan (100)")
    parser.add_argument("--plans", default="shared,raw")
    parser.add_argument("--memory", type=int, default=256, help="the guest's RAM in MB (256)")
    parser.add_argument("--verify-ram", action="store_true", help="also hash all RAM in the pause on both sides")
    parser.add_argument("--max-gap-ms", type=float, default=2000)
    arguments = parser.parse_args()
    end_on_sigterm()
    hosts = (Host("S", Home("s")), Host("T", Home("t")))
    try:
        with tempfile.TemporaryDirectory(prefix="many-", dir="/tmp") as folder:
            moves = many(hosts, Path(folder) / "disk.qcow2", arguments)
        for plan in arguments.plans.split(","):
            gaps = [move.gap_ms for move in moves if move.outcome.get("plan") == plan]
            if gaps:
                print(
                    f"{plan}: {len(gaps)} of {arguments.runs} proved; gap median {statistics.median(gaps):.0f}, max {max(gaps):.0f} ms"
                )
        return 0
    except (WrongError, CommandFailedError, TimeoutError, RuntimeError) as error:
        print(f"WRONG: {error}", file=sys.stderr)
        for host in hosts:
            print(host.home.logs(), file=sys.stderr)
        return 1
    finally:
        for host in hosts:
            host.home.end()


if __name__ == "__main__":
    sys.exit(main())
