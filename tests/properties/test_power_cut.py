"""A power cut between any two steps of a command leaves what was before it or what is after it, never something between, and the
same command then gets through. So does storage that fails from some step on, and the command says so.

Each case runs its command once per step and fault. The test at the end fails for a module that writes and is in no case.
"""

import ast
import importlib
import os
import resource
import shlex
import shutil
import signal
import sys
from pathlib import Path

import pytest

from teleport.cli import VERBS, main
from teleport.errors import TeleportError
from tests.properties.crash_cases import CASES, WORK, Action, Case, Ended, Seen, paths, require_old_or_new, seen
from tests.properties.power_cut import CUT, TOOLS, Fault, Struck, run_struck

PACKAGE = Path(__file__).parents[2] / "teleport"
PRISTINE, SAID = Path("pristine"), Path("said")
MOST_STEPS = 200
WRITING = {
    *("write_durably", "write_text", "write_bytes", "rename", "symlink_to", "hardlink_to", "touch", "mkdir", "make_folder"),
    *("unlink", "rmdir", "rmtree", "run_tool", "make_durable", "truncate", "copymode", "pwrite"),
}
# Modules that write, are in no case above, and why.
ELSEWHERE = {
    "host/journal.py": "tests/properties/test_journal_crash.py",
    "host/owner_record.py": "tests/unit/host/test_owner_record.py",
    "host/firmware_variables.py": "in place, as QEMU does it itself, and a mixture after a cut: its docstring says so",
    "host/storage_proofs.py": "proofs of one preflight, which is over after a cut",
    "host/process.py": "a note of this boot, looked at anew when it is not whole",
    "host/pipe.py": "sockets",
    "host/swtpm.py": "a lock",
    "host/faults.py": "marks of the tests' own",
    "machines/display_note.py": "of a process that a cut ends; one that is not whole is none (tests/unit/machines/test_display_note.py)",
    "runner/state.py": "one that is not whole says that the VM was cut off (tests/unit/cli/test_live.py)",
    "runner/live.py": "of a QEMU that a cut ends; one that is not whole is none",
    "runner/launch.py": "folders and logs",
    "runner/saving.py": "QEMU writes the state; the case of saved states makes it durable in its place",
    "runner/epochs.py": "the folder of journals; removes those that are over",
    **dict.fromkeys(
        ("runner/discard.py", "runner/__main__.py", "cli/running.py"), "why a start failed, for the command that waits for it"
    ),
    **dict.fromkeys(
        (
            *(
                "runner/guardian.py",
                "runner/guarded.py",
                "runner/memory.py",
                "runner/display_folder.py",
                "runner/runtime_folder.py",
                "runner/entrance.py",
            ),
            *(
                "cli/display.py",
                "vrde/rdp/xrdp.py",
                "vrde/front.py",
                "vrde/usb.py",
                "vrde/control.py",
                "wire/control_server.py",
            ),
        ),
        "the runtime folder, which is of one boot",
    ),
    "cli/console.py": "a file for mstsc, written for whoever asked",
}


@pytest.fixture(scope="module", autouse=True)
def _verbs_are_loaded() -> None:
    """So that not each child does it."""
    for module, _ in VERBS.values():
        importlib.import_module(f"teleport.cli.{module.partition(':')[0]}")


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with the VM S, and the current folder beside it; all paths in it stay what they are."""
    monkeypatch.setenv("TELEPORT_HOME", str(tmp_path / "work/home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work/here").mkdir(parents=True)
    assert _run("createvm --name S --ostype Linux26_64 --register").code == 0, SAID.read_text()
    return tmp_path


def _run(action: Action, *, strike_at: int = sys.maxsize, fault: Fault = Fault.CUT) -> Struck:
    """In a child. A command's current folder is that of the scene's images."""

    def run() -> None:
        if isinstance(action, str):
            os.chdir(WORK / "here")
            main(shlex.split(action))
        try:
            assert callable(action)
            action()
        except (TeleportError, OSError) as error:
            print(f"teleport: error: {error}")
            raise SystemExit(1) from error

    return run_struck(run, watched=WORK.absolute(), said=SAID.absolute(), strike_at=strike_at, fault=fault)


def _restored(scene: Path) -> None:
    shutil.rmtree(scene / WORK)
    shutil.copytree(scene / PRISTINE, scene / WORK, symlinks=True)


# ---------------------------------------------------------------------------------------------------------------- the tests
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_was_or_what_is_to_be(scene: Path, case: Case) -> None:
    for action in case.before:
        assert _run(action).code == 0, SAID.read_text()
    before = seen(case)
    shutil.copytree(WORK, PRISTINE, symlinks=True)
    whole = _run(case.run)
    assert whole.code == 0, SAID.read_text()
    assert whole.modules >= set(case.through)
    after = seen(case)
    assert after != before
    for fault in Fault:
        steps = _strike_everywhere(scene, case, fault, before, after)
        assert steps, f"{fault}: {SAID.read_text()}"


def _strike_everywhere(scene: Path, case: Case, fault: Fault, before: Seen, after: Seen) -> int:
    for step in range(1, MOST_STEPS):
        _restored(scene)
        struck = _run(case.run, strike_at=step, fault=fault)
        if not struck.came:
            assert struck.code == 0 and seen(case) == after, SAID.read_text()
            return step - 1
        ended = Ended(died=fault is Fault.CUT, code=struck.code, said=f"{fault} at step {step}: {SAID.read_text()}")
        assert not ended.died or ended.code == CUT, ended
        require_old_or_new(case, ended, run=lambda action: _run(action).code, before=before, after=after)
    raise AssertionError("it never got through")


def test_a_disk_that_is_full_in_the_middle_of_a_file_changes_nothing(scene: Path) -> None:
    def no_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))  # the message still fits into its file, a definition doesn't
        main(["modifyvm", "S", "--memory", "96"])

    file = paths().definition
    before = file.read_bytes()
    assert len(before) > 600
    assert _run(no_room).code == 1
    assert "teleport: error: writing" in SAID.read_text()
    assert file.read_bytes() == before
    assert [each.name for each in file.parent.iterdir() if each.name.endswith(".new")] == []


def test_every_module_that_writes_is_in_a_case() -> None:
    """A new one needs a case above that goes through it, or a reason why it needs none."""
    writing = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if _writes(path)}
    in_a_case = {module for case in CASES for module in case.through}
    assert writing - TOOLS - in_a_case - set(ELSEWHERE) == set()


def _writes(path: Path) -> bool:
    """Whether its source calls what changes files (but not what others pass to `write_durably`)."""
    if "_generated" in path.parts:
        return False
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr == "O_CREAT":
            return True
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in WRITING or (name == "replace" and isinstance(node.func, ast.Attribute) and len(node.args) == 1):
                return True
    return False
