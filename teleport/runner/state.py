"""How a VM is, or how it ended: `state.json` beside its definition, for whoever looks while no runner answers."""

import json
import time
from pathlib import Path

from teleport.model import VmState


class StateFile:
    """The last state that a runner set. Replaced whole; it says nothing about ownership, so that it need not be durable."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state = VmState.POWEROFF
        self._detail = ""
        self._more: dict[str, str | int] = {}
        self.beside: dict[str, str] = {}  # goes into the file with every state, such as the display's port

    def set(self, state: VmState, detail: str = "", **more: str | int) -> None:
        """A new state with a word about why, and what `showvminfo` shows beside it (`teleporterport`, `qemu_pid`, …)."""
        self._state, self._detail, self._more = state, detail, more
        fresh = self._path.with_suffix(".new")
        known = {"state": state.value, "detail": detail, "since": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **self.beside, **more}
        fresh.write_text(json.dumps(known))
        fresh.replace(self._path)

    def set_beside(self, beside: dict[str, str]) -> None:
        """The same state, with something else beside it."""
        self.beside = beside
        self.set(self._state, self._detail, **self._more)

    def read(self) -> tuple[VmState, str]:
        """The state that this runner set last."""
        return self._state, self._detail
