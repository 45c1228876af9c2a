"""The target's agent: what it hears, and what its effects do to the world."""

from teleport.handover.target import TargetEffect, TargetEvent, TargetStep
from tests.explorer.world import Setting, Step, Steps, World, says, send

T, E, F = TargetStep, TargetEvent, TargetEffect
_RESTS = {"aborted": T.ABORTED, "gaveback": T.GAVE_BACK, "started": T.STARTED}


class TargetSide:
    """One agent with the table of `setting`."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._table = setting.target

    def steps(self, w: World) -> Steps:
        """What it may do next."""
        if w.ta is None:
            if not w.tgone:
                yield "T agent restarts", self._restarted(w)
            return
        # the source's heartbeat asks at any moment, also between two effects
        if w.link and w.sa is not None and w.sa not in self._setting.source.final and says(w) not in w.net:
            yield f"T says {says(w)}", send(w, says(w))
        if w.tdo:
            yield from self._effect(w)
            return
        for event in self._heard(w):
            if self._takes(w, event):
                yield f"T hears {event.value}", self._told(w, event)
        for message, event in (("COMMIT", E.COMMIT), ("ABORT", E.ABORT)):
            if message in w.net:
                quiet = w._replace(net=w.net - {message})
                if self._takes(w, event):
                    yield f"T hears {message}", self._told(quiet, event)
                else:
                    yield f"T ignores {message}", quiet

    @staticmethod
    def _heard(w: World) -> list[TargetEvent]:
        # ABORT and GIVE_UP are also what an agent says to itself that has lost its guardian
        events = [E.TICK, E.SILENCE, E.ABORT, E.GIVE_UP]
        if w.tq in ("loaded", "active"):
            events.append(E.COMPLETED)
        if w.tq == "failed":
            events.append(E.LOAD_FAILED)
        if w.tq == "dead":
            events.append(E.QEMU_DIED)
        return events

    def _takes(self, w: World, event: TargetEvent) -> bool:
        return (w.ta, event) in self._table.rows

    def _told(self, w: World, event: TargetEvent) -> World:
        assert w.ta is not None
        row = self._table.step(w.ta, event, shared=self._setting.shared)
        return w._replace(ta=row.phase, tdo=row.effects)

    def _restarted(self, w: World) -> World:
        if w.tj in _RESTS:
            return w._replace(ta=_RESTS[w.tj])
        if w.tq == "run":
            event = E.RESTARTED_RUNNING
        elif w.tq == "dead":
            event = E.RESTARTED_DEAD_AFTER_INTENT if w.tj == "intent" else E.RESTARTED_DEAD
        else:
            event = E.RESTARTED_WAITING
        return self._told(w._replace(ta=T.LOADING), event)

    def _effect(self, w: World) -> Steps:
        """The first effect of its list; a claim may end in more than one way."""
        effect, rest = w.tdo[0], w._replace(tdo=w.tdo[1:])
        name = f"T {effect.value}"

        def answer(world: World, event: TargetEvent) -> Step:
            return f"{name} → {event.value}", self._told(world._replace(tdo=()), event)

        match effect:
            case F.ACTIVATE if w.tq in ("loaded", "active") and w.tdisk and w.sq != "run":
                yield answer(w._replace(tq="active"), E.ACTIVATED)
            case F.ACTIVATE:
                yield answer(w, E.ACTIVATE_FAILED)
            case F.CLAIM:
                yield answer(*self._claim(w))
                wins = self._setting.record and w.tdisk and w.g1 in ("", "T")
                if wins and len(w.faults) < self._setting.faults:
                    lost = w._replace(g1="T", tdisk=False, faults=(*w.faults, "T's claim wins, reply and storage lost"))
                    yield answer(lost, E.CLAIM_UNKNOWN)
                # its guardian is gone: it claims nothing any more
                yield answer(w, E.GIVE_UP)
            case F.JOURNAL_INTENT:
                yield name, rest._replace(tj="intent")
            case F.CONT:
                can = w.tq == "active"
                yield answer(w._replace(tq="run", tran=True), E.CONTINUED) if can else answer(w, E.CONT_REFUSED)
            case F.JOURNAL_STARTED:
                yield name, rest._replace(tj="started")
            case F.NOTE_STARTED:
                yield name, rest._replace(noted=w.noted or w.tdisk)
            case F.ANNOUNCE:
                yield name, rest
            case F.KILL_QEMU:
                yield name, rest._replace(tq="dead")
            case F.JOURNAL_ABORTED:
                yield name, rest._replace(tj="aborted")
            case F.JOURNAL_NOT_RUN:
                yield name, rest._replace(tj="notrun")
            case F.JOURNAL_GAVE_BACK:
                yield name, rest._replace(tj="gaveback")
            case F.GIVE_BACK:
                yield answer(*self._give_back(w))
            case F.TELL:
                yield name, send(rest, says(rest))

    def _claim(self, w: World) -> tuple[World, TargetEvent]:
        if not self._setting.record:
            return w, E.CLAIM_WON
        if not w.tdisk:
            return w, E.CLAIM_UNKNOWN
        return (w._replace(g1="T"), E.CLAIM_WON) if w.g1 in ("", "T") else (w, E.CLAIM_LOST)

    def _give_back(self, w: World) -> tuple[World, TargetEvent]:
        if self._setting.record and not w.tdisk:
            return w, E.CLAIM_UNKNOWN
        can = self._setting.record and w.g1 == "T" and w.g2 in ("", "S")
        return (w._replace(g2="S"), E.CLAIM_WON) if can else (w, E.CLAIM_LOST)
