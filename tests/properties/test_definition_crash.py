"""A power cut between any two steps of a change leaves the old or the new VM, whole, and the next command works.

A forked child runs the real command and ends without warning before the n-th line that it executes that writes, syncs, renames,
links, makes or removes something; for n from 1 until the command gets through. A write that fails (a limit on file sizes:
EFBIG) changes nothing and is said.
"""

import linecache
import os
import re
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from teleport.cli import main
from teleport.machines.definition import Definition
from teleport.machines.store import Store, StoredVm

WRITERS = tuple(f"/teleport/machines/{name}.py" for name in ("files", "store", "media"))
WRITES = re.compile(
    r"os\.(open|close|fsync)|\.write|flush|fsync|replace\(|unlink|mkdir|hardlink|rmdir|write_durably|sync_folder"
)
CUT = 9


def _child(words: list[str], prepare: Callable[[], None]) -> int:
    """Runs one command in a child after `prepare`; its exit code. What it prints goes to the file `said` in the current folder."""
    pid = os.fork()
    if pid == 0:
        said = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        code = 99
        try:
            prepare()
            main(words)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 98
        finally:
            sys.settrace(None)
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _cut_at(step: int) -> Callable[[], None]:
    def prepare() -> None:
        left = step

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal left
            if not frame.f_code.co_filename.endswith(WRITERS):
                return None
            if event == "line" and WRITES.search(linecache.getline(frame.f_code.co_filename, frame.f_lineno)):
                left -= 1
                if left == 0:
                    os._exit(CUT)
            return trace

        sys.settrace(trace)

    return prepare


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("TELEPORT_HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert _child(["createvm", "--name", "S", "--register"], lambda: None) == 0
    return Store(tmp_path / "home")


def _named(store: Store) -> dict[str, Definition]:
    every = store.all()
    assert all(isinstance(each, StoredVm) for each in every), every
    return {each.name: each.definition for each in every if isinstance(each, StoredVm)}


def _through_all_cuts(words: list[str], check: Callable[[], None], back: Callable[[], None]) -> int:
    """Cuts the command at every step, with `check` after each and `back` to undo what got through; the number of cuts."""
    for step in range(1, 2000):
        code = _child(words, _cut_at(step))
        if code == 0:
            return step - 1
        assert code == CUT, Path("said").read_text()
        check()
        back()
    raise AssertionError("it never got through")


def test_a_change_is_made_or_not(store: Store) -> None:
    old = store.find("S").definition
    new = old.model_copy(update={"machine": old.machine.model_copy(update={"memory_mb": 96})})

    def back() -> None:
        assert _child(["modifyvm", "S", "--memory", str(old.machine.memory_mb)], lambda: None) == 0

    def check() -> None:
        assert _named(store)["S"] in (old, new)

    assert _through_all_cuts(["modifyvm", "S", "--memory", "96"], check, back) > 5
    assert _named(store)["S"] == new


def test_a_vm_with_a_new_name_and_uuid_is_there_once(store: Store) -> None:
    old = store.find("S").definition
    fresh = "5a1d8f7e-0000-4000-8000-000000000001"

    def back() -> None:
        name = next(iter(_named(store)))
        assert _child(["modifyvm", name, "--name", "S", "--uuid", old.uuid], lambda: None) == 0

    def check() -> None:
        (vm,) = _named(store).values()
        assert (vm.name, vm.uuid) in ((old.name, old.uuid), ("T", fresh))

    _through_all_cuts(["modifyvm", "S", "--name", "T", "--uuid", fresh], check, back)
    assert store.find("T").uuid == fresh


def test_a_new_vm_is_there_whole_or_not_at_all(store: Store) -> None:
    def check() -> None:
        assert set(_named(store)) in ({"S"}, {"S", "N"})

    def back() -> None:
        """What a cut left is registered, or makes way for the next attempt."""
        if "N" in _named(store):
            store.unregister(store.find("N"), delete=True)
        elif (file := store.default_base_folder / "N" / "definition.toml").exists():
            store.unregister(store.register(file), delete=True)

    _through_all_cuts(["createvm", "--name", "N", "--register"], check, back)
    assert set(_named(store)) == {"S", "N"}


def test_a_new_disk_is_there_whole_or_not_at_all(store: Store) -> None:
    disk = Path("disk")

    def check() -> None:
        if disk.exists():
            assert _child(["showmediuminfo", "disk"], lambda: None) == 0

    def back() -> None:
        disk.unlink(missing_ok=True)

    assert store.all()
    _through_all_cuts(["createhd", "--filename", "disk", "--size", "1"], check, back)
    assert disk.exists()


def test_a_write_that_fails_changes_nothing_and_is_said(store: Store) -> None:
    def no_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))  # the message still fits into its file, a definition doesn't

    file = store.find("S").paths.definition
    before = file.read_bytes()
    assert len(before) > 600
    assert _child(["modifyvm", "S", "--memory", "96"], no_room) == 1
    assert "teleport: error: writing" in Path("said").read_text()
    assert file.read_bytes() == before
    assert _child(["createvm", "--name", "N", "--register"], no_room) == 1
    assert set(_named(store)) == {"S"}
    assert [each.name for each in file.parent.iterdir() if each.name.endswith(".new")] == []
