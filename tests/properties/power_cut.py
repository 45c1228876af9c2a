"""Power cuts and storage that fails, at every step of a real command: a forked child runs it and is stopped at its n-th step.

A step is whatever changes a file or a folder under `watched`, in any module: Python's own audit events tell of each opening for
writing, renaming, linking, making and removing, and `os.fsync` is counted beside them. What was written and not synced yet is half
lost in a cut, as a page cache may lose it.
"""

import enum
import errno
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

CUT = 9
_BROKEN = 99
_PACKAGE = "/teleport/"
TOOLS = {"machines/files.py"}  # what writes for others: the step is the caller's
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")


class Fault(enum.Enum):
    """What happens at the step. The power goes; or everything that is written from then on fails, as on a dead disk."""

    CUT = "cut"
    FAILS = "fails"


@dataclass(frozen=True)
class Struck:
    """How a run ended: its exit code (`CUT` when the power went), whether the fault came at all, and the modules that made steps
    (none known after a cut)."""

    code: int
    came: bool
    modules: frozenset[str]


class _Steps:
    """Counts steps in the child and strikes at one of them."""

    def __init__(self, watched: Path, *, strike_at: int, fault: Fault) -> None:
        self._watched = str(watched)
        self._left = strike_at
        self._fault = fault
        self._power_goes = False
        self._before = {inode for inode, _ in self._files()}
        self._synced: set[int] = set()
        self._fsync = os.fsync
        self.modules: set[str] = set()

    @property
    def came(self) -> bool:
        return self._left <= 0

    def begin(self) -> None:
        sys.addaudithook(self._heard)
        os.fsync = self._synced_now

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._is_change(event, arguments):
            self._step()

    def _is_change(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if self._power_goes:
            return False
        if event == "subprocess.Popen":  # qemu-img, which writes by itself
            return self._fault is Fault.CUT
        writes = event in _CHANGES or (event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & _WRITES))
        return writes and any(self._is_watched(each) for each in arguments)

    def _is_watched(self, path: object) -> bool:
        return isinstance(path, str | Path) and str(Path(path).absolute()).startswith(self._watched)

    def _synced_now(self, descriptor: int) -> None:
        self._step()
        self._fsync(descriptor)
        self._synced.add(os.fstat(descriptor).st_ino)

    def _step(self) -> None:
        self.modules.add(_who())
        self._left -= 1
        if self._left > 0:
            return
        if self._fault is Fault.FAILS:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._power_goes = True
        for inode, path in self._files():
            if inode not in self._before and inode not in self._synced:
                os.truncate(path, path.stat().st_size // 2)
        os._exit(CUT)

    def _files(self) -> list[tuple[int, Path]]:
        walked = (Path(folder) / name for folder, _, names in os.walk(self._watched) for name in names)
        return [(path.lstat().st_ino, path) for path in walked if not path.is_symlink()]


def _who() -> str:
    """The module of ours that is at work, e.g. ``machines/store.py``."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        _, found, module = frame.f_code.co_filename.rpartition(_PACKAGE)
        if found and "/tests/" not in frame.f_code.co_filename and module not in TOOLS:
            return module
        frame = frame.f_back
    return ""


def run_struck(
    run: Callable[[], object], *, watched: Path, said: Path, strike_at: int = sys.maxsize, fault: Fault = Fault.CUT
) -> Struck:
    """Runs something in a child that is struck at that step. What it prints goes to `said`, outside `watched`."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = _BROKEN
        try:
            output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(output, 1)
            os.dup2(output, 2)
            sys.stdout = os.fdopen(1, "w", closefd=False)
            sys.stderr = os.fdopen(2, "w", closefd=False)
            steps = _Steps(watched, strike_at=strike_at, fault=fault)
            steps.begin()
            try:
                run()
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else _BROKEN
            sys.stdout.flush()
            sys.stderr.flush()
            os.write(writing, "\n".join([str(steps.came), *steps.modules]).encode())
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read().split()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return Struck(code, came=code == CUT or told[:1] == ["True"], modules=frozenset(told[1:]))
