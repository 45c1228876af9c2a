"""The demo, with a small guest: it must say that all is well, and must not when something isn't."""

import os
import subprocess
import sys

import pytest

from tests.harness.guest import REPOSITORY
from tests.harness.session import MARK

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(400)]


def demo(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr. Ended kindly when it takes too long, so that it can end its guests."""
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": str(REPOSITORY),
        "HOME": "/nonexistent",
        MARK: os.environ[MARK],
    }
    argv = [sys.executable, str(REPOSITORY / "deploy/demo.py"), "--memory", "256", "--resident", "32", *arguments]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            out, err = process.communicate(timeout=300)
        finally:
            process.terminate()
    return process.returncode, out, err


def test_the_demo_proves_a_teleport_and_its_return() -> None:
    code, out, err = demo()
    assert code == 0, out + err
    assert "Everything above was checked" in out
    assert "no jump, none twice" in out


def test_the_demo_fails_when_the_guest_was_silent_for_too_long() -> None:
    code, out, err = demo("--max-gap-ms", "0")
    assert code == 1, out + err
    assert "the guest was silent for" in err
    assert "Everything above" not in out
