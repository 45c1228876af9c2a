"""The long run's command, short: a guest that dirties 40 MB/s goes there and back over both plans, RAM verified bit for bit."""

import subprocess
import sys

import pytest

from tests.harness.guest import REPOSITORY

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(400)]


def test_there_and_back_over_both_plans() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.bench.many_teleports", "--runs", "4", "--memory", "192"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "4 of 4 teleports proved" in ran.stdout
