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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from teleport.cli import VERBS, main
from teleport.errors import StateError, TeleportError
from teleport.machines import firmware, media, preferences, saved_state, tpm_state
from teleport.machines.definition import Definition, Machine
from teleport.machines.saved_state import SavedFacts
from teleport.machines.snapshots import Snapshots
from teleport.machines.store import DEFINITION_FILE, Store, StoredVm, VmPaths
from teleport.model import GuestIdentity
from tests.properties.power_cut import CUT, TOOLS, Fault, Struck, run_struck

PACKAGE = Path(__file__).parents[2] / "teleport"
FRESH_UUID = "5a1d8f7e-0000-4000-8000-000000000001"
FACTS = SavedFacts(GuestIdentity("u", ()), generation=1, epoch="e", was_paused=False, software="s", qemu="10")
WORK, PRISTINE, SAID = Path("work"), Path("pristine"), Path("said")
MOST_STEPS = 200
STORE, MEDIA, SNAPSHOTS = "machines/store.py", "machines/media.py", "machines/snapshots.py"
SAVED, TPM, FIRMWARE, PREFERENCES = (f"machines/{name}.py" for name in ("saved_state", "tpm_state", "firmware", "preferences"))
Action = str | Callable[[], object]  # words of a command line, or a function


@dataclass(frozen=True)
class Case:
    """`run` is struck; `before` makes the scene. `again` are commands, one of which helps when it doesn't get through after a cut.
    `media` are images to look at, `through` the modules that write (those are steps)."""

    name: str
    run: Action
    before: tuple[Action, ...] = ()
    again: tuple[str, ...] = ()
    media: tuple[str, ...] = ()
    through: tuple[str, ...] = (STORE,)


# ---------------------------------------------------------------------------------------------------------------- the scene
def _store() -> Store:
    return Store((WORK / "home").absolute())


def _paths() -> VmPaths:
    return VmPaths(_store().default_base_folder / "S")


def _tpm_is(content: str) -> Callable[[], object]:
    return lambda: (tpm_state.own(_paths().folder) / tpm_state.STATE_FILES[1]).write_text(content)


def _tpm_arrived() -> None:
    (tpm_state.arriving(_paths().folder, "arrival-1") / tpm_state.STATE_FILES[1]).write_text("theirs")


def _tpm_adopted() -> None:
    tpm_state.adopt(_paths().folder / "tpm/arrival-1")


def _variables_are(content: bytes) -> Callable[[], object]:
    return lambda: (_paths().folder / firmware.VARIABLES_FILE).write_bytes(content)


def _firmware_made() -> object:
    return firmware.firmware_files(Definition(name="S", uuid=FRESH_UUID, machine=Machine(firmware="efi")), _paths().folder)


def _saved() -> None:
    stream = saved_state.begin(_paths())
    stream.write_bytes(b"QEVM")
    media.make_durable(stream)  # as the runner does when QEMU has written it
    saved_state.commit(_paths(), FACTS)


DISK = "createhd --filename d --size 1"
CONTROLLER = "storagectl S --name C --add sata"
CASES = (
    Case("createvm", "createvm --name N --register", again=("registervm ../home/machines/N",)),
    Case("registervm", "registervm ../home/machines/N", before=("createvm --name N",)),
    Case("unregistervm", "unregistervm S"),
    Case(
        "unregistervm --delete",
        "unregistervm S --delete",
        before=(_tpm_is("mine"), _variables_are(b"mine"), "snapshot S take one", "snapshot S delete one"),
        again=("registervm ../home/machines/S",),
    ),
    Case("modifyvm", "modifyvm S --memory 96 --nic2 intnet"),
    Case("modifyvm, who it is", f"modifyvm S --name T --uuid {FRESH_UUID}"),
    Case("setextradata global", "setextradata global key value", through=(PREFERENCES,)),
    Case("setproperty", "setproperty vrdeauthlibrary VBoxAuthSimple", through=(PREFERENCES,)),
    Case("storageattach", "storageattach S --storagectl C --port 0 --type hdd --medium d", before=(DISK, CONTROLLER)),
    Case("createhd", DISK, media=("d",), through=(MEDIA,)),
    Case("clonemedium", "clonemedium d e", before=(DISK,), media=("d", "e"), through=(MEDIA,)),
    Case("modifymedium --resize", "modifymedium d --resize 2", before=(DISK,), media=("d",), through=(MEDIA,)),
    Case(
        "modifymedium --format",
        "modifymedium d --format QCOW2",
        before=(f"{DISK} --format VDI",),
        media=("d",),
        through=(MEDIA,),
    ),
    Case("closemedium", "closemedium d --delete", before=(DISK,), media=("d",), through=(MEDIA,)),
    Case(
        "snapshot take",
        "snapshot S take one",
        before=(_tpm_is("mine"), _variables_are(b"mine")),
        through=(SNAPSHOTS,),
    ),
    Case(
        "snapshot restore",
        "snapshot S restore one",
        before=(
            *(_tpm_is("then"), _variables_are(b"then"), "snapshot S take one"),
            *(_tpm_is("now"), _variables_are(b"now"), "modifyvm S --memory 96"),
        ),
        through=(
            "machines/snapshots.py",
            "machines/store.py",
        ),
    ),
    Case("snapshot delete", "snapshot S delete one", before=("snapshot S take one",), through=(SNAPSHOTS,)),
    Case("savestate", _saved, through=(SAVED,)),
    Case("a saved state is used", lambda: saved_state.mark_used(_paths()), before=(_saved,), through=(SAVED,)),
    Case(
        "a saved state is discarded",
        lambda: saved_state.discard(_paths()),
        before=(_saved,),
        through=(SAVED,),
    ),
    Case("EFI variables are made", _firmware_made, through=(FIRMWARE,)),
    Case("a TPM arrives", _tpm_adopted, before=(_tpm_is("mine"), _tpm_arrived), through=(TPM,)),
    Case(
        "a TPM arrives in vain",
        lambda: tpm_state.drop(_paths().folder / "tpm/arrival-1"),
        before=(_tpm_is("mine"), _tpm_arrived, _tpm_adopted),
        through=(TPM,),
    ),
    Case(
        "a TPM leaves",
        lambda: tpm_state.gone(_paths().folder, "to VM 'T'"),
        before=(_tpm_is("mine"),),
        through=(TPM,),
    ),
)
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
    "runner/epochs.py": "the folder of journals; removes those that are over",
    "vrde/certificate.py": "a key and a certificate, made anew when either is missing",
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
        except TeleportError as error:
            print(f"teleport: error: {error}")
            raise SystemExit(1) from error

    return run_struck(run, watched=WORK.absolute(), said=SAID.absolute(), strike_at=strike_at, fault=fault)


def _seen(case: Case) -> dict[str, object]:
    """What there is: VMs, preferences, what S keeps for its guest, images. What was begun with a snapshot is finished first, as by the
    next command on it. What is random at each run is left out.
    """
    store = _store()
    vms, kept = {}, {}
    for vm in store.all():
        assert isinstance(vm, StoredVm), vm
        folder = vm.paths.folder
        kept[vm.name] = {
            "snapshots": [each.name for each in Snapshots(store, vm).tree.snapshots],
            "variables": _content(folder / firmware.VARIABLES_FILE),
            "tpm": _tpm_content(folder),
            "saved": saved_state.read(vm.paths),
        }
        changed = store.find(vm.uuid).definition  # a snapshot may just have been restored
        nics = tuple(nic.model_copy(update={"mac": ""}) for nic in changed.nics)
        uuid = changed.uuid if changed.name in ("S", "T") else ""
        vms[vm.name] = changed.model_copy(update={"nics": nics, "uuid": uuid})
    images = {name: _image(WORK / "here" / name) for name in case.media}
    return {"vms": vms, "kept": kept, "preferences": preferences.read(store.home), "images": images, "left": _left_behind()}


def _left_behind() -> list[str]:
    """What no command would ever remove: files of a VM whose definition is gone."""
    folders = _store().default_base_folder.iterdir()
    without = [folder for folder in folders if not (folder / DEFINITION_FILE).exists()]
    return [path.name for folder in without for path in folder.rglob("*") if not path.name.startswith(".")]


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _tpm_content(folder: Path) -> object:
    try:
        tpm_state.require_here(folder, name="S")
    except StateError:
        return "moved"
    return [_content(each) for each in tpm_state.snapshot_files(folder)]


def _image(path: Path) -> object:
    if not path.exists():
        return None
    info = media.inspect(path)
    return info.format, info.virtual_bytes


def _restored(scene: Path) -> None:
    shutil.rmtree(scene / WORK)
    shutil.copytree(scene / PRISTINE, scene / WORK, symlinks=True)


# ---------------------------------------------------------------------------------------------------------------- the tests
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_was_or_what_is_to_be(scene: Path, case: Case) -> None:
    for action in case.before:
        assert _run(action).code == 0, SAID.read_text()
    before = _seen(case)
    shutil.copytree(WORK, PRISTINE, symlinks=True)
    whole = _run(case.run)
    assert whole.code == 0, SAID.read_text()
    assert whole.modules >= set(case.through)
    after = _seen(case)
    assert after != before
    for fault in Fault:
        steps = _strike_everywhere(scene, case, fault, before, after)
        assert steps, f"{fault}: {SAID.read_text()}"


def _strike_everywhere(scene: Path, case: Case, fault: Fault, before: object, after: object) -> int:
    for step in range(1, MOST_STEPS):
        _restored(scene)
        struck = _run(case.run, strike_at=step, fault=fault)
        code = struck.code
        said = SAID.read_text()
        seen = _seen(case)
        assert seen in (before, after), f"{fault} at step {step}: {said}"
        if not struck.came:
            return step - 1
        if fault is Fault.FAILS:
            assert (code == 1 and "teleport: error: " in said) or (code == 0 and seen == after), f"step {step}: {code} {said}"
            assert "Traceback" not in said
            continue
        assert code == CUT, f"step {step}: {code} {said}"
        if _run(case.run).code != 0 and _seen(case) != after:
            assert any(_run(words).code == 0 for words in case.again), f"after a cut at step {step}: {SAID.read_text()}"
            if _seen(case) != after:
                assert _run(case.run).code == 0, f"after a cut at step {step}: {SAID.read_text()}"
        assert _seen(case) == after, f"again after a cut at step {step}"
    raise AssertionError("it never got through")


def test_a_disk_that_is_full_in_the_middle_of_a_file_changes_nothing(scene: Path) -> None:
    def no_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))  # the message still fits into its file, a definition doesn't
        main(["modifyvm", "S", "--memory", "96"])

    file = _paths().definition
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
