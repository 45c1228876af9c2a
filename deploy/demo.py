"""The demonstration that deploy/demo runs once all is set up. Two state folders on this machine play two hosts, S's and T's.

What it reports comes from outside of Teleport wherever it can: the guest's silence from the arrival times of its ticks on the serial
line, its memory from the guest's own checksums, its counter from the ticks, the process from /proc. Only what just Teleport can know
(bytes sent, its own time from the pause to `cont`) is taken from `--json`.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.harness.guest import Check, GuestConsole, Load
from tests.harness.home import CommandFailedError, Home, end_on_sigterm
from tests.harness.host import Host
from tests.harness.proof import Move, WrongError, demand, proven_move
from tests.harness.session import new_folder
from tests.harness.ticker import Continuity


def say(line: str) -> None:
    """Prints at once, also into a pipe."""
    print(line, flush=True)


def report(before: Check, moves: Sequence[Move], whole: Continuity, corruption: Sequence[str]) -> None:
    """What happened, for a sceptic."""
    print("\nReport")
    rows = [("", *(f"{each.source} -> {each.target}" for each in moves))]
    rows.append(("data path", *(str(each.outcome.get("plan", "")) for each in moves)))
    rows.append(("total time, the whole command", *(f"{each.seconds:.2f} s" for each in moves)))
    rows.append(("guest's gap at the switchover, from outside", *(f"{each.gap_ms:.0f} ms" for each in moves)))
    rows.append(("longest gap in the whole command", *(f"{each.continuity.gap_ms:.0f} ms" for each in moves)))
    rows.append(("  at its counter", *(f"{each.continuity.gap_before.counter}" for each in moves)))
    rows.append(("  ordinary tick interval, median / p99", *(_ordinary(each.continuity) for each in moves)))
    rows.append(("switchover by Teleport's clock", *(f"{float(each.outcome['downtime_ms']):.0f} ms" for each in moves)))
    rows.append(("bytes moved", *(f"{int(each.outcome['sent_bytes']):,}" for each in moves)))
    rows.append(("memory by the guest's own check", *(f"{'ok' if each.check.ok else 'BAD'}" for each in moves)))
    rows.append((f"  resident digest ({before.digest[:8]}... before)", *(f"{each.check.digest[:8]}..." for each in moves)))
    rows.append(("  rewritten so far (verified each pass)", *(f"{each.check.written_mb} MB" for each in moves)))
    rows.append(("disk: write, fsync, read back", *(f"ok, number {each.disk_sequence}" for each in moves)))
    rows.append(("process that runs it then", *(f"{each.process}" for each in moves)))
    for label, *cells in rows:
        print(f"  {label:<44}{''.join(f'{cell:<22}' for cell in cells)}".rstrip())
    print(
        f"  the guest's count from first to last: {whole.ticks:,} ticks, {'no jump, none twice' if whole.is_whole else whole}"
    )
    print(f"  corruption that the guest found by itself: {'; '.join(corruption) or 'none'}")


def _ordinary(seen: Continuity) -> str:
    return f"{seen.median_ms:.1f} / {seen.p99_ms:.1f} ms"


def demonstrate(hosts: tuple[Host, Host], folder: Path, arguments: argparse.Namespace) -> None:
    """Everything from the definitions to the report."""
    first, second = hosts
    load = Load(resident_mb=arguments.resident, rewrite_mb=64, dirty_mb_s=40, disk=True)
    for host in hosts:
        host.define(load=load, memory_mb=arguments.memory, disk=folder / "disk.qcow2")
    with GuestConsole(*(host.endpoint for host in hosts)) as console:
        first.start()
        say("   (the guest boots and fills its memory)")
        console.wait_ready(180)
        say(f"   (it runs {console.run('uname -sr')}; it checks all of its memory)")
        before = console.check("before", timeout_seconds=180)
        demand(before.ok, f"the guest's memory was wrong before it moved: {before.bad}")
        options = ("--plan", arguments.plan, *(["--verify-ram"] if arguments.verify_ram else []))
        there = proven_move(first, second, console, before, options=options, max_gap_ms=arguments.max_gap_ms)
        say("   (it arrived; the guest has checked all of its memory)")
        back = proven_move(second, first, console, there.check, options=options, max_gap_ms=arguments.max_gap_ms)
        whole, corruption = console.continuity(), console.corruption
        report(before, (there, back), whole, corruption)
        demand(whole.is_whole, f"the guest's counter: {whole}")
        demand(not corruption, f"the guest found corruption: {corruption}")
        first.run("controlvm", first.name, "poweroff")
    for host in hosts:
        left = host.home.leftovers()
        demand(not left, f"{host.name} left behind: {left}")


def main() -> int:
    """Runs it, and cleans up whatever happened."""
    parser = argparse.ArgumentParser(prog="deploy/demo", description="A running guest teleports from S to T and back.")
    parser.add_argument("--memory", type=int, default=1024, help="the guest's RAM in MB (1024)")
    parser.add_argument(
        "--resident", type=int, default=600, help="MB of it that the guest fills and checks (600; 64 more it rewrites)"
    )
    parser.add_argument("--plan", default="auto", help="data path: auto, shared, raw (auto)")
    parser.add_argument(
        "--verify-ram", action="store_true", help="also hash all RAM in the pause on both sides (lengthens the gap)"
    )
    parser.add_argument("--max-gap-ms", type=float, default=1000, help="longest silence that is not called wrong (1000)")
    arguments = parser.parse_args()
    end_on_sigterm()
    os.environ.setdefault("TELEPORT_ACCELERATOR", "tcg")
    folder = new_folder("demo-")
    hosts: list[Host] = []
    try:
        hosts += [Host(name, Home(name.lower()), announce=say) for name in "ST"]
        for host in hosts:
            print(
                f"{host.name}$ export TELEPORT_HOME={host.home.folder} TELEPORT_ACCELERATOR={os.environ['TELEPORT_ACCELERATOR']}"
            )
        demonstrate((hosts[0], hosts[1]), folder, arguments)
        print("Everything above was checked and is as it should be.")
        return 0
    except (WrongError, CommandFailedError, TimeoutError, RuntimeError) as error:
        print(f"\ndemo: WRONG: {error}", file=sys.stderr)
        for host in hosts:
            print(host.home.logs(), file=sys.stderr)
        return 1
    finally:
        for host in hosts:
            host.home.end()
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
