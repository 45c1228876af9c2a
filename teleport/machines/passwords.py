"""Passwords in files: handed to QEMU and its tools as descriptors, so that they stand in no command line, log or copy on a disk."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from teleport.errors import StorageError, UsageError

_LONGEST_BYTES = 4096


def read_password(path: Path) -> bytes:
    """The file's first line without its end. Raises StorageError when it cannot be read, UsageError when there is no password in it."""
    try:
        with path.open("rb") as file:
            line = file.read(_LONGEST_BYTES).split(b"\n", 1)[0].rstrip(b"\r")
    except OSError as error:
        raise StorageError(f"password file {path}", error.strerror or str(error), "check its path and permissions") from error
    if not line:
        raise UsageError(f"password file {path}", "is empty", "write the password into its first line")
    return line


def password_descriptor(path: Path) -> int:
    """An inheritable memfd that holds the password alone. The caller closes it. Raises as `read_password`."""
    line = read_password(path)
    descriptor = os.memfd_create("password", 0)
    os.write(descriptor, line)
    return descriptor


@contextlib.contextmanager
def password_file(path: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """For a child: the name under which it reads the password, and the descriptors that it must inherit; "" and () without one."""
    if not path:
        yield "", ()
        return
    descriptor = password_descriptor(Path(path))
    try:
        yield f"/proc/self/fd/{descriptor}", (descriptor,)
    finally:
        os.close(descriptor)
