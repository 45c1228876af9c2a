"""Whether a QEMU has the module for a viewer's microphone."""

from pathlib import Path

import pytest

from teleport.host.audio import has_microphone


@pytest.mark.parametrize(
    ("says", "has"),
    [("Available audio drivers:\nnone\nspice\nwav", True), ("Available audio drivers:\nnone\nwav", False), ("", False)],
)
def test_it_is_among_the_drivers_that_qemu_lists(tmp_path: Path, says: str, has: bool) -> None:
    qemu = tmp_path / "qemu"
    qemu.write_text(f"#!/bin/sh\n[ \"$*\" = '-audiodev help' ] && echo '{says}'\n")
    qemu.chmod(0o755)
    assert has_microphone(str(qemu)) == has


def test_no_qemu_has_none(tmp_path: Path) -> None:
    assert not has_microphone(str(tmp_path / "missing"))
