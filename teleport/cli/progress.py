"""How a teleport is shown: live on a terminal, `0%...10%...100%` elsewhere (VirtualBox's form), or one JSON event a line."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import Enum
from typing import Any, Protocol, TextIO

from teleport.errors import RefusedError, TeleportError
from teleport.model import Outcome, OutcomeKind, Progress
from teleport.preflight.advice import sentences
from teleport.stream.progress import describe

_TENTH = 10


class Shown(Protocol):
    """Where events go."""

    def progress(self, event: Progress) -> None:
        """One look at it."""

    def note(self, text: str) -> None:
        """A word beside it."""

    def finish(self, outcome: Outcome) -> None:
        """It ended, moved or not."""

    def fail(self, error: TeleportError) -> None:
        """It was refused or failed; the error itself is printed by whoever ends the program."""


@contextmanager
def shown_on(stream: TextIO, *, as_json: bool, detailed: bool) -> Iterator[Shown]:
    """The form that fits: JSON on demand, lines with `detailed`, a live bar on a terminal, else VirtualBox's."""
    if as_json:
        yield _Json(stream)
    elif detailed:
        yield _Lines(stream)
    elif stream.isatty():
        live = _Live()
        with live:
            yield live
    else:
        yield _Percents(stream)


def as_event(outcome: Outcome) -> dict[str, Any]:
    """The end as a JSON event."""
    return {"event": "outcome", **_plain(asdict(outcome))}


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value.value if isinstance(value, Enum) else value for name, value in values.items()}


class _Json:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def progress(self, event: Progress) -> None:
        self._line({"event": "progress", **_plain(asdict(event))})

    def note(self, text: str) -> None:
        self._line({"event": "note", "text": text})

    def finish(self, outcome: Outcome) -> None:
        """The command prints the outcome itself, once the old runner is gone."""

    def fail(self, error: TeleportError) -> None:
        """The program's end prints errors as events."""

    def _line(self, event: dict[str, Any]) -> None:
        print(json.dumps(event), file=self._stream, flush=True)


class _Lines:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def progress(self, event: Progress) -> None:
        print(describe(event), file=self._stream, flush=True)

    def note(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def finish(self, outcome: Outcome) -> None:
        print(f"{100 if outcome.kind is OutcomeKind.MOVED else 0:3d}% {outcome.kind.value}", file=self._stream, flush=True)

    def fail(self, error: TeleportError) -> None:
        _table(error, self._stream)


class _Percents:
    """Tens as VirtualBox prints them, each once."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._next = 0

    def progress(self, event: Progress) -> None:
        self._up_to(event.percent)

    def note(self, text: str) -> None:
        if text.startswith("warning"):
            print(f"\n{text}", file=self._stream, flush=True)

    def finish(self, outcome: Outcome) -> None:
        if outcome.kind is OutcomeKind.MOVED:
            self._up_to(100)
        print(file=self._stream, flush=True)

    def fail(self, error: TeleportError) -> None:
        print(file=self._stream, flush=True)
        _table(error, self._stream)

    def _up_to(self, percent: int) -> None:
        while self._next <= percent and self._next <= 100:
            print(f"{self._next}%" + ("..." if self._next < 100 else ""), end="", file=self._stream, flush=True)
            self._next += _TENTH


class _Live:
    """One bar that is redrawn, with what a person wants to know beside it."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - 80 ms, on a terminal only
        from rich.progress import BarColumn, TextColumn  # noqa: PLC0415 - only in a terminal
        from rich.progress import Progress as Bars  # noqa: PLC0415 - only in a terminal

        self._console = Console()
        self._bars = Bars(
            TextColumn("{task.percentage:>3.0f}%"), BarColumn(), TextColumn("{task.description}"), console=self._console
        )
        self._bar = self._bars.add_task("checking", total=100)

    def __enter__(self) -> "_Live":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def progress(self, event: Progress) -> None:
        self._bars.update(self._bar, completed=event.percent, description=describe(event, percent=False))

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    def finish(self, outcome: Outcome) -> None:
        completed = 100 if outcome.kind is OutcomeKind.MOVED else None
        self._bars.update(self._bar, completed=completed, description=outcome.kind.value)

    def fail(self, error: TeleportError) -> None:
        self._bars.stop()
        _table(error, self._console.file)


def _table(error: TeleportError, stream: Any) -> None:
    """The preflight's findings: what, here, there; and below them what mends them."""
    if not isinstance(error, RefusedError) or not error.findings:
        return
    head = ("what", "here", "there")
    rows = [tuple(str(cell) for cell in row[:3]) for row in error.findings]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(3)]
    for row in (head, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), file=stream)
    mends = [*dict.fromkeys(row[3] for row in error.findings if row[3]), *sentences(error.findings)]
    print("To mend it:", *(f"  {mend}" for mend in mends), sep="\n", file=stream, flush=True)
