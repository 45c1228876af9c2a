"""Which QEMU, and whether its accelerator really runs something."""

import json
import os
from pathlib import Path

import pytest

from teleport.errors import HypervisorError
from teleport.host import process
from teleport.host.process import boot_id, find_qemu, run_probe, usable_accelerator

pytestmark = pytest.mark.qemu


def test_the_probe_s_instructions_run() -> None:
    path, version = find_qemu()
    assert version >= (10, 0)
    assert run_probe(path, "tcg") == ""
    assert "nosuch" in run_probe(path, "nosuch")


def fake_qemu(folder: Path, script: str) -> Path:
    path = folder / "qemu"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'QEMU emulator version 8.2.1 (Debian 1:8.2)'", "is version 8.2.1: before 9.0 a moving guest loses"),
        ("echo hello", "says 'hello'"),
        ("exit 3", "says ''"),
    ],
)
def test_a_qemu_that_will_not_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str) -> None:
    monkeypatch.setenv("TELEPORT_QEMU", str(fake_qemu(tmp_path, script)))
    with pytest.raises(HypervisorError, match="install QEMU 10") as caught:
        find_qemu()
    assert words in str(caught.value)


def test_no_qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEPORT_QEMU", "qemu-system-nowhere")
    with pytest.raises(HypervisorError, match="is not installed"):
        find_qemu()


def test_auto_takes_what_the_probe_says_and_remembers_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        assert usable_accelerator("auto", cache=tmp_path) == "tcg"
        with pytest.raises(HypervisorError, match="/dev/kvm"):
            usable_accelerator("kvm", cache=tmp_path)
        return
    monkeypatch.setattr(process, "_PROBE_SECONDS", 1.0)
    found = usable_accelerator("auto", cache=tmp_path)
    known = json.loads((tmp_path / "kvm-probe.json").read_text())
    assert known["boot_id"] == boot_id()
    assert (found == "kvm") == (known["problem"] == "")
    known["problem"] = "a test wrote this"
    (tmp_path / "kvm-probe.json").write_text(json.dumps(known))
    assert usable_accelerator("auto", cache=tmp_path) == "tcg"
    with pytest.raises(HypervisorError, match="a test wrote this"):
        usable_accelerator("kvm", cache=tmp_path)
    (tmp_path / "kvm-probe.json").write_text(json.dumps({**known, "boot_id": "another"}))
    assert usable_accelerator("auto", cache=tmp_path) == found
    assert usable_accelerator("tcg") == "tcg"
