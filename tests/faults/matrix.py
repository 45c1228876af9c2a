"""Every single fault at every step: who is struck, when, and how it must end (handover.md, "Expected end of each single fault").

A step is an exact place: the process that comes there stops (`Scene.hold`), and goes on once the fault has struck.
"""

import time
from dataclasses import dataclass
from enum import Enum

from tests.harness.host import Host
from tests.harness.link import Link
from tests.harness.scene import Held, Scene, Teleporting, kill_hard, until


class Step(Enum):
    """Where the teleport is when the fault strikes, in order. `value` is the fault point; `source.` or `target.` says whose."""

    COPYING = "source.migrate"  # plan raw: in the middle of the rounds instead
    SWITCHING = "source.migrate-continue"  # the guest is stopped, its last pages have not gone
    SENT = "source.send-commit"  # the target has everything, COMMIT is not sent
    LOADED = "target.activate"  # COMMIT has arrived
    CLAIMING = "target.claim"
    CLAIMED = "target.journal-intent"  # the record says that the guest is the target's
    INTENT = "target.cont"
    RUNNING = "target.tell"  # the guest runs at the target, the source has not been told
    TOLD = "target.note-started"  # it was told and journalled at the target, whose agent has not taken it for its VM yet
    MOVED = "source.quit-qemu"  # it knows, and still has its paused copy
    LET_GO = "source.journal-moved"  # the paused copy is gone, its journal does not say so yet


class Victim(Enum):
    """What is killed with -9, or cut."""

    TARGET_QEMU = "target's QEMU"
    TARGET_AGENT = "target's agent"
    TARGET_GUARDIAN = "target's guardian"
    TARGET_STUCK = "target's guardian, with its agent stuck"  # until the teleport has ended: it leaves, as it stands
    TARGET_RUNNER = "target's guardian and agent"
    SOURCE_QEMU = "source's QEMU"
    SOURCE_AGENT = "source's agent"
    SOURCE_GUARDIAN = "source's guardian"
    SOURCE_RUNNER = "source's guardian and agent"
    LINK = "link"


class End(Enum):
    """Where the one guest is then."""

    SOURCE = "source"
    TARGET = "target"
    LOST = "lost"


@dataclass(frozen=True)
class Case:
    """One single fault."""

    victim: Victim
    step: Step
    plan: str

    def __str__(self) -> str:
        return f"{self.victim.value}, {self.step.name.lower()}, {self.plan}"


STEPS = tuple(Step)
# Once it was told, the source goes on by itself and is gone: only the target can be struck at an exact place.
_AT_THE_SOURCE = (Victim.SOURCE_QEMU, Victim.SOURCE_AGENT, Victim.SOURCE_GUARDIAN, Victim.SOURCE_RUNNER)
_GUARDIANS = (Victim.TARGET_GUARDIAN, Victim.SOURCE_GUARDIAN)  # the agent ends what it has begun, and leaves
# nobody of it is left: the next command on that VM brings another
_RUNNERS = (Victim.TARGET_STUCK, Victim.TARGET_RUNNER, Victim.SOURCE_RUNNER)
_STUCK_AT = (Step.LOADED, Step.CLAIMING, Step.CLAIMED, Step.INTENT)
MATRIX = tuple(
    Case(victim, step, plan)
    for victim in Victim
    for step in Step
    for plan in ("shared", "raw")
    if not (step is Step.TOLD and victim in _AT_THE_SOURCE)
    and not (step is Step.LET_GO and victim is Victim.SOURCE_QEMU)
    and not (victim is Victim.TARGET_STUCK and step not in _STUCK_AT)
)


def expected(case: Case) -> frozenset[End]:
    """How it must end. Two ends where the fault races with the target's claim, which decides: one guest in both."""
    before_commit = STEPS.index(case.step) <= STEPS.index(Step.SENT)
    claimed = STEPS.index(case.step) >= STEPS.index(Step.CLAIMED)
    running = STEPS.index(case.step) >= STEPS.index(Step.RUNNING)
    match case.victim:
        case Victim.TARGET_QEMU:  # claimed but never run: given back
            return frozenset({End.LOST if running else End.SOURCE})
        case Victim.SOURCE_QEMU:
            return frozenset({End.LOST if case.step in (Step.COPYING, Step.SWITCHING) else End.TARGET})
        case Victim.TARGET_GUARDIAN | Victim.TARGET_STUCK:  # its agent claims nothing any more
            return frozenset({End.TARGET if claimed else End.SOURCE})
        case Victim.SOURCE_GUARDIAN:  # its agent calls off what it can, and brings the rest to its end
            return frozenset({End.SOURCE if case.step in (Step.COPYING, Step.SWITCHING) else End.TARGET})
        case Victim.SOURCE_AGENT | Victim.SOURCE_RUNNER | Victim.LINK if before_commit:
            return frozenset({End.SOURCE})
        case Victim.TARGET_AGENT | Victim.TARGET_RUNNER if case.step in (Step.COPYING, Step.SWITCHING):
            return frozenset({End.SOURCE})
    return frozenset({End.TARGET} if claimed else {End.SOURCE, End.TARGET})


def play(scene: Scene, case: Case) -> End:
    """Plays it on a scene whose guest runs at `here`, and asserts everything that must hold. Leaves the guest at `scene.here`
    (swapped if it moved), unless it was lost: then the scene is spoilt."""
    began = time.monotonic()
    source, target = scene.here, scene.there
    port = scene.wait_there()
    options = ["--plan", case.plan]
    midway = case.plan == "raw" and case.step is Step.COPYING
    if midway:
        options += ["--max-bandwidth", "8000000"]
    held = None
    if not midway:
        held = scene.hold(source if case.step.value.startswith("source.") else target, case.step.value)
    with Link(port) as link, scene.begin(link.port, *options) as teleport:
        if held:
            held.reached()
        else:
            teleport.copying()
        strike(scene, case.victim, source, target, link)
        if held and case.victim is not Victim.TARGET_STUCK:
            held.release()
        code = teleport.end(150)
        if held:
            held.release()
        if case.victim is Victim.TARGET_STUCK:
            until(lambda: not scene.agents(target), "the agent stays")
        if case.victim in _GUARDIANS:
            _runs_by_itself(scene, source, target)
        if case.victim in _GUARDIANS + _RUNNERS:
            for host in (source, target):  # a guardian that died is replaced by the next command on that VM that needs one
                host.run("startvm" if host.home.qemus() else "showvminfo", host.name, check=False)
        end = settle(scene, source, target)
        told = f"{case}: ended at the {end.value}, exit code {code}, {teleport.error}\n{_logs(source, target)}"
        assert end in expected(case), told
        _check_code(case, end, code, told)
        if code == 0:
            assert teleport.outcome["kind"] == "moved", told
        if end is End.SOURCE and code == 1:
            # nobody is left to end a QEMU that had loaded the guest: told is which command does
            kept = case.victim is Victim.TARGET_RUNNER and f"teleport startvm {target.name}" in teleport.error
            assert kept or "the guest runs on here" in teleport.error, told
        if end is End.LOST:
            _check_lost(case, source, target, told)
            return end
        if end is End.TARGET:
            scene.swap()
        scene.runs_only_here(since_seconds=began)
        check = scene.console.check(f"{len(told)}")
        assert check.ok, told
        if end is End.SOURCE and case.victim not in _GUARDIANS + _RUNNERS:
            until(lambda: target.state == "teleportingin", f"the target does not wait on: {told}")
            assert not target.home.qemus(), told
    return end


def strike(scene: Scene, victim: Victim, source: Host, target: Host, link: Link) -> None:
    """The fault."""
    side = target if victim.value.startswith("target") else source
    match victim:
        case Victim.LINK:
            link.cut()
        case Victim.TARGET_QEMU | Victim.SOURCE_QEMU:
            (pid,) = side.home.qemus()
            kill_hard(pid)
        case Victim.TARGET_AGENT | Victim.SOURCE_AGENT:
            (pid,) = scene.agents(side)
            kill_hard(pid)
        case Victim.TARGET_GUARDIAN | Victim.TARGET_STUCK | Victim.SOURCE_GUARDIAN:
            (pid,) = scene.guardians(side)
            before = _farewells(side)
            kill_hard(pid)
            until(lambda: _farewells(side) > before, "the agent does not see that its guardian is gone")
        case Victim.TARGET_RUNNER | Victim.SOURCE_RUNNER:
            pids = scene.guardians(side) + scene.agents(side)  # in this order: nobody starts another agent
            for pid in pids:
                kill_hard(pid)
            until(lambda: not set(pids) & set(side.home.processes()), "a killed runner lives on")


def _farewells(host: Host) -> int:
    """How often an agent of this host has seen that its guardian is gone."""
    return sum(path.read_text(errors="replace").count("the guardian is gone") for path in host.home.folder.rglob("*.log"))


def _runs_by_itself(scene: Scene, source: Host, target: Host) -> None:
    """The agent that lost its guardian has left, and left nothing that waits for a command: a guest runs, one QEMU is there."""
    until(lambda: all(len(scene.agents(each)) == len(scene.guardians(each)) for each in (source, target)), "the agent stays")
    assert len(source.home.qemus()) + len(target.home.qemus()) == 1, _logs(source, target)
    last = scene.console.last_tick
    scene.console.wait_for_tick(30, after_counter=last.counter if last else -1, count=5)


def settle(scene: Scene, source: Host, target: Host) -> End:
    """Waits until nothing is left to decide: one QEMU (or none, lost), whose VM runs."""
    deadline = time.monotonic() + 90
    while True:
        states = source.state, target.state
        counts = len(source.home.qemus()), len(target.home.qemus())
        match states, counts:
            case ("running", _), (1, 0):
                return End.SOURCE
            case (_, "running"), (0, 1):
                return End.TARGET
            case ("aborted" | "teleported", _), (0, 0):
                return End.LOST
        assert time.monotonic() < deadline, f"not settled: {states}, QEMUs {counts}\n{_logs(source, target)}"
        time.sleep(0.2)


def _check_code(case: Case, end: End, code: int, told: str) -> None:
    """What the person at the command was told."""
    match end:
        case End.TARGET if case.victim is Victim.SOURCE_RUNNER and case.step is Step.LET_GO:
            assert code == 3, told  # nothing of it lives here any more: who runs it is for the owner record to say
        case End.TARGET:
            assert code in ((0, 3) if case.victim in (Victim.TARGET_RUNNER, Victim.TARGET_STUCK) else (0,)), told
        case End.SOURCE:
            assert code in ((1, 3) if case.victim is Victim.TARGET_RUNNER else (1,)), told
        case End.LOST:
            assert code == (4 if case.victim is Victim.SOURCE_QEMU else 0), told
    assert "Traceback" not in told, told


def _check_lost(case: Case, source: Host, target: Host, told: str) -> None:
    """As by a power cut: nobody runs it, and its owner can start it again."""
    owner, other = (source, target) if case.victim is Victim.SOURCE_QEMU else (target, source)
    assert owner.state == "aborted", told
    if owner is source:
        until(lambda: other.state == "teleportingin", f"the target does not wait on: {told}")
    owner.run("modifyvm", owner.name, "--teleporter", "off")
    owner.run("startvm", owner.name)
    assert owner.state == "running", told


def _logs(*hosts: Host) -> str:
    return "\n".join(host.home.logs() for host in hosts)


__all__ = ["MATRIX", "Case", "End", "Held", "Step", "Teleporting", "Victim", "expected", "play", "settle", "strike"]
