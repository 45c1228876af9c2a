"""The target's half of the handover: who takes the guest, and when it gives it back.

    LOADING ─▶ LOADED ─▶ ACTIVATING ─▶ CLAIMING ─▶ CLAIMED ─▶ STARTED
       └────────┴───────────┴─────────────┴▶ ABORTED     └▶ GIVING_BACK ─▶ GAVE_BACK
    COMMIT may arrive before QEMU's own `completed` is seen: AWAITING_LOAD.

Guarantees (explored exhaustively in tests/explorer): `cont` is said only after this side won generation g+1 and CONT_INTENT is
durable. ABORTED is said only after this side's QEMU is dead and the word is journalled: this epoch never ran here and never will.
A new agent that finds its QEMU dead behind a CONT_INTENT cannot know whether the guest ran: it neither runs it, nor gives it back,
nor aborts (LOST).
"""

from enum import Enum

from teleport.handover.machine import Row, Table, listed, stays
from teleport.model import TargetPhase


class TargetStep(Enum):
    """Where the target is in one epoch."""

    LOADING = "loading"
    LOADED = "loaded"
    AWAITING_LOAD = "awaiting-load"  # COMMIT is here, `completed` not yet
    ACTIVATING = "activating"  # takes the image locks
    CLAIMING = "claiming"
    CLAIMED = "claimed"  # owns the guest
    STARTED = "started"  # said cont
    GIVING_BACK = "giving-back"  # claimed, but cont was refused or QEMU died before it
    GAVE_BACK = "gave-back"
    ABORTED = "aborted"
    LOST = "lost"  # its QEMU died behind a CONT_INTENT


class TargetEvent(Enum):
    """What a target hears."""

    COMPLETED = "completed"
    LOAD_FAILED = "load-failed"
    COMMIT = "commit"
    ABORT = "abort"  # ABORT or REVOKED from the source
    SILENCE = "silence"  # nothing heard from the source for long
    TICK = "tick"
    GIVE_UP = "give-up"  # the owner record cannot be reached for long
    ACTIVATED = "activated"
    ACTIVATE_FAILED = "activate-failed"
    CLAIM_WON = "claim-won"
    CLAIM_LOST = "claim-lost"
    CLAIM_UNKNOWN = "claim-unknown"
    CONTINUED = "continued"
    CONT_REFUSED = "cont-refused"
    JOURNAL_FAILED = "journal-failed"
    QEMU_DIED = "qemu-died"
    RESTARTED_WAITING = "restarted-waiting"  # a new agent found its QEMU alive and paused; `completed` comes as its own event
    RESTARTED_RUNNING = "restarted-running"  # … running
    RESTARTED_DEAD = "restarted-dead"  # … dead, and CONT_INTENT was never journalled
    RESTARTED_DEAD_AFTER_INTENT = "restarted-dead-after-intent"


class TargetEffect(Enum):
    """What a target asks of its driver. Those that answer say with what."""

    ACTIVATE = "activate"  # answers ACTIVATED or ACTIVATE_FAILED
    CLAIM = "claim"  # g+1 for the target; answers CLAIM_*
    JOURNAL_INTENT = "journal-intent"  # answers JOURNAL_FAILED when it is not durable
    CONT = "cont"  # answers CONTINUED or CONT_REFUSED
    JOURNAL_STARTED = "journal-started"
    NOTE_STARTED = "note-started"  # beside the record; repeated on TICK until it is there
    ANNOUNCE = "announce"
    KILL_QEMU = "kill-qemu"  # returns when it is dead
    JOURNAL_ABORTED = "journal-aborted"
    JOURNAL_NOT_RUN = "journal-not-run"  # claimed, QEMU dead, never said cont
    GIVE_BACK = "give-back"  # g+2 for the source; answers CLAIM_*
    JOURNAL_GAVE_BACK = "journal-gave-back"
    TELL = "tell"  # the source hears at once what became of it


P, E, F = TargetStep, TargetEvent, TargetEffect

_ABORT = Row(P.ABORTED, (F.KILL_QEMU, F.JOURNAL_ABORTED, F.TELL))
_ABORTED = Row(P.ABORTED, (F.JOURNAL_ABORTED, F.TELL))
_ACTIVATE = Row(P.ACTIVATING, (F.ACTIVATE,))
_CLAIM = Row(P.CLAIMING, (F.CLAIM,))
_START = Row(P.CLAIMED, (F.JOURNAL_INTENT, F.CONT))
_STARTED = Row(P.STARTED, (F.TELL, F.JOURNAL_STARTED, F.NOTE_STARTED, F.ANNOUNCE))
_GIVE_BACK = Row(P.GIVING_BACK, (F.KILL_QEMU, F.JOURNAL_NOT_RUN, F.GIVE_BACK))
UNCLAIMED = (P.LOADING, P.LOADED, P.AWAITING_LOAD, P.ACTIVATING, P.CLAIMING)
"""Where `cont` was never said, and no claim is known to be won."""

TARGET = Table[TargetStep, TargetEvent, TargetEffect](
    rows={
        (P.LOADING, E.COMPLETED): Row(P.LOADED),
        (P.LOADING, E.COMMIT): Row(P.AWAITING_LOAD),
        (P.LOADED, E.COMMIT): _ACTIVATE,
        (P.AWAITING_LOAD, E.COMPLETED): _ACTIVATE,
        (P.ACTIVATING, E.ACTIVATED): _CLAIM,
        (P.CLAIMING, E.CLAIM_WON): _START,
        (P.CLAIMING, E.CLAIM_UNKNOWN): Row(P.CLAIMING),
        (P.CLAIMING, E.TICK): _CLAIM,
        (P.CLAIMED, E.CONTINUED): _STARTED,
        # --- until the claim is won, whatever goes wrong ends in ABORTED
        **listed((P.LOADING, P.LOADED, P.AWAITING_LOAD), E.LOAD_FAILED, _ABORT),
        **listed(UNCLAIMED, E.ABORT, _ABORT),
        **listed(UNCLAIMED, E.QEMU_DIED, _ABORT),
        **listed((P.LOADING, P.LOADED), E.SILENCE, _ABORT),
        (P.ACTIVATING, E.ACTIVATE_FAILED): _ABORT,
        (P.CLAIMING, E.CLAIM_LOST): _ABORT,
        (P.CLAIMING, E.GIVE_UP): _ABORT,  # it never said cont, whatever became of a claim whose reply was lost
        # --- claimed, and this agent knows that it never said cont
        (P.CLAIMED, E.CONT_REFUSED): _GIVE_BACK,
        (P.CLAIMED, E.JOURNAL_FAILED): _GIVE_BACK,
        (P.CLAIMED, E.QEMU_DIED): _GIVE_BACK,
        (P.GIVING_BACK, E.CLAIM_WON): Row(P.GAVE_BACK, (F.JOURNAL_GAVE_BACK, F.TELL)),
        # there was nothing to give back, or the storage is out of reach: the word alone then, and the source writes the record itself
        **listed((P.GIVING_BACK,), E.CLAIM_LOST, _ABORTED),
        **listed((P.GIVING_BACK,), E.CLAIM_UNKNOWN, _ABORTED),
        (P.GIVING_BACK, E.JOURNAL_FAILED): Row(P.ABORTED, (F.TELL,)),
        # --- late and repeated
        **stays(P.LOADING, E.TICK),
        **stays(P.LOADED, E.TICK, E.COMPLETED),
        **stays(P.AWAITING_LOAD, E.TICK, E.COMMIT, E.SILENCE),
        **stays(P.ACTIVATING, E.TICK, E.COMMIT, E.SILENCE, E.COMPLETED),
        **stays(P.CLAIMING, E.COMMIT, E.SILENCE, E.COMPLETED),
        **stays(P.CLAIMED, E.TICK, E.COMMIT, E.ABORT, E.SILENCE),
        **stays(P.GIVING_BACK, E.TICK, E.COMMIT, E.ABORT, E.SILENCE, E.QEMU_DIED),
        (P.STARTED, E.TICK): Row(P.STARTED, (F.NOTE_STARTED,)),
        **stays(P.STARTED, E.COMMIT, E.ABORT, E.SILENCE, E.QEMU_DIED, E.CONTINUED),
        # --- a new agent: PREPARED is in its journal, perhaps CONT_INTENT
        (P.LOADING, E.RESTARTED_WAITING): Row(P.LOADING),
        (P.LOADING, E.RESTARTED_RUNNING): _STARTED,
        (P.LOADING, E.RESTARTED_DEAD): _GIVE_BACK,  # a claim of its own may stand
        (P.LOADING, E.RESTARTED_DEAD_AFTER_INTENT): Row(P.LOST, (F.TELL,)),
    },
    final=frozenset({P.STARTED, P.GAVE_BACK, P.ABORTED, P.LOST}),
    shared_only=frozenset(),
)

_WORDS = {
    P.LOADING: TargetPhase.PREPARED,
    P.LOADED: TargetPhase.LOADED,
    P.AWAITING_LOAD: TargetPhase.PREPARED,
    P.ACTIVATING: TargetPhase.LOADED,
    P.CLAIMING: TargetPhase.LOADED,
    P.CLAIMED: TargetPhase.CLAIMED,
    P.STARTED: TargetPhase.STARTED,
    P.GIVING_BACK: TargetPhase.CLAIMED,
    P.GAVE_BACK: TargetPhase.GAVE_BACK,
    P.ABORTED: TargetPhase.ABORTED,
    P.LOST: TargetPhase.LOST,
}


def word(step: TargetStep, pending: tuple[TargetEffect, ...]) -> TargetPhase:
    """What the target says of itself when it is asked, with `pending` effects still to perform.

    A word that the source acts on is said only once what it rests on has happened (a dead QEMU, a durable record): until TELL has
    been performed the answer is CLAIMED, which makes a source wait. (The explorer found the stale resume behind an early ABORTED.)
    """
    return TargetPhase.CLAIMED if F.TELL in pending else _WORDS[step]
