"""One state of the explored system: both agents, both QEMUs, record, journals, channel; and what is the same in all of its states."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from teleport.handover.machine import Table
from teleport.handover.source import HEARD, SOURCE, SourceEffect, SourceEvent, SourcePhase
from teleport.handover.target import TARGET, TargetEffect, TargetEvent, TargetStep, word

SourceTable = Table[SourcePhase, SourceEvent, SourceEffect]
TargetTable = Table[TargetStep, TargetEvent, TargetEffect]


@dataclass(frozen=True)
class Setting:
    """What one exploration takes for given. `shared`: plan shared; `record`: both sides have an owner record; `faults`: at most so many."""

    shared: bool
    record: bool
    faults: int
    source: SourceTable = SOURCE
    target: TargetTable = TARGET


class World(NamedTuple):
    """Everything that matters of one moment."""

    sa: SourcePhase | None = SourcePhase.PREPARED  # the source's agent; None: it is down
    sdo: tuple[SourceEffect, ...] = ()  # what it has yet to perform
    ta: TargetStep | None = TargetStep.LOADING
    tdo: tuple[TargetEffect, ...] = ()
    sgone: bool = False  # the host is gone, its agent never returns
    tgone: bool = False
    started: bool = False  # START was given to the source
    sq: str = "run"  # the source's QEMU: run, paused, dead
    tq: str = "wait"  # wait, loaded, failed, active, run, dead
    mig: str = "none"  # none, active, preswitch, device, completed, failed
    stopped: bool = False  # the source's guest was stopped once in this epoch
    sj: str = "prepared"  # the last record of the source's journal
    tj: str = "prepared"  # prepared, intent, notrun, started, aborted, gaveback
    g1: str = ""  # who owns generation g+1: S, T
    g2: str = ""
    noted: bool = False
    net: frozenset[str] = frozenset()  # messages under way
    link: bool = True
    sdisk: bool = True  # the source reaches the storage
    tdisk: bool = True
    tran: bool = False  # the guest ran at the target once
    faults: tuple[str, ...] = ()


Step = tuple[str, World]
"""What happens, and the state after it."""
Steps = Iterator[Step]


def says(w: World) -> str:
    """What the target answers when it is asked, as the source hears it."""
    assert w.ta is not None
    return HEARD[word(w.ta, w.tdo)].name.removeprefix("SAID_")


def send(w: World, message: str) -> World:
    """The message is under way, if there is a way."""
    return w._replace(net=w.net | {message}) if w.link else w
