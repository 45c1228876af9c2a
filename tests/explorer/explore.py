"""Drives the *real* handover tables of both sides, an owner record, a channel and two QEMUs through every interleaving.

Explored: every order of the steps below with every choice of up to `faults` faults at every point; time-outs fire at any moment;
messages may be late, and are lost once the link is cut. Checked in every state:

- never two:   source and target never both run the guest;
- never stale: the source never runs it again once the target has run it;
- never torn:  with plan *shared*, the source never runs while a target that loads, holds or runs the guest maps its RAM;

and in every end (a bottom component of the graph: nothing leads out of it any more):

- exactly one copy runs; or a fault took the QEMU or host that owned the guest; or the source waits for its own storage; or, only with
  more than one fault, the source's paused copy is kept in doubt.

Run: python -m tests.explorer.explore [--faults N] [--shared] [--no-record]
"""

import argparse
import sys
from collections.abc import Iterator
from typing import NamedTuple

from teleport.handover.machine import Row, Table
from teleport.handover.source import HEARD, SOURCE, SourceEffect, SourceEvent, SourcePhase
from teleport.handover.target import TARGET, TargetEffect, TargetEvent, TargetStep, word

S, SE, SF = SourcePhase, SourceEvent, SourceEffect
T, TE, TF = TargetStep, TargetEvent, TargetEffect

SourceTable = Table[SourcePhase, SourceEvent, SourceEffect]
TargetTable = Table[TargetStep, TargetEvent, TargetEffect]


class World(NamedTuple):
    """Everything that matters: both agents with the effects they have yet to perform, both QEMUs, record, journals, channel."""

    sa: SourcePhase | None = S.PREPARED  # None: the agent is down
    sdo: tuple[SourceEffect, ...] = ()
    ta: TargetStep | None = T.LOADING
    tdo: tuple[TargetEffect, ...] = ()
    sgone: bool = False  # the host is gone, its agent never returns
    tgone: bool = False
    started: bool = False  # START was given to the source
    sq: str = "run"  # run, paused, dead
    tq: str = "wait"  # wait, loaded, failed, active, run, dead
    mig: str = "none"  # none, active, preswitch, device, completed, failed
    stopped: bool = False  # the source's guest was stopped once in this epoch
    sj: str = "prepared"
    tj: str = "prepared"  # prepared, intent, notrun, started, aborted, gaveback
    g1: str = ""
    g2: str = ""
    noted: bool = False
    net: frozenset[str] = frozenset()
    link: bool = True
    sdisk: bool = True
    tdisk: bool = True
    tran: bool = False
    faults: tuple[str, ...] = ()


def says(w: World) -> str:
    """What the target answers when it is asked, as the source hears it."""
    assert w.ta is not None
    return HEARD[word(w.ta, w.tdo)].name.removeprefix("SAID_")


def send(w: World, message: str) -> World:
    return w._replace(net=w.net | {message}) if w.link else w


class Explorer:
    """One exploration. `shared`: plan shared. `record`: both sides have an owner record."""

    def __init__(self, *, shared: bool, record: bool, source: SourceTable = SOURCE, target: TargetTable = TARGET) -> None:
        self.shared, self.record, self.source, self.target = shared, record, source, target

    # ------------------------------------------------------------------ events
    def to_source(self, w: World, event: SourceEvent) -> World:
        assert w.sa is not None
        row = self.source.step(w.sa, event, shared=self.shared)
        return w._replace(sa=row.phase, sdo=row.effects)

    def to_target(self, w: World, event: TargetEvent) -> World:
        assert w.ta is not None
        row = self.target.step(w.ta, event, shared=self.shared)
        return w._replace(ta=row.phase, tdo=row.effects)

    def source_takes(self, w: World, event: SourceEvent) -> bool:
        return w.sa is not None and not w.sdo and ((w.sa, event) in self.source.rows)

    def target_takes(self, w: World, event: TargetEvent) -> bool:
        return w.ta is not None and not w.tdo and ((w.ta, event) in self.target.rows)

    # ------------------------------------------------------------------ effects
    def source_effect(self, w: World) -> Iterator[tuple[str, World]]:
        effect, rest = w.sdo[0], w._replace(sdo=w.sdo[1:])
        name = f"S {effect.value}"

        def answer(world: World, event: SourceEvent) -> tuple[str, World]:
            return f"{name} → {event.value}", self.to_source(world._replace(sdo=()), event)

        match effect:
            case SF.STOP_GUEST:
                yield (name, rest._replace(sq="paused", stopped=True)) if w.sq != "dead" else answer(w, SE.QEMU_DIED)
            case SF.MIGRATE:
                if w.sq == "dead":
                    yield answer(w, SE.QEMU_DIED)
                elif w.tq == "wait" and w.link:
                    yield name, rest._replace(mig="active")
                else:
                    yield answer(w, SE.MIGRATION_FAILED)
            case SF.CHECK_TARGET:
                if w.link and w.ta is not None:
                    said = says(w)
                    yield answer(w, SE.TARGET_ANSWERED if said == "WAITING" else SE[f"SAID_{said}"])
                else:
                    yield answer(w, SE.SILENCE)
            case SF.MIGRATE_CONTINUE:
                if w.sq == "dead":
                    yield answer(w, SE.QEMU_DIED)
                elif w.mig == "preswitch":
                    yield name, rest._replace(mig="device")
                else:
                    yield answer(w, SE.MIGRATION_FAILED)
            case SF.MIGRATE_CANCEL:
                # QEMU resumes a guest that it stopped itself; one that we stopped (shared) stays paused
                if w.mig in ("active", "preswitch", "device"):
                    tq = "failed" if w.tq == "wait" else w.tq
                    sq = "run" if w.sq == "paused" and not self.shared else w.sq
                    yield name, rest._replace(mig="failed", sq=sq, tq=tq)
                else:
                    yield name, rest
            case SF.SEND_COMMIT:
                yield name, send(rest, "COMMIT")
            case SF.SEND_ABORT:
                yield name, send(rest, "ABORT")
            case SF.CLAIM:
                if not self.record or not w.sdisk:
                    yield answer(w, SE.CLAIM_UNKNOWN)
                elif w.g1 in ("", "S"):
                    yield answer(w._replace(g1="S"), SE.CLAIM_WON)
                else:
                    yield answer(w, SE.CLAIM_LOST)
            case SF.TAKE_BACK:
                if not self.record:
                    yield answer(w, SE.CLAIM_WON)
                elif not w.sdisk:
                    yield answer(w, SE.CLAIM_UNKNOWN)
                elif w.g1 in ("", "S"):
                    yield answer(w._replace(g1="S"), SE.CLAIM_WON)
                elif w.g2 in ("", "S"):
                    yield answer(w._replace(g2="S"), SE.CLAIM_WON)
                else:
                    yield answer(w, SE.CLAIM_LOST)
            case SF.LOOK_AT_RECORD:
                if not self.record or not w.sdisk:
                    yield answer(w, SE.RECORD_UNCHANGED)
                elif w.g2 == "S" or (w.g1 == "S" and w.g2 == ""):
                    yield answer(w, SE.RECORD_OURS)
                elif w.g1 == "T" and w.noted:
                    yield answer(w, SE.RECORD_STARTED)
                else:
                    yield answer(w, SE.RECORD_UNCHANGED)
            case SF.KILL_TARGET:
                yield name, rest._replace(tq="dead")
            case SF.RESUME:
                if w.sq == "dead":
                    yield answer(w, SE.QEMU_DIED)
                elif w.sq != "run" and (w.tq != "dead" if self.shared else w.tq in ("active", "run")):
                    yield answer(w, SE.RESUME_REFUSED)
                else:
                    yield answer(w._replace(sq="run"), SE.RESUMED)
            case SF.QUIT_QEMU:
                yield name, rest._replace(sq="dead")
            case SF.JOURNAL_RESUMED:
                yield name, rest._replace(sj="resumed")
            case SF.JOURNAL_MOVED:
                yield name, rest._replace(sj="moved")

    def target_effect(self, w: World) -> Iterator[tuple[str, World]]:
        effect, rest = w.tdo[0], w._replace(tdo=w.tdo[1:])
        name = f"T {effect.value}"

        def answer(world: World, event: TargetEvent) -> tuple[str, World]:
            return f"{name} → {event.value}", self.to_target(world._replace(tdo=()), event)

        match effect:
            case TF.ACTIVATE:
                if w.tq in ("loaded", "active") and w.tdisk and w.sq != "run":
                    yield answer(w._replace(tq="active"), TE.ACTIVATED)
                else:
                    yield answer(w, TE.ACTIVATE_FAILED)
            case TF.CLAIM:
                if not self.record:
                    yield answer(w, TE.CLAIM_WON)
                elif not w.tdisk:
                    yield answer(w, TE.CLAIM_UNKNOWN)
                elif w.g1 in ("", "T"):
                    yield answer(w._replace(g1="T"), TE.CLAIM_WON)
                    if len(w.faults) < self.budget:
                        lost = w._replace(g1="T", tdisk=False, faults=(*w.faults, "T's claim wins, reply and storage lost"))
                        yield answer(lost, TE.CLAIM_UNKNOWN)
                else:
                    yield answer(w, TE.CLAIM_LOST)
            case TF.JOURNAL_INTENT:
                yield name, rest._replace(tj="intent")
            case TF.CONT:
                if w.tq == "active":
                    yield answer(w._replace(tq="run", tran=True), TE.CONTINUED)
                else:
                    yield answer(w, TE.CONT_REFUSED)
            case TF.JOURNAL_STARTED:
                yield name, rest._replace(tj="started")
            case TF.NOTE_STARTED:
                yield name, rest._replace(noted=w.noted or w.tdisk)
            case TF.ANNOUNCE:
                yield name, rest
            case TF.KILL_QEMU:
                yield name, rest._replace(tq="dead")
            case TF.JOURNAL_ABORTED:
                yield name, rest._replace(tj="aborted")
            case TF.JOURNAL_NOT_RUN:
                yield name, rest._replace(tj="notrun")
            case TF.JOURNAL_GAVE_BACK:
                yield name, rest._replace(tj="gaveback")
            case TF.GIVE_BACK:
                if self.record and not w.tdisk:
                    yield answer(w, TE.CLAIM_UNKNOWN)
                elif self.record and w.g1 == "T" and w.g2 in ("", "S"):
                    yield answer(w._replace(g2="S"), TE.CLAIM_WON)
                else:
                    yield answer(w, TE.CLAIM_LOST)
            case TF.TELL:
                yield name, send(rest, says(rest))

    # ------------------------------------------------------------------ what may happen by itself
    def steps(self, w: World) -> Iterator[tuple[str, World]]:
        yield from self.source_steps(w)
        yield from self.target_steps(w)
        yield from self.qemu_steps(w)
        if not w.link:
            for message in w.net:
                yield f"{message} is lost", w._replace(net=w.net - {message})

    def source_steps(self, w: World) -> Iterator[tuple[str, World]]:
        if w.sa is None:
            if not w.sgone:
                yield "S agent restarts", self.restart_source(w)
            return
        if w.sdo:
            yield from self.source_effect(w)
            return
        if w.sa is S.PREPARED and not w.started:
            yield "S starts", self.to_source(w._replace(started=True), SE.START)
        hears = []
        if w.sq == "dead":
            hears.append(SE.QEMU_DIED)
        if w.mig == "preswitch":
            hears.append(SE.PRE_SWITCHOVER)
        if w.mig == "completed":
            hears.append(SE.COMPLETED)
        if w.mig == "failed":
            hears.append(SE.MIGRATION_FAILED)
        hears += [SE.TICK, SE.SILENCE, SE.CANCEL]
        for event in hears:
            if self.source_takes(w, event):
                yield f"S hears {event.value}", self.to_source(w, event)
        for message in w.net - {"COMMIT", "ABORT"}:
            event = SE[f"SAID_{message}"]
            if self.source_takes(w, event):
                yield f"S hears {message}", self.to_source(w._replace(net=w.net - {message}), event)
            elif w.sa in self.source.final:
                yield f"S ignores {message}", w._replace(net=w.net - {message})

    def restart_source(self, w: World) -> World:
        if w.sj == "moved":
            return w._replace(sa=S.MOVED)
        if w.sj == "resumed":
            return w._replace(sa=S.RESUMED)
        event = {"run": SE.RESTARTED_RUNNING, "paused": SE.RESTARTED_PAUSED, "dead": SE.RESTARTED_DEAD}[w.sq]
        return self.to_source(w._replace(sa=S.PREPARED, started=True), event)

    def target_steps(self, w: World) -> Iterator[tuple[str, World]]:
        if w.ta is None:
            if not w.tgone:
                yield "T agent restarts", self.restart_target(w)
            return
        # the source's heartbeat asks at any moment, also between two effects
        if w.link and w.sa is not None and w.sa not in self.source.final and says(w) not in w.net:
            yield f"T says {says(w)}", send(w, says(w))
        if w.tdo:
            yield from self.target_effect(w)
            return
        hears = []
        if w.tq in ("loaded", "active"):
            hears.append(TE.COMPLETED)
        if w.tq == "failed":
            hears.append(TE.LOAD_FAILED)
        if w.tq == "dead":
            hears.append(TE.QEMU_DIED)
        hears += [TE.TICK, TE.SILENCE]
        if not w.tdisk:
            hears.append(TE.GIVE_UP)
        for event in hears:
            if self.target_takes(w, event):
                yield f"T hears {event.value}", self.to_target(w, event)
        for message, event in (("COMMIT", TE.COMMIT), ("ABORT", TE.ABORT)):
            if message in w.net:
                quiet = w._replace(net=w.net - {message})
                if self.target_takes(w, event):
                    yield f"T hears {message}", self.to_target(quiet, event)
                else:
                    yield f"T ignores {message}", quiet

    def restart_target(self, w: World) -> World:
        done = {"aborted": T.ABORTED, "gaveback": T.GAVE_BACK, "started": T.STARTED}
        if w.tj in done:
            return w._replace(ta=done[w.tj])
        if w.tq == "run":
            event = TE.RESTARTED_RUNNING
        elif w.tq == "dead":
            event = TE.RESTARTED_DEAD_AFTER_INTENT if w.tj == "intent" else TE.RESTARTED_DEAD
        else:
            event = TE.RESTARTED_WAITING
        return self.to_target(w._replace(ta=T.LOADING), event)

    def qemu_steps(self, w: World) -> Iterator[tuple[str, World]]:
        carried = w.link and w.sa is not None and w.ta is not None and w.sq != "dead" and w.tq == "wait"
        broken = w._replace(mig="failed", sq="run" if w.sq == "paused" and not self.shared else w.sq,
                            tq="failed" if w.tq == "wait" else w.tq)  # fmt: skip
        if w.mig == "active":
            if carried:
                yield "QEMU reaches pre-switchover", w._replace(mig="preswitch", sq="paused", stopped=True)
            elif w.sq != "dead":
                yield "QEMU's migration fails", broken
        elif w.mig == "preswitch" and not carried and w.sq != "dead":
            yield "QEMU's migration fails", broken
        elif w.mig == "device":
            if carried:
                yield "target QEMU loads all", w._replace(tq="loaded")
            elif w.sq != "dead" and w.tq in ("loaded", "active"):
                yield "source QEMU completes", w._replace(mig="completed")
                if not (w.link and w.sa is not None and w.ta is not None):
                    yield "the last message is lost, source QEMU fails", broken
            elif w.sq != "dead":
                yield "QEMU's migration fails", broken
        if w.mig in ("active", "preswitch", "device") and w.sq == "dead" and w.tq == "wait":
            yield "target QEMU loses the stream", w._replace(tq="failed")

    # ------------------------------------------------------------------ faults
    def hits(self, w: World) -> Iterator[tuple[str, World]]:
        def hit(fault: str, **changes: object) -> tuple[str, World]:
            return fault, w._replace(faults=(*w.faults, fault), **changes)

        if w.sa is not None:
            yield hit("S agent killed", sa=None, sdo=())
            if w.sq != "dead":
                yield hit("S agent and QEMU killed", sa=None, sdo=(), sq="dead")
        if w.ta is not None:
            yield hit("T agent killed", ta=None, tdo=())
            if w.tq != "dead":
                yield hit("T agent and QEMU killed", ta=None, tdo=(), tq="dead")
        if w.sq != "dead":
            yield hit("S QEMU killed", sq="dead")
        if w.tq != "dead":
            yield hit("T QEMU killed", tq="dead")
        if not w.sgone:
            yield hit("S host gone", sgone=True, sa=None, sdo=(), sq="dead")
        if not w.tgone:
            yield hit("T host gone", tgone=True, ta=None, tdo=(), tq="dead")
        if w.link:
            yield hit("link cut", link=False)
        if w.sdisk:
            yield hit("storage lost at S", sdisk=False)
        if w.tdisk:
            yield hit("storage lost at T", tdisk=False)

    # ------------------------------------------------------------------ rules
    def broken_rule(self, w: World) -> str:
        if w.sq == "run" and w.tq == "run":
            return "TWO RUNNING"
        if w.sq == "run" and w.tran:
            return "STALE RESUME"
        if self.shared and w.sq == "run" and w.stopped and w.tq in ("loaded", "active", "run"):
            return "SOURCE RUNS WHILE ITS RAM IS MAPPED"
        return ""

    def crashed(self, w: World) -> bool:
        """A fault took the only QEMU that held the guest, or the only host that could go on with it."""
        hit = set(w.faults)
        at_target = {"T QEMU killed", "T agent and QEMU killed", "T host gone"}
        at_source = {"S QEMU killed", "S agent and QEMU killed", "S host gone"}
        if (w.tran or w.tj == "intent") and at_target & hit:
            return True
        if w.g1 == "T" and w.g2 == "" and "T host gone" in hit:
            return True  # it owned the guest; the source's paused copy is kept for `resolve`
        return bool(at_source & hit) and w.tq != "run"

    def end(self, w: World) -> str:
        running = (w.sq == "run") + (w.tq == "run")
        if running == 1:
            return "one runs"
        if self.crashed(w):
            return "the guest crashed with its QEMU or host"
        if w.sq == "paused" and not w.sdisk and self.record:
            return "waits at the source for its storage, copy kept"
        if w.sq == "paused":
            return "in doubt, copy kept"
        return "LOST"

    def end_is_wrong(self, w: World, end: str) -> bool:
        if end == "LOST":
            return True
        # without a record one fault may end in doubt: silence after COMMIT cannot be told apart (handover.md)
        return end == "in doubt, copy kept" and len(w.faults) < (2 if self.record else 1)

    # ------------------------------------------------------------------ the search
    def run(self, faults: int) -> tuple[str, list[str], dict[tuple[int, str], int], int]:
        """Returns (broken rule or "", its trace, ends by (faults, kind), number of states)."""
        self.budget = faults
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
            rule = self.broken_rule(w)
            if rule:
                return rule, trace(index), {}, len(worlds)
            following: list[int] = []
            after = list(self.steps(w))
            by_itself = len(after)
            if len(w.faults) < faults:
                after += self.hits(w)
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
            kind = self.end(w)
            if self.end_is_wrong(w, kind):
                return f"{kind} with {w.faults}", [*trace(member), str(w)], {}, len(worlds)
            ends[len(w.faults), kind] = ends.get((len(w.faults), kind), 0) + 1
        return "", [], ends, len(worlds)


def bottom_components(graph: list[list[int]]) -> Iterator[int]:
    """Members of the strongly connected components that nothing leads out of (Tarjan, iterative)."""
    count, stack = 0, []
    order, low, component = [-1] * len(graph), [0] * len(graph), [-1] * len(graph)
    components = 0
    for root in range(len(graph)):
        if order[root] >= 0:
            continue
        work = [(root, 0)]
        while work:
            node, edge = work.pop()
            if edge == 0:
                order[node] = low[node] = count
                count += 1
                stack.append(node)
            advanced = False
            for position in range(edge, len(graph[node])):
                child = graph[node][position]
                if order[child] < 0:
                    work.append((node, position + 1))
                    work.append((child, 0))
                    advanced = True
                    break
                if component[child] < 0:
                    low[node] = min(low[node], order[child])
            if advanced:
                continue
            if low[node] == order[node]:
                while True:
                    member = stack.pop()
                    component[member] = components
                    if member == node:
                        break
                components += 1
            if work:
                parent = work[-1][0]
                low[parent] = min(low[parent], low[node])
    leaves = [True] * components
    for node, children in enumerate(graph):
        if any(component[child] != component[node] for child in children):
            leaves[component[node]] = False
    return (node for node in range(len(graph)) if leaves[component[node]])


def replaced(table: SourceTable | TargetTable, rows: dict[tuple[object, object], Row[object, object]]) -> object:
    """The same table with some rows replaced: the known-bad variants of the tests."""
    return Table(rows={**table.rows, **rows}, final=table.final, shared_only=table.shared_only)  # type: ignore[arg-type, misc]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=2)
    parser.add_argument("--shared", action="store_true")
    parser.add_argument("--no-record", action="store_true")
    options = parser.parse_args()
    rule, trace, ends, states = Explorer(shared=options.shared, record=not options.no_record).run(options.faults)
    print(states, "states")
    for (count, kind), members in sorted(ends.items()):
        print(f"  {count} faults: {members:6} ends: {kind}")
    if rule:
        print(rule, *trace, sep="\n  ")
    return bool(rule)


if __name__ == "__main__":
    sys.exit(main())
