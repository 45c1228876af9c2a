"""A test run that is cut off leaves nothing: neither processes, whoever's children they are by then, nor folders."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import session


def test_what_a_cut_off_test_leaves_is_ended_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(session.MARK, "the real run's")
    session.begin()
    gone, kept = session.new_folder("tp-x-"), session.new_folder("tp-x-")
    gone.rmdir()
    # a child's child, in a session of its own: as QEMU under a guardian whose test is no more
    begins = "import subprocess as s; print(s.Popen(['sleep', '600'], start_new_session=True, stdout=s.DEVNULL, stderr=s.DEVNULL).pid)"
    orphan = int(subprocess.run([sys.executable, "-c", begins], capture_output=True, check=True).stdout)
    left = session.end()
    assert [each.split(":")[0] for each in left] == [f"process {orphan}", f"folder {kept}"]
    status = Path(f"/proc/{orphan}/status")
    assert not status.exists() or "State:\tZ" in status.read_text()
    assert not kept.exists()
    assert session.MARK not in os.environ


def test_nothing_is_left_after_tests_that_end_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(session.MARK, "the real run's")
    session.begin()
    session.new_folder("tp-x-").rmdir()
    assert session.end() == []
