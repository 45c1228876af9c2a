"""What a front (`teleport.vrde.front`) is started with, as it stands in its file, and where it is talked to in its folder."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from teleport.errors import UsageError
from teleport.machines.vrde import VrdeSettings, from_dict, to_dict

MOST_LINE_BYTES = 1 << 20
CONTROL_SOCKET = "control.sock"
LOG_FILE = "vrde.log"  # what the process writes to its stderr
GO_ON = b"\n"  # what who has started a front answers to its first status

Json = dict[str, object]


@dataclass(frozen=True)
class FrontConfig:
    """What a front is started with. `screens`, `agent`, `clipboard` and `microphone` are endpoints as text
    (`teleport.vrde.endpoint`; the latter three "" for a VM without such channels), `keys` a folder that keeps certificates over restarts
    (default: the front's own)."""

    vm_name: str
    folder: str
    settings: VrdeSettings
    screens: tuple[str, ...]
    agent: str = ""
    clipboard: str = ""
    microphone: str = ""
    keys: str = ""
    details: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(asdict(self) | {"settings": to_dict(self.settings)})

    @classmethod
    def from_json(cls, text: str) -> "FrontConfig":
        """Reads `to_json`. Raises UsageError."""
        try:
            raw = json.loads(text)
            return cls(**(raw | {"settings": from_dict(raw["settings"]), "screens": tuple(raw["screens"])}))
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError("the display's configuration", f"makes no sense: {error}") from error
