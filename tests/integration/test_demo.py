"""The demo, with a small guest: it must say that all is well, and must not when something isn't."""

import subprocess
import sys

import pytest

from tests.harness.guest import REPOSITORY

pytestmark = pytest.mark.qemu


def demo(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "deploy/demo.py"), "--memory", "256", "--resident", "32", *arguments],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(REPOSITORY), "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


@pytest.mark.parametrize("plan", ["auto", "raw"])
def test_the_demo_proves_a_teleport_and_its_return(plan: str) -> None:
    ran = demo("--plan", plan)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Everything above was checked" in ran.stdout
    assert "no jump, none twice" in ran.stdout


def test_the_demo_fails_when_the_guest_was_silent_for_too_long() -> None:
    ran = demo("--max-gap-ms", "0")
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "the guest was silent for" in ran.stderr
    assert "Everything above" not in ran.stdout
