"""Drives the *real* handover tables of both sides, an owner record, a channel and two QEMUs through every interleaving.

Explored: every order of the steps below with every choice of up to `faults` faults at every point; time-outs fire at any moment;
messages may be late, and are lost once the link is cut; the target's agent may have to leave at any moment (its guardian is gone).
Checked in every state:

- never two:   source and target never both run the guest;
- never stale: the source never runs it again once the target has run it;
- never torn:  with plan *shared*, the source never runs while a target that loads, holds or runs the guest maps its RAM;

and in every end (a bottom component of the graph: nothing leads out of it any more):

- exactly one copy runs; or a fault took the QEMU or host that owned the guest; or the source waits for its own storage; or, only with
  more than one fault, the source's paused copy is kept in doubt.

Run: python -m tests.explorer.explore [--faults N] [--shared] [--no-record]

`world` is one state, `source_side` and `target_side` are the agents, `surroundings` everything that happens to them, `rules` what is
checked; here is the search.
"""

import argparse
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from teleport.handover.machine import Row, Table
from teleport.handover.source import SOURCE
from teleport.handover.target import TARGET
from tests.explorer.graph import bottom_components
from tests.explorer.rules import broken_rule, end_of, is_wrong
from tests.explorer.source_side import SourceSide
from tests.explorer.surroundings import hits, lost_messages, qemu_steps
from tests.explorer.target_side import TargetSide
from tests.explorer.world import Setting, SourceTable, Steps, TargetTable, World


@dataclass(frozen=True)
class Explored:
    """What an exploration found: the rule that some state breaks ("" for none) and how it came to that; the ends, counted by number of
    faults and kind; how many states there are."""

    rule: str
    trace: tuple[str, ...]
    ends: dict[tuple[int, str], int]
    states: int


class Explorer:
    """One exploration. `shared`: plan shared. `record`: both sides have an owner record."""

    def __init__(
        self, *, shared: bool, record: bool, faults: int, source: SourceTable = SOURCE, target: TargetTable = TARGET
    ) -> None:
        self._setting = Setting(shared=shared, record=record, faults=faults, source=source, target=target)
        self._source, self._target = SourceSide(self._setting), TargetSide(self._setting)

    def _by_itself(self, w: World) -> Steps:
        """What may happen without a fault."""
        yield from self._source.steps(w)
        yield from self._target.steps(w)
        yield from qemu_steps(w, shared=self._setting.shared)
        yield from lost_messages(w)

    def run(self) -> Explored:
        """Breadth first, so that a broken rule's trace is as short as can be."""
        with _nothing_to_collect():
            return self._search()

    def _search(self) -> Explored:
        setting = self._setting
        start = World()
        number: dict[World, int] = {start: 0}
        worlds = [start]
        came: list[tuple[int, str]] = [(-1, "")]
        own: list[list[int]] = []

        def trace(index: int) -> list[str]:
            names = []
            while index > 0:
                index, name = came[index]
                names.append(name)
            return names[::-1]

        index = 0
        while index < len(worlds):
            w = worlds[index]
            if rule := broken_rule(w, shared=setting.shared):
                return Explored(rule, tuple(trace(index)), {}, len(worlds))
            following: list[int] = []
            after = list(self._by_itself(w))
            by_itself = len(after)
            if len(w.faults) < setting.faults:
                after += hits(w)
            for place, (name, then) in enumerate(after):
                if then == w:
                    continue
                seen = number.get(then)
                if seen is None:
                    seen = number[then] = len(worlds)
                    worlds.append(then)
                    came.append((index, name))
                if place < by_itself and len(then.faults) == len(w.faults):
                    following.append(seen)
            own.append(following)
            index += 1
        ends: dict[tuple[int, str], int] = {}
        for member in bottom_components(own):
            w = worlds[member]
            end = end_of(w, record=setting.record)
            if is_wrong(end, w, record=setting.record):
                return Explored(f"{end} with {w.faults}", (*trace(member), str(w)), {}, len(worlds))
            ends[len(w.faults), end] = ends.get((len(w.faults), end), 0) + 1
        return Explored("", (), ends, len(worlds))


@contextmanager
def _nothing_to_collect() -> Iterator[None]:
    """Millions of small tuples without a cycle among them: the collector would walk through all of them again and again."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def replaced(table: SourceTable | TargetTable, rows: dict[tuple[object, object], Row[object, object]]) -> object:
    """The same table with some rows replaced: the known-bad variants of the tests."""
    return Table(rows={**table.rows, **rows}, final=table.final, shared_only=table.shared_only)


def main() -> int:
    """The command line; 1 when a rule is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=2)
    parser.add_argument("--shared", action="store_true")
    parser.add_argument("--no-record", action="store_true")
    options = parser.parse_args()
    found = Explorer(shared=options.shared, record=not options.no_record, faults=options.faults).run()
    print(found.states, "states")
    for (count, kind), members in sorted(found.ends.items()):
        print(f"  {count} faults: {members:6} ends: {kind}")
    if found.rule:
        print(found.rule, *found.trace, sep="\n  ")
    return bool(found.rule)


if __name__ == "__main__":
    sys.exit(main())
