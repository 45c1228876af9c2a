"""The tests' end of the breaking filesystem: mounts it, runs real processes on it, and tells it when to break."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.properties.breaking_filesystem import Fault

_TELEPORT = Path(sys.executable).with_name("teleport")
_NEVER = sys.maxsize
_SECONDS = 60
_ERRS = 99


class BreakingStorage:
    """What is mounted at `mountpoint`: whole at first. Its content lies in `backing`."""

    def __init__(self, server: "subprocess.Popen[str]", backing: Path, said: Path) -> None:
        self._server = server
        self._backing = backing
        self._kept = backing.with_name("kept")
        self._said = said

    def break_at(self, change: int, fault: Fault, *, seed: int = 0) -> None:
        """Breaks at that change from now on."""
        self._ask(f"break {change} {fault.value} {seed}")

    def mend(self) -> None:
        """Works again; what was written stays as it is."""
        self.break_at(_NEVER, Fault.KILLED)

    def changes(self) -> tuple[int, bool]:
        """How many there were since, and whether the fault came."""
        count, came = self._ask("count").split()
        return int(count), came == "yes"

    def cut(self, *, seed: int) -> None:
        """The power goes now: what is not synced may be lost."""
        self._ask(f"cut {seed}")

    def keep(self) -> None:
        """Remembers the content for `restore`."""
        shutil.copytree(self._backing, self._kept, symlinks=True)

    def restore(self) -> None:
        """What was kept is there again, and the storage works."""
        self.mend()
        for each in self._backing.iterdir():
            shutil.rmtree(each)
        shutil.copytree(self._kept, self._backing, symlinks=True, dirs_exist_ok=True)

    def run(self, words: Sequence[str], *, folder: Path) -> int:
        """The real command, as a session of its own. Its exit code, negative when it was killed; `said` has what it printed."""
        with self._said.open("w") as output:
            done = subprocess.run(
                [_TELEPORT, *words],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                timeout=_SECONDS,
                check=False,
            )
        return done.returncode

    def call(self, function: Callable[[], object]) -> int:
        """The same for a function; 1 when it raises (its message is in `said`)."""
        pid = os.fork()
        if pid == 0:
            code = _ERRS
            try:
                os.setsid()
                function()
                code = 0
            except Exception as error:
                self._said.write_text(f"teleport: error: {type(error).__module__}: {error}")
                code = 1
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def _ask(self, line: str) -> str:
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(f"{line}\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline().strip()
        assert answer, "the filesystem is gone"
        return answer


@contextmanager
def breaking_storage(mountpoint: Path, *, said: Path) -> Iterator[BreakingStorage]:
    """Mounts one with nothing on it; its content lies beside `mountpoint`."""
    backing = mountpoint.with_name("backing")
    backing.mkdir()
    words = [sys.executable, "-m", "tests.properties.breaking_filesystem", backing.absolute(), mountpoint.absolute()]
    top = Path(__file__).parents[2]
    with subprocess.Popen(words, cwd=top, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None and server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        try:
            yield BreakingStorage(server, backing, said)
        finally:
            server.stdin.write("end\n")  # others, forked meanwhile, may hold the pipe open
            server.stdin.close()
            server.wait(_SECONDS)
