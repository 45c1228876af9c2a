"""Runs the command line within this process: exit code and both outputs of one command."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from teleport.cli import main
from teleport.machines.store import Store


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


class Cli:
    """The program `teleport` with a home of its own; `__call__` runs one command line."""

    def __init__(self, home: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self._capture = capture

    def __call__(self, *words: str) -> Result:
        self._capture.readouterr()
        with pytest.raises(SystemExit) as end:
            main(list(words))
        captured = self._capture.readouterr()
        assert "Traceback" not in captured.err
        code = end.value.code
        assert isinstance(code, int)
        return Result(code, captured.out, captured.err)

    def ok(self, *words: str) -> str:
        """A command that must succeed; its output."""
        result = self(*words)
        assert result.code == 0, result.err
        return result.out

    def fails(self, *words: str, code: int = 2) -> str:
        """A command that must fail with this code; its one line of error."""
        result = self(*words)
        assert result.code == code, (words, result)
        lines = result.err.strip().splitlines()
        assert lines[-1].startswith("teleport: error: ")
        return lines[-1]

    @property
    def store(self) -> Store:
        return Store(self.home)


MakeCli = Callable[[], Cli]
