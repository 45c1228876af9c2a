"""What would outlive a test run when a test is cut off (pytest's own time-out, a kill): found by the run's mark, ended, and told.

The mark is an environment variable that every process of the run inherits, whoever started it and in whatever namespace. It names a
folder with a link to each folder that the harness made.
"""

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

MARK = "TELEPORT_TESTS"


def begin() -> None:
    """From here on all is marked."""
    os.environ[MARK] = tempfile.mkdtemp(prefix="tp-tests-", dir="/tmp")


def new_folder(prefix: str) -> Path:
    """A folder in /tmp, for whoever removes it again; the run does it at the latest."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    if mark := os.environ.get(MARK):
        (Path(mark) / folder.name).symlink_to(folder)
    return folder


@contextlib.contextmanager
def passing_folder(prefix: str = "tp-") -> Iterator[Path]:
    """A folder whose path is short enough for unix sockets, for as long as the block."""
    folder = new_folder(prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # what stays is told at the run's end


def end() -> list[str]:
    """Ends and removes all that is left, and says what that was: nothing, unless a test was cut off or is wrong."""
    register = Path(os.environ.pop(MARK))
    left = []
    deadline = time.monotonic() + 20
    # again and again: a guardian that is ended after its agent may have started another one
    while (marked := _marked(register)) and time.monotonic() < deadline:
        for pid, command in marked.items():
            left.append(f"process {pid}: {command[:200]}")
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                try:
                    # the pid may be someone else's by now: looked at while the descriptor holds it
                    if pid in _marked(register):
                        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                finally:
                    os.close(descriptor)
        time.sleep(0.05)
    for link in register.iterdir():
        if (folder := link.readlink()).exists():
            left.append(f"folder {folder}")
            shutil.rmtree(folder, ignore_errors=True)  # whoever was to remove it may be at it
    shutil.rmtree(register)
    return list(dict.fromkeys(left))


def _marked(register: Path) -> dict[int, str]:
    """pid → command line of the processes with this run's mark, but for this one."""
    mark = f"{MARK}={register}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):  # gone meanwhile, or not ours to read
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return found
