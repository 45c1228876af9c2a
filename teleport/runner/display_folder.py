"""The folder of a VM's display front: whose it is, where the front logs, and what of it goes when the front does."""

import shutil
from importlib.metadata import entry_points
from pathlib import Path

from teleport.errors import NotFoundError
from teleport.machines import display_note
from teleport.machines.store import VmPaths
from teleport.ports import DisplayFronts
from teleport.runner.runtime_folder import new_display_folder

GROUP, NAME = "teleport.display", "front"
_LOG_FILE, _KEYS_FOLDER = "vrde.log", "vrde"


def fronts() -> DisplayFronts:
    """The installed ones. Raises NotFoundError."""
    for each in entry_points(group=GROUP, name=NAME):
        try:
            found: DisplayFronts = each.load()
        except ImportError as error:
            raise NotFoundError("the remote display", f"cannot be loaded ({error})", "run deploy/set-up") from error
        return found
    raise NotFoundError("the remote display", "is not installed", "run deploy/set-up, or install teleport[vrde]")


class DisplayFolder:
    """One VM's. Whoever lives on finds the front by the note that is kept here (`teleport.machines.display_note`)."""

    def __init__(self, paths: VmPaths) -> None:
        self._paths = paths

    def make(self) -> Path:
        """A new one, noted before a front lives in it: a successor must find it. Raises StorageError, OSError."""
        folder = new_display_folder()
        self.keys().mkdir(mode=0o700, exist_ok=True)
        self.take(folder)
        self.note(folder)
        return folder

    def keys(self) -> Path:
        """Where certificates stay while fronts come and go."""
        return self._paths.folder / _KEYS_FOLDER

    def take(self, folder: Path) -> None:
        """Makes a front's folder this VM's: who connects is read in the log of the VM that runs, which the front opens anew when it is
        told of the guest's new place. Raises OSError."""
        display_note.own(self._paths, folder)
        fresh = folder / f".{_LOG_FILE}.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(self._paths.log)
        fresh.replace(folder / _LOG_FILE)

    def note(self, folder: Path) -> None:
        """Notes which front is this VM's."""
        display_note.write(self._paths, folder)

    def noted(self) -> Path | None:
        """The front that is noted, alive or not."""
        return display_note.read(self._paths)

    def forget(self) -> None:
        """No front is this VM's any more; the one that was may live on as another's."""
        display_note.forget(self._paths)

    def remove(self, folder: str | Path) -> None:
        """Forgets a front that is gone, and removes what it left."""
        self.forget()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
