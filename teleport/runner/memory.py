"""What a runner runs, for the successor of its agent: `vm.json` in the runtime folder."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from teleport.model import GuestIdentity

# What is being done with the VM while it is not simply running, and whether it shall run afterwards.
Doing = Literal["", "starting", "saving", "restoring"]


@dataclass(frozen=True)
class Remembered:
    """One VM with a QEMU. `label` is the guardian's name for that QEMU; `runs` says whether the guest ran (or shall run)."""

    label: str
    generation: int
    smbios_uuid: str
    macs: tuple[tuple[int, str], ...]
    doing: Doing = ""
    runs: bool = True

    @property
    def identity(self) -> GuestIdentity:
        """What the guest sees of the VM's identity."""
        return GuestIdentity(smbios_uuid=self.smbios_uuid, macs=self.macs)


class Memory:
    """The file. It need not survive the host, only the agent: it is replaced whole."""

    def __init__(self, runtime: Path) -> None:
        self._path = runtime / "vm.json"

    def read(self) -> Remembered | None:
        """What a predecessor ran; None when it ran nothing (or what it left cannot be read)."""
        try:
            known = json.loads(self._path.read_text())
            known["macs"] = tuple((int(number), str(mac)) for number, mac in known["macs"])
            return Remembered(**known)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @property
    def changed_at(self) -> float:
        """When it was written last, in seconds of the files' clock. Only while there is something."""
        return self._path.stat().st_mtime

    def write(self, known: Remembered) -> None:
        """Replaces it."""
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(known)))
        fresh.replace(self._path)

    def forget(self) -> None:
        """Nothing runs any more."""
        self._path.unlink(missing_ok=True)
