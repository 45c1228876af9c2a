"""The guest's builder: equal inputs give equal bytes, and nothing is built twice."""

import subprocess
from pathlib import Path

import pytest

from tests.harness.guest import REPOSITORY, guest_image

BUILD = str(REPOSITORY / "deploy/guest/build")


@pytest.mark.qemu
def test_the_same_inputs_give_the_same_bytes_once(tmp_path: Path) -> None:
    images = []
    for name in ("one", "two"):
        built = subprocess.run([BUILD, "--out", str(tmp_path / name)], capture_output=True, text=True, check=True, timeout=60)
        images.append(Path(built.stdout.strip()))
    assert images[0].read_bytes() == images[1].read_bytes()
    before = images[0].stat()
    subprocess.run([BUILD, "--out", str(tmp_path / "one")], capture_output=True, check=True, timeout=60)
    assert images[0].stat().st_mtime_ns == before.st_mtime_ns
    assert guest_image().initrd.read_bytes() == images[0].read_bytes()


def test_without_a_kernel_it_says_what_to_do(tmp_path: Path) -> None:
    built = subprocess.run([BUILD, "--kernel-root", str(tmp_path)], capture_output=True, text=True, check=False, timeout=60)
    assert built.returncode == 1
    assert "deploy/set-up" in built.stderr
