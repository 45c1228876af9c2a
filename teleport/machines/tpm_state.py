"""What a VM's TPM remembers: a folder for each swtpm, never one for two, and one of them the VM's own.

```
FOLDER/tpm/NAME/        one swtpm's files (NVRAM, keys), with the lock that it holds as long as it lives
FOLDER/tpm/current      a link to the VM's own; replaced by one rename
FOLDER/tpm/before       a link to what was the VM's own until a guest began to arrive
FOLDER/tpm/moved        the guest took its TPM to another VM; in it: where
```

A guest that arrives (or goes on from a saved state) brings the content of its TPM in QEMU's stream, into a new folder; that becomes
the VM's own just before the guest runs, and is dropped if it never does. At the source the folder goes with the guest. A VM whose TPM
has gone doesn't start a guest of its own: a new, empty TPM would lock people out of what the old one has sealed.
"""

import contextlib
import secrets
import shlex
import shutil
from pathlib import Path

from teleport.errors import StateError, StorageError, UsageError
from teleport.machines.files import sync_folder, write_durably

FOLDER = "tpm"
STATE_FILES = ("tpm-00.permall", "tpm2-00.permall")  # swtpm's names: what a TPM 1.2, a TPM 2.0 keeps while it is off
_CURRENT, _BEFORE, _MOVED = "current", "before", "moved"


def require_here(folder: Path, *, name: str) -> None:
    """Raises StateError when the TPM of the VM in this folder went away with its guest."""
    moved = folder / FOLDER / _MOVED
    if moved.with_name(_CURRENT).is_dir():  # it came back since
        return
    try:
        where = moved.read_text()
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"the TPM's state {moved}", error.strerror or str(error)) from error
    raise StateError(
        "startvm",
        f"the TPM of VM {name!r} went with its guest {where}, and with it what the guest has sealed in it",
        f"start it there, or let the guest come back; `teleport startvm {shlex.quote(name)} --new-tpm` gives this VM a new, empty one",
    )


def own(folder: Path) -> Path:
    """The folder of the VM's own TPM, made empty when it has none. Other folders, of swtpms that ended, are removed.

    Raises StorageError.
    """
    top = folder / FOLDER
    if not (top / _CURRENT).is_dir():
        made = _make(folder, f"own-{secrets.token_hex(4)}")
        _link(top / _CURRENT, made.name)
    _sweep(top)
    return top / (top / _CURRENT).readlink()


def arriving(folder: Path, name: str) -> Path:
    """A new folder for a TPM whose content arrives. Raises StorageError."""
    _sweep(folder / FOLDER)
    return _make(folder, name)


def adopt(state: Path) -> None:
    """This one is the VM's own from now on. Raises StorageError, and then it is not."""
    top = state.parent
    current = top / _CURRENT
    if current.is_symlink():
        if str(current.readlink()) == state.name:
            return
        _link(top / _BEFORE, str(current.readlink()))
    _link(current, state.name)


def drop(state: Path) -> None:
    """Its guest never ran: the VM's own is what it was. Raises StorageError."""
    top = state.parent
    current, before = top / _CURRENT, top / _BEFORE
    if current.is_symlink() and str(current.readlink()) == state.name:
        if before.is_dir():
            _link(current, str(before.readlink()))
        else:
            _unlink(current)
    shutil.rmtree(state, ignore_errors=True)


def gone(folder: Path, where: str) -> None:
    """The guest and its TPM run elsewhere; `where` in words ("to VM …"). Raises StorageError; doing it again is harmless."""
    top = folder / FOLDER
    _make_folder(top)
    write_durably(top / _MOVED, where.encode())
    for link in (_CURRENT, _BEFORE):
        _unlink(top / link)
    _sweep(top)


def snapshot_files(folder: Path) -> tuple[Path, ...]:
    """Where the content of the VM's own TPM is while it is off; either may be missing, and the folder too."""
    return tuple(folder / FOLDER / _CURRENT / name for name in STATE_FILES)


def renew(folder: Path, *, name: str) -> None:
    """The VM's TPM is not waited for any more: its next start makes a new, empty one. Raises UsageError when it is here, StorageError."""
    moved = folder / FOLDER / _MOVED
    if moved.with_name(_CURRENT).is_dir() or not moved.exists():
        raise UsageError("--new-tpm", f"the TPM of VM {name!r} has not left it", "start it without that option")
    _unlink(moved)


def _make(folder: Path, name: str) -> Path:
    state = folder / FOLDER / name
    _make_folder(state.parent)
    _make_folder(state)
    return state


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(folder.parent)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _link(link: Path, name: str) -> None:
    fresh = link.with_name(f".{link.name}.new")
    try:
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(name)
        fresh.replace(link)
        sync_folder(link.parent)
    except OSError as error:
        raise _unwritable(link, error) from error


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error


def _sweep(top: Path) -> None:
    """Removes the folders that no link names. What cannot be removed now is tried again."""
    if not top.is_dir():
        return
    named = {str((top / link).readlink()) for link in (_CURRENT, _BEFORE) if (top / link).is_symlink()}
    if (top / _CURRENT).is_symlink():
        with contextlib.suppress(OSError):
            (top / _BEFORE).unlink(missing_ok=True)
        named = {str((top / _CURRENT).readlink())}
    for each in top.iterdir():
        if each.is_dir() and not each.is_symlink() and each.name not in named:
            shutil.rmtree(each, ignore_errors=True)


def _unwritable(path: Path, error: OSError) -> StorageError:
    return StorageError(f"the TPM's state {path}", error.strerror or str(error), "check free space and permissions")
