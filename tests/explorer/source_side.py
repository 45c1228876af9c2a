"""The source's agent: what it hears, and what its effects do to the world."""

from teleport.handover.source import SourceEffect, SourceEvent, SourcePhase
from tests.explorer.world import Setting, Step, Steps, World, says, send

S, E, F = SourcePhase, SourceEvent, SourceEffect


class SourceSide:
    """One agent with the table of `setting`."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._table = setting.source

    def steps(self, w: World) -> Steps:
        """What it may do next."""
        if w.sa is None:
            if not w.sgone:
                yield "S agent restarts", self._restarted(w)
            return
        if w.sdo:
            yield self._effect(w)
            return
        if w.sa is S.PREPARED and not w.started:
            yield "S starts", self._told(w._replace(started=True), E.START)
        for event in self._heard(w):
            if self._takes(w, event):
                yield f"S hears {event.value}", self._told(w, event)
        for message in w.net - {"COMMIT", "ABORT"}:
            event = E[f"SAID_{message}"]
            if self._takes(w, event):
                yield f"S hears {message}", self._told(w._replace(net=w.net - {message}), event)
            elif w.sa in self._table.final:
                yield f"S ignores {message}", w._replace(net=w.net - {message})

    @staticmethod
    def _heard(w: World) -> list[SourceEvent]:
        events = [E.TICK, E.SILENCE, E.CANCEL]
        if w.sq == "dead":
            events.append(E.QEMU_DIED)
        if w.mig == "preswitch":
            events.append(E.PRE_SWITCHOVER)
        if w.mig == "completed":
            events.append(E.COMPLETED)
        if w.mig == "failed":
            events.append(E.MIGRATION_FAILED)
        return events

    def _takes(self, w: World, event: SourceEvent) -> bool:
        return (w.sa, event) in self._table.rows

    def _told(self, w: World, event: SourceEvent) -> World:
        assert w.sa is not None
        row = self._table.step(w.sa, event, shared=self._setting.shared)
        return w._replace(sa=row.phase, sdo=row.effects)

    def _restarted(self, w: World) -> World:
        if w.sj == "moved":
            return w._replace(sa=S.MOVED)
        if w.sj == "resumed":
            return w._replace(sa=S.RESUMED)
        event = {"run": E.RESTARTED_RUNNING, "paused": E.RESTARTED_PAUSED, "dead": E.RESTARTED_DEAD}[w.sq]
        return self._told(w._replace(sa=S.PREPARED, started=True), event)

    def _effect(self, w: World) -> Step:
        """The first effect of its list."""
        effect, rest = w.sdo[0], w._replace(sdo=w.sdo[1:])
        name = f"S {effect.value}"

        def answer(world: World, event: SourceEvent) -> Step:
            return f"{name} → {event.value}", self._told(world._replace(sdo=()), event)

        match effect:
            case F.STOP_GUEST:
                return (name, rest._replace(sq="paused", stopped=True)) if w.sq != "dead" else answer(w, E.QEMU_DIED)
            case F.MIGRATE if w.sq == "dead":
                return answer(w, E.QEMU_DIED)
            case F.MIGRATE:
                return (name, rest._replace(mig="active")) if w.tq == "wait" and w.link else answer(w, E.MIGRATION_FAILED)
            case F.CHECK_TARGET if w.link and w.ta is not None:
                said = says(w)
                return answer(w, E.TARGET_ANSWERED if said == "WAITING" else E[f"SAID_{said}"])
            case F.CHECK_TARGET:
                return answer(w, E.SILENCE)
            case F.MIGRATE_CONTINUE if w.sq == "dead":
                return answer(w, E.QEMU_DIED)
            case F.MIGRATE_CONTINUE:
                return (name, rest._replace(mig="device")) if w.mig == "preswitch" else answer(w, E.MIGRATION_FAILED)
            case F.MIGRATE_CANCEL if w.mig in ("active", "preswitch", "device"):
                # QEMU resumes a guest that it stopped itself; one that we stopped (shared) stays paused
                sq = "run" if w.sq == "paused" and not self._setting.shared else w.sq
                return name, rest._replace(mig="failed", sq=sq, tq="failed" if w.tq == "wait" else w.tq)
            case F.MIGRATE_CANCEL:
                return name, rest
            case F.SEND_COMMIT:
                return name, send(rest, "COMMIT")
            case F.SEND_ABORT:
                return name, send(rest, "ABORT")
            case F.CLAIM | F.TAKE_BACK | F.LOOK_AT_RECORD:
                return answer(*self._at_the_record(w, effect))
            case F.KILL_TARGET:
                return name, rest._replace(tq="dead")
            case F.RESUME if w.sq == "dead":
                return answer(w, E.QEMU_DIED)
            case F.RESUME:
                # only the image locks refuse: that RAM which the target maps is not written is for the table to see to
                is_locked = w.sq != "run" and w.tq in ("active", "run")
                return answer(w, E.RESUME_REFUSED) if is_locked else answer(w._replace(sq="run"), E.RESUMED)
            case F.QUIT_QEMU:
                return name, rest._replace(sq="dead")
            case F.JOURNAL_RESUMED:
                return name, rest._replace(sj="resumed")
            case F.JOURNAL_MOVED:
                return name, rest._replace(sj="moved")

    def _at_the_record(self, w: World, effect: SourceEffect) -> tuple[World, SourceEvent]:
        """The record after a look or a claim, and the answer."""
        if effect is F.LOOK_AT_RECORD:
            if not self._setting.record or not w.sdisk:
                return w, E.RECORD_UNCHANGED
            if w.g2 == "S" or (w.g1 == "S" and w.g2 == ""):
                return w, E.RECORD_OURS
            return w, E.RECORD_STARTED if w.g1 == "T" and w.noted else E.RECORD_UNCHANGED
        takes_back = effect is F.TAKE_BACK
        if not self._setting.record:
            return w, E.CLAIM_WON if takes_back else E.CLAIM_UNKNOWN  # the target's word is enough where there is nothing else
        if not w.sdisk:
            return w, E.CLAIM_UNKNOWN
        if w.g1 in ("", "S"):
            return w._replace(g1="S"), E.CLAIM_WON
        if takes_back and w.g2 in ("", "S"):
            return w._replace(g2="S"), E.CLAIM_WON
        return w, E.CLAIM_LOST
