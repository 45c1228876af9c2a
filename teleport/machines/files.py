"""Files that survive a power cut, and locks that survive nothing: the state folder's two tools.

`write_durably` leaves either the old or the new content, whatever write is the last one; `locked` is flock, which the kernel
lets go when its holder dies.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from teleport.errors import BusyError, StorageError

LOCK_SECONDS = 10.0
_RETRY_SECONDS = 0.02


def write_durably(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Replaces `path` by a file with this content: a temporary beside it, fsync, rename, fsync of the folder.

    The folder must exist. Raises StorageError, and then the old file is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"writing {path}", error.strerror or str(error), "check free space and permissions of that folder"
        ) from error


def sync_folder(folder: Path) -> None:
    """Makes the folder's entries durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Makes a folder of ours (mode 0700) and those above it. Raises StorageError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"making the folder {folder}",
            error.strerror or str(error),
            "check its permissions, or name another by TELEPORT_HOME",
        ) from error


@contextlib.contextmanager
def locked(path: Path, *, what: str, wait_seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Holds the lock file `path` alone. Raises BusyError when another writer has it for longer than `wait_seconds`."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageError(f"locking {path}", error.strerror or str(error), "check the permissions of that folder") from error
    try:
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise BusyError(what, "another command is changing it", "try again when that one is done") from None
                time.sleep(_RETRY_SECONDS)
        yield
    finally:
        os.close(descriptor)
