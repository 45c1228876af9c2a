"""Named fault points: places in the code where a test stops, kills or delays this very process, at an exact step.

`TELEPORT_FAULTS` holds a comma-separated list of ``NAME[@N]=ACTION[:ARGUMENT]``; `@N` means from the N-th passage on only
that one (counted from 1; without it, each passage). Actions:

========  ==========================================================================================================
stop      SIGSTOP to this process
kill      SIGKILL to this process
exit:N    leaves at once with status N (1), without clean-up
raise:T   raises StorageError with the text T
delay:S   waits S seconds
hang      returns only when the fault points are set anew (for code in a thread that is abandoned)
wait:F    creates the file F, and goes on when somebody has removed it
========  ==========================================================================================================

``@FILE`` instead names a file that holds such a list and is read again at each point, so that a test can arm and disarm a process
that runs (and the successor of one that it killed); passages are then counted from each change of the file on.

Unset, a fault point costs a look at a name and into an empty dictionary.
"""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from teleport.errors import StorageError, UsageError

ENVIRONMENT = "TELEPORT_FAULTS"
_POLL_SECONDS = 0.005
_ACTIONS = frozenset({"stop", "kill", "exit", "raise", "delay", "hang", "wait"})


@dataclass
class _Fault:
    action: str
    argument: str
    only_passage: int  # 0: each
    passages: int = 0


class _Armed:
    """The fault points of this process."""

    def __init__(self) -> None:
        self.faults: dict[str, _Fault] = {}
        self._file: Path | None = None
        self._text = ""

    def set(self, text: str) -> None:
        self._file = Path(text[1:]) if text.startswith("@") else None
        self._text = ""
        self.faults = {} if self._file else _parsed(text)

    def at(self, name: str) -> _Fault | None:
        if self._file:
            text = self._file.read_text() if self._file.exists() else ""
            if text != self._text:
                self._text, self.faults = text, _parsed(text)
        return self.faults.get(name)


_armed = _Armed()


def set_faults(text: str) -> None:
    """Replaces the fault points of this process by those of `text` (the environment variable's form; "" removes all).

    Raises UsageError when the text cannot be understood.
    """
    _armed.set(text)


def _parsed(text: str) -> dict[str, _Fault]:
    faults: dict[str, _Fault] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        point, equals, what = entry.partition("=")
        name, _, passage = point.partition("@")
        action, _, argument = what.partition(":")
        if not equals or action not in _ACTIONS or (passage and not passage.isdigit()):
            raise UsageError(
                f"{ENVIRONMENT}: {entry!r}", "not NAME[@N]=ACTION[:ARGUMENT]", f"actions are {', '.join(sorted(_ACTIONS))}"
            )
        faults[name] = _Fault(action, argument, int(passage or 0))
    return faults


def fault_point(name: str) -> None:
    """Does what the test asked for at `name`; blocks the calling thread for as long as that takes."""
    if fault := _armed.at(name):
        for seconds in _play(name, fault):
            time.sleep(seconds)


async def async_fault_point(name: str) -> None:
    """The same without blocking the event loop in `wait`, `delay` and `hang`."""
    if fault := _armed.at(name):
        for seconds in _play(name, fault):
            await asyncio.sleep(seconds)


def _play(name: str, fault: _Fault) -> Iterator[float]:
    """Yields the seconds to sleep between two looks."""
    fault.passages += 1
    if fault.only_passage not in (0, fault.passages):
        return
    match fault.action:
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(int(fault.argument or 1))
        case "raise":
            raise StorageError(f"fault point {name}", fault.argument or "a test asked for this")
        case "delay":
            yield float(fault.argument or 1)
        case "wait":
            mark = Path(fault.argument)
            mark.touch()
            while mark.exists():
                yield _POLL_SECONDS
        case _:
            while _armed.at(name) is fault:
                yield 0.05


set_faults(os.environ.get(ENVIRONMENT, ""))
