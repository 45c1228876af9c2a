"""The mechanism both state machines share: a table of transitions, and effects that the driver performs.

A *table* maps (phase, event) to a `Row`: the next phase and the effects to perform, in order. An event that a phase does not list
raises `Unlisted` and changes nothing. A machine never awaits, logs or reads a clock; the driver (`teleport.runner.drive`) feeds it
events one at a time and performs what it returns:

- effects run in order; an effect that answers with an event ends the list, and its answer is fed to the machine at once,
  before any event from outside;
- a record is durable before the effect behind it in the list happens;
- an effect marked `SHARED_ONLY` in its table is left out unless the plan maps the source's RAM in the target (plan *shared*).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

Phase = TypeVar("Phase", bound=Enum)
Event = TypeVar("Event", bound=Enum)
Effect = TypeVar("Effect", bound=Enum)


class Unlisted(Exception):
    """The table lists no such event for this phase; nothing was changed."""


@dataclass(frozen=True)
class Row(Generic[Phase, Effect]):
    """What one event does in one phase."""

    phase: Phase
    effects: tuple[Effect, ...] = ()


@dataclass(frozen=True)
class Table(Generic[Phase, Event, Effect]):
    """Every transition of one machine; `final` phases take any event and stay."""

    rows: Mapping[tuple[Phase, Event], Row[Phase, Effect]]
    final: frozenset[Phase]
    shared_only: frozenset[Effect]

    def step(self, phase: Phase, event: Event, *, shared: bool) -> Row[Phase, Effect]:
        """The row for `event` in `phase`, without the effects that only plan *shared* needs when it is not that plan.

        Raises Unlisted where the table has no such row.
        """
        row = self.rows.get((phase, event))
        if row is None:
            if phase in self.final:
                return Row(phase)
            raise Unlisted(f"{phase} does not take {event}")
        if shared:
            return row
        return Row(row.phase, tuple(effect for effect in row.effects if effect not in self.shared_only))

    def diagram(self) -> str:
        """The table as a Mermaid state diagram, one arrow a row that changes the phase (docs/handover.md holds it; a test compares)."""
        lines = ["stateDiagram-v2"]
        arrows: dict[tuple[str, str], list[str]] = {}
        for (phase, event), row in self.rows.items():
            if row.phase is not phase:
                arrows.setdefault((phase.name, row.phase.name), []).append(event.name.lower().replace("_", " "))
        lines += [f"    {here} --> {there}: {' / '.join(events)}" for (here, there), events in arrows.items()]
        lines += [f"    {phase.name} --> [*]" for phase in sorted(self.final, key=lambda p: p.name)]
        return "\n".join(lines) + "\n"


def listed(phases: Iterable[Phase], event: Event, row: Row[Phase, Effect]) -> dict[tuple[Phase, Event], Row[Phase, Effect]]:
    """The same row for several phases."""
    return {(phase, event): row for phase in phases}


def stays(phase: Phase, *events: Event) -> dict[tuple[Phase, Event], Row[Phase, Effect]]:
    """Events that may come late or twice and change nothing."""
    return {(phase, event): Row(phase) for event in events}
