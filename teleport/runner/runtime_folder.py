"""The short private folder of one running VM: sockets and state that end with the host's uptime.

Unix socket paths end at 107 characters, a machine's folder may be deeper: the sockets live in
``$XDG_RUNTIME_DIR/teleport/<hash>`` or ``/tmp/teleport-<uid>/<hash>``, and the machine's folder has a link `run` to it.
"""

import contextlib
import hashlib
import os
import secrets
import shutil
import stat
from pathlib import Path

from teleport.errors import StateError

LINK_NAME = "run"
_LONGEST_BASE = 64  # characters; leaves 40 for hash and socket name


def open_runtime_folder(machine_folder: Path) -> Path:
    """The runtime folder of a machine (the one that its link names, else a new one), mode 0700, with the link set.

    Raises StateError when it would not be private.
    """
    link = machine_folder / LINK_NAME
    with contextlib.suppress(OSError, StateError):  # no link, or one to what is gone or not ours: made anew
        present = link.readlink()
        _check_private(present)
        return present
    name = hashlib.sha256(os.fsencode(machine_folder.resolve())).hexdigest()[:16]
    folder = _base() / name
    _make_private(folder)
    fresh = machine_folder / f".{LINK_NAME}-{secrets.token_hex(4)}"
    fresh.symlink_to(folder)
    fresh.rename(link)
    return folder


def new_display_folder() -> Path:
    """A new folder beside the runtime folders, mode 0700, for a display's front: it goes with the guest from runner to runner.

    Raises StateError when it would not be private.
    """
    folder = _base() / f"d-{secrets.token_hex(6)}"
    _make_private(folder)
    return folder


def is_private_folder(folder: Path) -> bool:
    """Whether nobody else can enter it."""
    try:
        _check_private(folder)
    except (OSError, StateError):
        return False
    return True


def remove_runtime_folder(machine_folder: Path, folder: Path) -> None:
    """Removes folder and link."""
    shutil.rmtree(folder, ignore_errors=True)
    link = machine_folder / LINK_NAME
    with contextlib.suppress(OSError):
        if link.readlink() == folder:
            link.unlink()


def _base() -> Path:
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    if given and len(given) <= _LONGEST_BASE - len("/teleport"):
        with contextlib.suppress(StateError, OSError):
            _check_private(Path(given))
            base = Path(given) / "teleport"
            _make_private(base)
            return base
    base = Path(f"/tmp/teleport-{os.geteuid()}")  # noqa: S108 - checked: made with mode 0700, a folder of ours and no link
    _make_private(base)
    return base


def _make_private(folder: Path) -> None:
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    _check_private(folder)


def _check_private(folder: Path) -> None:
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise StateError(
            f"runtime folder {folder}",
            "not a folder that only you can enter",
            "remove it, or set XDG_RUNTIME_DIR to one of yours",
        )
