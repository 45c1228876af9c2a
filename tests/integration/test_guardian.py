"""The guardian with a real QEMU: agents that die, guardians that die, and the order of the end."""

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from teleport.host.process import start_ticks

pytestmark = pytest.mark.qemu

AGENT = Path(__file__).with_name("guardian_agent.py")
ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 60.0


def wait_dead(pid: int) -> None:
    """For a process that need not be our child."""
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            assert select.select([pidfd], [], [], DEADLINE_SECONDS)[0], f"{pid} lives on"
        finally:
            os.close(pidfd)


class Machine:
    """A machine's folder, the guardians that were started in it, and what its agents told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.guardians: list[subprocess.Popen[bytes]] = []
        self.pids: set[int] = set()

    def guard(self, *options: str, mode: str = "") -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "teleport.runner.guardian", "--folder", str(self.folder), *options, "--"]
        agent = [sys.executable, str(AGENT), str(self.folder), *([mode] if mode else [])]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(self.folder.parent / "xdg")}
        guardian = subprocess.Popen([*command, *agent], env=environment, stderr=subprocess.PIPE, start_new_session=True)
        self.guardians.append(guardian)
        return guardian

    def told(self, *, besides: int = 0) -> dict[str, Any]:
        """What the next agent (not `besides`) says."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(FileNotFoundError):
                told: dict[str, Any] = json.loads((self.folder / "told").read_text())
                self.pids |= {told["agent"], told["qemu"]}
                if told["agent"] != besides:
                    return told
            time.sleep(0.02)
        raise AssertionError("no agent told anything")

    def clean_up(self) -> None:
        for guardian in self.guardians:
            guardian.kill()
            guardian.communicate(timeout=DEADLINE_SECONDS)
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            wait_dead(pid)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    (tmp_path / "xdg").mkdir(mode=0o700)
    (tmp_path / "machine").mkdir()
    machine = Machine(tmp_path / "machine")
    try:
        yield machine
    finally:
        machine.clean_up()


def test_sigterm_ends_all_in_order_and_leaves_nothing(machine: Machine) -> None:
    guardian = machine.guard()
    told = machine.told()
    assert not told["adopted"]
    assert told["guardian"] == guardian.pid
    assert told["status"] == "running"
    assert told["ram_blocks"] * 512 == 64 << 20  # populated
    assert os.getsid(told["qemu"]) == told["qemu"]
    run = Path(told["run"])
    assert run.stat().st_mode & 0o777 == 0o700
    guardian.terminate()
    assert guardian.wait(DEADLINE_SECONDS) == 5
    assert start_ticks(told["qemu"]) is None
    assert start_ticks(told["agent"]) is None
    assert not run.exists()
    assert not (machine.folder / "run").is_symlink()


def test_a_killed_agent_is_replaced_and_adopts(machine: Machine) -> None:
    guardian = machine.guard()
    first = machine.told()
    os.kill(first["agent"], signal.SIGKILL)
    second = machine.told(besides=first["agent"])
    assert second["adopted"]
    assert second["restarts"] == 1
    assert second["qemu"] == first["qemu"]
    assert second["ram_inode"] == first["ram_inode"]
    assert second["status"] == "running"
    guardian.terminate()
    assert guardian.wait(DEADLINE_SECONDS) == 5


def test_a_signal_while_no_agent_is_up_waits_for_the_next(machine: Machine) -> None:
    guardian = machine.guard()
    first = machine.told()
    os.kill(guardian.pid, signal.SIGSTOP)
    os.kill(first["agent"], signal.SIGKILL)
    guardian.terminate()  # both wait for it when it goes on
    os.kill(guardian.pid, signal.SIGCONT)
    assert guardian.wait(DEADLINE_SECONDS) == 5
    assert start_ticks(first["qemu"]) is None


def test_a_killed_guardian_is_replaced_and_finds_qemu_and_its_ram(machine: Machine) -> None:
    guardian = machine.guard()
    first = machine.told()
    guardian.kill()
    wait_dead(first["agent"])  # it noticed, and left QEMU alone
    assert start_ticks(first["qemu"]) is not None

    refused = machine.guard()
    assert b"lives on after its runner died" in refused.communicate(timeout=DEADLINE_SECONDS)[1]
    assert refused.returncode == 1
    assert start_ticks(first["qemu"]) is not None

    second_guardian = machine.guard("--adopt")
    second = machine.told(besides=first["agent"])
    assert second["adopted"]
    assert second["qemu"] == first["qemu"]
    assert second["ram_inode"] == first["ram_inode"]
    assert second["run"] == first["run"]
    second_guardian.terminate()
    assert second_guardian.wait(DEADLINE_SECONDS) == 5
    wait_dead(first["qemu"])
    assert not Path(first["run"]).exists()


def test_an_agent_that_outlived_its_guardian_is_ended_first(machine: Machine) -> None:
    guardian = machine.guard()
    first = machine.told()
    os.kill(first["agent"], signal.SIGSTOP)
    guardian.kill()
    second_guardian = machine.guard("--adopt")
    second = machine.told(besides=first["agent"])
    assert start_ticks(first["agent"]) is None
    assert second["qemu"] == first["qemu"]
    second_guardian.terminate()
    assert second_guardian.wait(DEADLINE_SECONDS) == 5


def test_one_guardian_a_machine(machine: Machine) -> None:
    machine.guard()
    told = machine.told()
    other = machine.guard()
    assert b"is running already" in other.communicate(timeout=DEADLINE_SECONDS)[1]
    assert other.returncode == 1
    assert start_ticks(told["qemu"]) is not None


def test_an_agent_that_cannot_start_ends_the_guardian(machine: Machine) -> None:
    assert machine.guard(mode="fail").wait(DEADLINE_SECONDS) == 9
    assert not (machine.folder / "run").is_symlink()


def test_an_agent_that_dies_again_and_again_without_a_qemu_ends_the_guardian(machine: Machine) -> None:
    assert machine.guard(mode="hopeless").wait(DEADLINE_SECONDS) == 9
    assert not (machine.folder / "run").is_symlink()


def test_a_missing_folder_is_said_without_a_traceback(machine: Machine) -> None:
    machine.folder = machine.folder / "missing"
    error = machine.guard().communicate(timeout=DEADLINE_SECONDS)[1]
    assert error.startswith(b"teleport: error: machine folder")


def test_the_lock_is_not_inherited(machine: Machine) -> None:
    guardian = machine.guard()
    told = machine.told()
    guardian.kill()
    wait_dead(told["agent"])
    with (machine.folder / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # QEMU lives, and nobody holds it
    assert start_ticks(told["qemu"]) is not None
