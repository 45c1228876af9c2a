"""The source's half of the handover: who lets go of the guest, and when it takes it back.

    PREPARED ─▶ COPYING ─▶ SWITCHING ─▶ COMMITTED ─▶ MOVED
                   └──────────┴▶ ABORTING ─▶ RESUMED        (before COMMIT an abort is free: the target cannot claim)
                                 COMMITTED ─▶ DECIDING ─▶ MINE ─▶ RESUMED
                                                  └▶ DOUBT ─▶ MINE | MOVED

Guarantees (explored exhaustively in tests/explorer): the source's copy runs again only when the target can never run this epoch:
before COMMIT, or after the source won the claim on the next generation of the owner record, or after the target's word that it
never ran. It lets its paused copy go only when it knows that the target said `cont` (STARTED), by the target's word or the note
beside the record; a lost claim alone is no such knowledge. With plan *shared* the target's QEMU is dead before the source resumes,
because it maps the same RAM.
"""

from enum import Enum

from teleport.handover.machine import Row, Table, listed, stays
from teleport.model import TargetPhase


class SourcePhase(Enum):
    """Where the source is in one epoch."""

    PREPARED = "prepared"  # journalled; nothing asked of QEMU yet
    COPYING = "copying"  # QEMU migrates; the guest runs (plan shared: it is stopped first)
    SWITCHING = "switching"  # the guest is stopped, the last state travels
    COMMITTED = "committed"  # QEMU says completed, COMMIT was sent: the target may claim
    DECIDING = "deciding"  # silence, ABORT or a restart: the owner record decides
    DOUBT = "doubt"  # the target's claim was first; it is not known whether it said cont
    MINE = "mine"  # the target can never run this epoch: take the guest back
    ABORTING = "aborting"  # a free abort, before COMMIT
    RESUMED = "resumed"  # the guest is where it was
    MOVED = "moved"  # the target runs it
    LOST = "lost"  # this QEMU died while it held the only copy


class SourceEvent(Enum):
    """What a source hears."""

    START = "start"
    PRE_SWITCHOVER = "pre-switchover"  # QEMU stopped the guest and waits
    TARGET_ANSWERED = "target-answered"  # the check before migrate-continue
    COMPLETED = "completed"  # QEMU: the target has loaded everything
    MIGRATION_FAILED = "migration-failed"  # QEMU resumed the guest by itself, if it ran before
    CANCEL = "cancel"  # a person asks
    SILENCE = "silence"  # heartbeats are lost
    TICK = "tick"  # time to try again
    SAID_WAITING = "said-waiting"  # target: prepared or loaded, no COMMIT arrived
    SAID_CLAIMED = "said-claimed"  # target: owns the guest, has not said STARTED
    SAID_STARTED = "said-started"  # ACK
    SAID_ABORTED = "said-aborted"  # this epoch never ran there and never will
    SAID_GAVE_BACK = "said-gave-back"  # it claimed, never ran, and wrote g+2 = source
    SAID_LOST = "said-lost"  # its QEMU died after its intent: it cannot know
    CLAIM_WON = "claim-won"
    CLAIM_LOST = "claim-lost"
    CLAIM_UNKNOWN = "claim-unknown"
    RECORD_STARTED = "record-started"  # g+1 is the target's, and noted; or later generations exist that are not ours
    RECORD_OURS = "record-ours"  # the newest generation is ours: given back
    RECORD_UNCHANGED = "record-unchanged"  # g+1 is the target's and nothing more is known; or unreadable
    RESUMED = "resumed"
    RESUME_REFUSED = "resume-refused"  # the target's QEMU still holds the image locks, or its RAM
    QEMU_DIED = "qemu-died"
    RESTARTED_RUNNING = "restarted-running"  # a new agent found its QEMU running
    RESTARTED_PAUSED = "restarted-paused"  # … paused: it cannot know what was sent
    RESTARTED_DEAD = "restarted-dead"  # … gone


class SourceEffect(Enum):
    """What a source asks of its driver. Those that answer say with what."""

    STOP_GUEST = "stop-guest"  # plan shared only; answers MIGRATION_FAILED when refused
    MIGRATE = "migrate"  # answers MIGRATION_FAILED when refused
    CHECK_TARGET = "check-target"  # answers TARGET_ANSWERED, SILENCE or what the target said
    MIGRATE_CONTINUE = "migrate-continue"  # answers MIGRATION_FAILED when refused
    MIGRATE_CANCEL = "migrate-cancel"  # and waits until QEMU says cancelled, failed or completed
    SEND_COMMIT = "send-commit"  # what the target says comes as an event
    SEND_ABORT = "send-abort"  # also REVOKED; best effort, repeated
    CLAIM = "claim"  # g+1 for the source; answers CLAIM_*
    TAKE_BACK = "take-back"  # g+2 after the target's ABORT; answers CLAIM_*
    LOOK_AT_RECORD = "look-at-record"  # answers RECORD_*
    KILL_TARGET = "kill-target"  # plan shared only: its QEMU must be dead; answers RESUME_REFUSED while it is not
    RESUME = "resume"  # activate the disks, cont; answers RESUMED, RESUME_REFUSED or QEMU_DIED
    QUIT_QEMU = "quit-qemu"
    JOURNAL_RESUMED = "journal-resumed"
    JOURNAL_MOVED = "journal-moved"


P, E, F = SourcePhase, SourceEvent, SourceEffect

_ABORT = Row(P.ABORTING, (F.MIGRATE_CANCEL, F.SEND_ABORT, F.KILL_TARGET, F.RESUME))
_RESUME = Row(P.MINE, (F.SEND_ABORT, F.KILL_TARGET, F.RESUME))
_DECIDE = Row(P.DECIDING, (F.CLAIM,))
_MOVED = Row(P.MOVED, (F.QUIT_QEMU, F.JOURNAL_MOVED))
_COMMIT = Row(P.COMMITTED, (F.SEND_COMMIT,))
_DONE = Row(P.RESUMED, (F.JOURNAL_RESUMED,))
_TAKE_BACK = Row(P.DOUBT, (F.TAKE_BACK,))
_LOOK = Row(P.DOUBT, (F.LOOK_AT_RECORD,))
_SAID = (E.SAID_WAITING, E.SAID_CLAIMED, E.SAID_STARTED, E.SAID_ABORTED, E.SAID_GAVE_BACK, E.SAID_LOST)
_LATE_MIGRATION = (E.PRE_SWITCHOVER, E.COMPLETED, E.MIGRATION_FAILED, E.TARGET_ANSWERED)

SOURCE = Table[SourcePhase, SourceEvent, SourceEffect](
    rows={
        (P.PREPARED, E.START): Row(P.COPYING, (F.STOP_GUEST, F.MIGRATE)),
        # --- before COMMIT: whatever goes wrong, the guest goes on here
        (P.COPYING, E.PRE_SWITCHOVER): Row(P.SWITCHING, (F.CHECK_TARGET,)),
        **listed((P.PREPARED, P.COPYING, P.SWITCHING), E.CANCEL, _ABORT),
        **listed((P.PREPARED, P.COPYING, P.SWITCHING), E.SILENCE, _ABORT),
        **listed((P.PREPARED, P.COPYING, P.SWITCHING), E.MIGRATION_FAILED, _ABORT),
        **listed((P.PREPARED, P.COPYING, P.SWITCHING), E.SAID_ABORTED, _ABORT),
        **listed((P.PREPARED, P.COPYING, P.SWITCHING), E.SAID_GAVE_BACK, _ABORT),
        **listed((P.PREPARED, P.COPYING, P.SWITCHING), E.QEMU_DIED, Row(P.LOST, (F.SEND_ABORT,))),
        **stays(P.PREPARED, E.TICK, E.SAID_WAITING, E.SAID_CLAIMED),
        **stays(P.COPYING, E.TICK, E.SAID_WAITING, E.SAID_CLAIMED),
        **stays(P.SWITCHING, E.TICK, E.SAID_WAITING, E.SAID_CLAIMED, E.PRE_SWITCHOVER),
        (P.SWITCHING, E.TARGET_ANSWERED): Row(P.SWITCHING, (F.MIGRATE_CONTINUE,)),
        (P.SWITCHING, E.COMPLETED): _COMMIT,
        **stays(P.ABORTING, E.CANCEL, E.SILENCE, *_LATE_MIGRATION, *_SAID),
        (P.ABORTING, E.RESUMED): _DONE,
        (P.ABORTING, E.RESUME_REFUSED): Row(P.ABORTING),
        (P.ABORTING, E.TICK): Row(P.ABORTING, (F.SEND_ABORT, F.KILL_TARGET, F.RESUME)),
        (P.ABORTING, E.QEMU_DIED): Row(P.LOST, (F.SEND_ABORT,)),
        # --- COMMIT was sent
        (P.COMMITTED, E.SAID_STARTED): _MOVED,
        (P.COMMITTED, E.SAID_WAITING): _COMMIT,
        (P.COMMITTED, E.SAID_ABORTED): _DECIDE,
        (P.COMMITTED, E.SAID_GAVE_BACK): _LOOK,
        (P.COMMITTED, E.SAID_LOST): _LOOK,
        (P.COMMITTED, E.SILENCE): _DECIDE,
        (P.COMMITTED, E.QEMU_DIED): Row(P.DOUBT, (F.LOOK_AT_RECORD,)),
        **stays(P.COMMITTED, E.TICK, E.SAID_CLAIMED, E.CANCEL, *_LATE_MIGRATION),
        # --- the record decides
        (P.DECIDING, E.CLAIM_WON): _RESUME,
        (P.DECIDING, E.CLAIM_LOST): _LOOK,
        (P.DECIDING, E.CLAIM_UNKNOWN): Row(P.DECIDING),
        (P.DECIDING, E.TICK): _DECIDE,
        (P.DECIDING, E.SAID_STARTED): _MOVED,
        (P.DECIDING, E.SAID_ABORTED): _TAKE_BACK,
        (P.DECIDING, E.SAID_GAVE_BACK): _LOOK,
        **stays(P.DECIDING, E.SAID_WAITING, E.SAID_CLAIMED, E.SAID_LOST, E.SILENCE, E.CANCEL, E.QEMU_DIED, *_LATE_MIGRATION),
        # --- the target's claim was first
        (P.DOUBT, E.TICK): _LOOK,
        (P.DOUBT, E.RECORD_STARTED): _MOVED,
        (P.DOUBT, E.RECORD_OURS): _RESUME,
        (P.DOUBT, E.RECORD_UNCHANGED): Row(P.DOUBT),
        (P.DOUBT, E.SAID_STARTED): _MOVED,
        (P.DOUBT, E.SAID_ABORTED): _TAKE_BACK,
        (P.DOUBT, E.SAID_GAVE_BACK): _LOOK,
        (P.DOUBT, E.CLAIM_WON): _RESUME,
        (P.DOUBT, E.CLAIM_LOST): _LOOK,
        (P.DOUBT, E.CLAIM_UNKNOWN): Row(P.DOUBT),
        # a target's new agent whose claim stands waits for COMMIT again; this side claims nothing any more
        (P.DOUBT, E.SAID_WAITING): Row(P.DOUBT, (F.SEND_COMMIT,)),
        **stays(P.DOUBT, E.SAID_CLAIMED, E.SAID_LOST, E.SILENCE, E.CANCEL, E.QEMU_DIED, *_LATE_MIGRATION),
        # --- taken back
        (P.MINE, E.RESUMED): _DONE,
        (P.MINE, E.RESUME_REFUSED): Row(P.MINE),
        (P.MINE, E.TICK): _RESUME,
        (P.MINE, E.QEMU_DIED): Row(P.LOST, (F.SEND_ABORT,)),
        **stays(P.MINE, E.SILENCE, E.CANCEL, *_LATE_MIGRATION, *_SAID),
        # --- a new agent: PREPARED is all that its journal says
        (P.PREPARED, E.RESTARTED_RUNNING): _ABORT,
        (P.PREPARED, E.RESTARTED_PAUSED): _DECIDE,
        (P.PREPARED, E.RESTARTED_DEAD): Row(P.DOUBT, (F.LOOK_AT_RECORD,)),
        **stays(P.RESUMED, *_SAID),
    },
    final=frozenset({P.RESUMED, P.MOVED, P.LOST}),
    shared_only=frozenset({F.STOP_GUEST, F.KILL_TARGET}),
)

HEARD = {
    TargetPhase.UNKNOWN: E.SAID_CLAIMED,  # a runner that lost all memory of the epoch: no word to act on
    TargetPhase.PREPARED: E.SAID_WAITING,
    TargetPhase.LOADED: E.SAID_WAITING,
    TargetPhase.CLAIMED: E.SAID_CLAIMED,
    TargetPhase.STARTED: E.SAID_STARTED,
    TargetPhase.ABORTED: E.SAID_ABORTED,
    TargetPhase.GAVE_BACK: E.SAID_GAVE_BACK,
    TargetPhase.LOST: E.SAID_LOST,
}
"""The event that each word of the target is to the source."""
