from pathlib import Path

import pytest

from tests.unit.cli.run_cli import Cli


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """A home of its own, and a current folder to put images in."""
    monkeypatch.setenv("TELEPORT_HOME", str(tmp_path / "home"))
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return Cli(tmp_path / "home", capsys)
