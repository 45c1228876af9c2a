"""The saved state of a VM: a folder that is there whole or not at all.

```
FOLDER/saved.new/            being written: QEMU's stream, then what belongs to it
FOLDER/saved/stream          QEMU's migration stream, device state and all of RAM
FOLDER/saved/saved.json      what must be as it was when the guest goes on
FOLDER/saved.used/           its guest was told to go on: it must never go on from here a second time
```

Each step is one rename of a folder whose files are durable. `saved` becomes `saved.used` before the guest's first instruction and
is deleted after it; whoever finds `saved.used` later knows only that it may have run, so that the disk may be newer than the state.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from teleport.errors import StateError, StorageError
from teleport.machines.files import sync_folder, write_durably
from teleport.machines.store import VmPaths
from teleport.model import GuestIdentity

FORMAT = 1
_STREAM = "stream"
_FACTS = "saved.json"


@dataclass(frozen=True)
class SavedFacts:
    """What a saved guest needs besides its stream.

    `generation` and `epoch` are of the owner record when it was saved (0 without one): if another VM owned the guest since, its disk
    is not what this state remembers.
    """

    identity: GuestIdentity
    generation: int
    epoch: str
    was_paused: bool
    software: str
    qemu: str


def stream_of(paths: VmPaths) -> Path:
    """The stream of the saved state."""
    return paths.saved / _STREAM


def begin(paths: VmPaths) -> Path:
    """Makes room for a new one; the path that QEMU writes its stream to. Raises StorageError, StateError when there is one."""
    if paths.saved.exists():
        raise StateError("savestate", "there is a saved state already", "teleport discardstate drops it")
    fresh = _fresh(paths)
    try:
        drop_unfinished(paths)
        fresh.mkdir(mode=0o700)
        (fresh / _STREAM).touch(mode=0o600)
    except OSError as error:
        raise _unwritable(paths, error) from error
    return fresh / _STREAM


def commit(paths: VmPaths, facts: SavedFacts) -> None:
    """The stream is written (and durable by now): from here on the VM is saved. Raises StorageError, and then it is not."""
    fresh = _fresh(paths)
    content = {"format": FORMAT, **asdict(facts)}
    try:
        write_durably(fresh / _FACTS, json.dumps(content, indent=1).encode())
        sync_folder(fresh)
        fresh.rename(paths.saved)
        sync_folder(paths.folder)
    except OSError as error:
        raise _unwritable(paths, error) from error


def drop_unfinished(paths: VmPaths) -> None:
    """Removes what a save that failed left, and a state whose guest went on. Raises StorageError."""
    for leftover in (_fresh(paths), _used(paths)):
        if leftover.exists():
            _remove(leftover)


def read(paths: VmPaths) -> SavedFacts | None:
    """The saved state's facts; None when there is none. Raises StorageError when it is damaged or of a newer version."""
    if not paths.saved.is_dir():
        return None
    what = f"saved state {paths.saved}"
    try:
        content = json.loads((paths.saved / _FACTS).read_bytes())
        if content["format"] > FORMAT:
            raise StorageError(what, "written by a newer Teleport", "use that version, or teleport discardstate")
        identity = content["identity"]
        return SavedFacts(
            identity=GuestIdentity(
                smbios_uuid=str(identity["smbios_uuid"]),
                macs=tuple((int(number), str(mac)) for number, mac in identity["macs"]),
            ),
            generation=int(content["generation"]),
            epoch=str(content["epoch"]),
            was_paused=bool(content["was_paused"]),
            software=str(content["software"]),
            qemu=str(content["qemu"]),
        )
    except OSError as error:
        raise StorageError(what, error.strerror or str(error)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(what, "is damaged", "teleport discardstate drops it") from error


def mark_used(paths: VmPaths) -> None:
    """Its guest will be told to go on. Raises StorageError, and then it was not marked."""
    try:
        drop_unfinished(paths)
        paths.saved.rename(_used(paths))
        sync_folder(paths.folder)
    except OSError as error:
        raise _unwritable(paths, error) from error


def mark_unused(paths: VmPaths) -> None:
    """The guest did not go on, and its QEMU is dead: it may be tried again. Raises StorageError."""
    try:
        _used(paths).rename(paths.saved)
        sync_folder(paths.folder)
    except OSError as error:
        raise _unwritable(paths, error) from error


def discard(paths: VmPaths) -> None:
    """Drops the saved state. Raises StateError when there is none, StorageError."""
    if not paths.saved.is_dir():
        raise StateError("discardstate", "the VM has no saved state")
    mark_used(paths)  # a rename at once: what is half deleted must not look whole
    drop_unfinished(paths)


def _fresh(paths: VmPaths) -> Path:
    return paths.folder / "saved.new"


def _used(paths: VmPaths) -> Path:
    return paths.folder / "saved.used"


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise StorageError(f"removing {folder}", error.strerror or str(error), "check its permissions") from error


def _unwritable(paths: VmPaths, error: OSError) -> StorageError:
    return StorageError(f"saved state {paths.saved}", error.strerror or str(error), "check free space and permissions")
