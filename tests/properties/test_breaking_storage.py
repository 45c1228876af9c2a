"""Real commands, with the home and the images on a real filesystem that breaks: at any change that they or qemu-img ask the kernel for,
everything is killed, the power goes, or the storage fails or is full. What is there then is what was before or what is to be.

`test_power_cut` knows Python's steps alone, and is faster: CI goes through all of those, and through some of these.
TELEPORT_STORAGE_FAULTS=full (`deploy/storage-faults`) strikes everywhere, TELEPORT_STORAGE_SEED=N chooses otherwise.
"""

import os
import random
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.properties.breaking_filesystem import Fault
from tests.properties.breaking_storage import BreakingStorage, breaking_storage
from tests.properties.crash_cases import CASES, WORK, Action, Case, Ended, Seen, require_old_or_new, seen

EVERYWHERE = os.environ.get("TELEPORT_STORAGE_FAULTS") == "full"
SEED = int(os.environ.get("TELEPORT_STORAGE_SEED", "1"))
SAID = Path("said")
_STRIKES = 3  # of each case, where they are chosen
_FIRST = ("modifyvm", "snapshot take", "modifymedium --format")


def _chosen() -> list[Case]:
    if EVERYWHERE:
        return list(CASES)
    others = [case for case in CASES if case.name not in _FIRST]
    return [*(case for case in CASES if case.name in _FIRST), *random.Random(SEED).sample(others, 2)]


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BreakingStorage]:
    """The scene of `crash_cases`, on it."""
    monkeypatch.setenv("TELEPORT_HOME", str(tmp_path / "work/home"))
    monkeypatch.chdir(tmp_path)
    WORK.mkdir()
    with breaking_storage(WORK, said=SAID) as mounted:
        (WORK / "here").mkdir()
        assert _run(mounted, "createvm --name S --ostype Linux26_64 --register") == 0, SAID.read_text()
        yield mounted


def _run(storage: BreakingStorage, action: Action) -> int:
    if isinstance(action, str):
        return storage.run(shlex.split(action), folder=WORK / "here")
    return storage.call(action)


@pytest.mark.parametrize("case", _chosen(), ids=lambda case: case.name)
@pytest.mark.timeout(3600 if EVERYWHERE else 180)
def test_what_was_or_what_is_to_be(storage: BreakingStorage, case: Case) -> None:
    for action in case.before:
        assert _run(storage, action) == 0, SAID.read_text()
    before = seen(case)
    storage.keep()
    storage.mend()
    assert _run(storage, case.run) == 0, SAID.read_text()
    changes, _ = storage.changes()
    storage.cut(seed=SEED)
    after = seen(case)
    assert after != before, "a power cut after it was done undid it"
    strikes = [(change, fault) for change in range(1, changes + 1) for fault in Fault]
    for change, fault in strikes if EVERYWHERE else random.Random(SEED).sample(strikes, min(_STRIKES, len(strikes))):
        storage.restore()
        _strike(storage, case, change, fault, before=before, after=after)


def _strike(storage: BreakingStorage, case: Case, change: int, fault: Fault, *, before: Seen, after: Seen) -> None:
    storage.break_at(change, fault, seed=SEED + change)
    code = _run(storage, case.run)
    ended = Ended(died=code == -9, code=code, said=f"{fault} at change {change}: {SAID.read_text()}")
    if storage.changes()[1] and fault in (Fault.KILLED, Fault.CUT):
        assert ended.died, ended
    if EVERYWHERE and fault is Fault.FAILS:  # what only reads, still works
        assert _run(storage, "list vms --long") == 0, SAID.read_text()
    storage.mend()
    require_old_or_new(case, ended, run=lambda action: _run(storage, action), before=before, after=after)
