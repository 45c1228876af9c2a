"""Which display front is a VM's: `display.json` beside the definition names the front's folder, whose file `owner` names the VM's.

Both must say so. A front may outlive the VM's runner (its viewers watch a guest that has left), and go over to another VM of this host
with the guest: then the new one writes itself into `owner`, and the old VM's note counts no more.
"""

import json
from pathlib import Path

from teleport.machines.store import VmPaths

NOTE_FILE = "display.json"
_OWNER_FILE = "owner"


def write(paths: VmPaths, folder: Path) -> None:
    """Notes the front of that folder as this VM's. Raises OSError."""
    fresh = (paths.folder / NOTE_FILE).with_suffix(".new")
    fresh.write_text(json.dumps({"folder": str(folder)}))
    fresh.replace(paths.folder / NOTE_FILE)


def own(paths: VmPaths, folder: Path) -> None:
    """Makes this VM the owner of the front of that folder. Raises OSError."""
    (folder / _OWNER_FILE).write_text(str(paths.folder))


def read(paths: VmPaths) -> Path | None:
    """The folder of this VM's front, whether that lives or not; None when it has none."""
    try:
        folder = Path(json.loads((paths.folder / NOTE_FILE).read_text())["folder"])
        return folder if (folder / _OWNER_FILE).read_text() == str(paths.folder) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def forget(paths: VmPaths) -> None:
    """The VM has no front any more."""
    (paths.folder / NOTE_FILE).unlink(missing_ok=True)
