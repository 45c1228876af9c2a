"""The demonstration that deploy/demo runs once all is set up. Two state folders on this machine play two hosts, S's and T's.

What it reports comes from outside of Teleport wherever it can: the guest's silence from the arrival times of its ticks on the serial
line, its memory from the guest's own checksums, its counter from the ticks, the process from /proc. Only what just Teleport can know
(bytes sent, its own time from the pause to `cont`) is taken from `--json`.
"""

import argparse
import json
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness.guest import Check, GuestConsole, Load, guest_image
from tests.harness.home import CommandFailedError, Home, Ran
from tests.harness.ticker import Continuity, SocketServer


class WrongError(Exception):
    """Something that the demo was to show is not so."""


@dataclass(frozen=True)
class Move:
    """One teleport, as seen from outside (`continuity`, `seconds`) and from `--json` (`outcome`)."""

    source: str
    target: str
    seconds: float
    continuity: Continuity
    outcome: dict[str, Any]
    process: int
    check: Check
    disk_sequence: int


class Host:
    """One home with one VM in it, printing each command before it runs."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.home = Home(name.lower())
        self.serial = folder / f"{name}.ttyS1"
        self.log = folder / f"{name}.console.log"

    def run(self, *arguments: str | Path | int, timeout_seconds: float = 180) -> Ran:
        """One `teleport` command of this host."""
        words = [str(each) for each in arguments]
        print(f"{self.name}$ teleport {shlex.join(words)}", flush=True)
        return self.home.teleport(*words, timeout_seconds=timeout_seconds)

    def define(self, arguments: argparse.Namespace, command_line: str, disk: Path) -> None:
        """Creates the VM as the issue does by hand: the same on both hosts."""
        image = guest_image()
        name = self.name
        self.run("createvm", "--name", name, "--ostype", "Linux26_64", "--register")
        self.run("modifyvm", name, "--memory", arguments.memory, "--acpi", "on", "--nic1", "nat", "--nictype1", "virtio")
        self.run("modifyvm", name, "--kernel", image.kernel, "--initrd", image.initrd, "--append", command_line)
        self.run("modifyvm", name, "--uart1", "0x3F8", 4, "--uartmode1", "file", self.log)
        self.run("modifyvm", name, "--uart2", "0x2F8", 3, "--uartmode2", "server", self.serial)
        if not disk.exists():
            self.run("createhd", "--filename", disk, "--size", 64)
        self.run("storagectl", name, "--name", "Disks", "--add", "virtio")
        self.run("storageattach", name, "--storagectl", "Disks", "--port", 0, "--device", 0, "--type", "hdd", "--medium", disk)

    def wait_for_teleport(self) -> int:
        """Starts the VM as a target that waits; the port that it listens on."""
        self.run("modifyvm", self.name, "--teleporter", "on", "--teleporterport", 0)
        self.run("startvm", self.name, "--type", "headless")
        info = self.home.info(self.name)
        demand(info["VMState"] == "teleportingin", f"{self.name} does not wait for a teleport but is {info['VMState']}")
        return int(info["teleporterport"])


def demand(true: bool, otherwise: str) -> None:
    """The demo's assert."""
    if not true:
        raise WrongError(otherwise)


def outcome_of(output: str) -> dict[str, Any]:
    """The outcome among the events of `--json`, one a line."""
    for line in reversed(output.splitlines()):
        event = json.loads(line)
        for candidate in (event.get("outcome"), event):
            if isinstance(candidate, dict) and "target_qemu_pid" in candidate:
                return candidate
    raise WrongError(f"--json told no outcome:\n{output}")


def only_process(source: Host, target: Host) -> int:
    """The one process that runs the guest now; by /proc, not by anybody's word."""
    demand(not source.home.qemus(), f"{source.name} still has a QEMU: {source.home.qemus()}")
    running = target.home.qemus()
    demand(len(running) == 1, f"{target.name} has {len(running)} QEMUs")
    return running[0]


def move(source: Host, target: Host, console: GuestConsole, before: Check, arguments: argparse.Namespace) -> Move:
    """One teleport and all that is to be true after it."""
    port = target.wait_for_teleport()
    words: list[str | int] = ["controlvm", source.name, "teleport", "--host", "localhost", "--port", port, "--json"]
    words += ["--plan", arguments.plan, *(["--verify-ram"] if arguments.verify_ram else [])]
    counter = console.last_tick.counter if console.last_tick else 0
    begun = time.monotonic()
    ran = source.run(*words)
    seconds = time.monotonic() - begun
    console.wait_for_tick(30, endpoint=target.name, after_counter=counter, count=100)
    continuity = console.continuity(begun)
    outcome = outcome_of(ran.out)
    demand(continuity.is_whole, f"the guest's counter: {continuity}")
    demand(continuity.endpoints == (source.name, target.name), f"ticks came from {continuity.endpoints}")
    demand(continuity.gap_ms <= arguments.max_gap_ms, f"the guest was silent for {continuity.gap_ms:.0f} ms")
    process = only_process(source, target)
    demand(process == outcome["target_qemu_pid"], f"process {process} runs it, but --json says {outcome['target_qemu_pid']}")
    state = target.home.info(target.name)["VMState"]
    demand(state == "running", f"{target.name} is {state}")
    print("   (the guest checks all of its memory)", flush=True)
    check = console.check(f"at-{target.name}", timeout_seconds=180)
    demand(check.ok, f"the guest found its memory changed: {check.bad}")
    demand(check.digest == before.digest, f"resident memory: {before.digest} before, {check.digest} after")
    demand(check.written_mb > before.written_mb, "the guest did no work meanwhile")
    disk_sequence = console.disk()
    demand(console.net(), "the guest's gateway does not answer")
    return Move(source.name, target.name, seconds, continuity, outcome, process, check, disk_sequence)


def report(before: Check, moves: Sequence[Move], whole: Continuity, corruption: Sequence[str]) -> None:
    """What happened, for a sceptic."""
    print("\nReport")
    rows = [("", *(f"{each.source} -> {each.target}" for each in moves))]
    rows.append(("data path", *(str(each.outcome.get("plan", "")) for each in moves)))
    rows.append(("total time, the whole command", *(f"{each.seconds:.2f} s" for each in moves)))
    rows.append(("guest's gap, measured from outside", *(f"{each.continuity.gap_ms:.0f} ms" for each in moves)))
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
        host.define(arguments, load.command_line(), folder / "disk.qcow2")
    with GuestConsole(*(SocketServer(host.serial, host.name) for host in hosts)) as console:
        first.run("startvm", first.name, "--type", "headless")
        print("   (the guest boots and fills its memory)", flush=True)
        console.wait_ready(180)
        print(f"   (it runs: {console.run('uname -sr; cat /proc/uptime', 30)}; it checks all of its memory)", flush=True)
        before = console.check("before", timeout_seconds=180)
        demand(before.ok, f"the guest's memory was wrong before it moved: {before.bad}")
        there = move(first, second, console, before, arguments)
        back = move(second, first, console, there.check, arguments)
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
    os.environ.setdefault("TELEPORT_ACCELERATOR", "tcg")
    folder = Path(tempfile.mkdtemp(prefix="demo-", dir="/tmp"))
    hosts: list[Host] = []
    try:
        hosts += [Host(name, folder) for name in "ST"]
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
