"""Commands that change what lies on disk, what there was before each of them and what is to be after it: for the tests that stop them
in between (`test_power_cut`, `test_breaking_storage`).

Everything is relative to the current folder: a scene is `WORK`, with the VM S in its home and images beside it.
"""

import hashlib
import ssl
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from teleport.errors import StateError
from teleport.machines import firmware, media, preferences, saved_state, tpm_state
from teleport.machines.definition import Definition, Machine
from teleport.machines.saved_state import SavedFacts
from teleport.machines.snapshots import Snapshots
from teleport.machines.store import DEFINITION_FILE, Store, StoredVm, VmPaths
from teleport.machines.vrde import VrdeSettings
from teleport.model import GuestIdentity
from teleport.vrde import certificate

FRESH_UUID = "5a1d8f7e-0000-4000-8000-000000000001"
FACTS = SavedFacts(GuestIdentity("u", ()), generation=1, epoch="e", was_paused=False, software="s", qemu="10")
WORK = Path("work")
STORE, MEDIA, SNAPSHOTS = "machines/store.py", "machines/media.py", "machines/snapshots.py"
SAVED, TPM, FIRMWARE, PREFERENCES = (f"machines/{name}.py" for name in ("saved_state", "tpm_state", "firmware", "preferences"))
Action = str | Callable[[], object]  # words of a command line, or a function
Seen = dict[str, object]


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
    definition_first: bool = (
        False  # it may be new while the image is old; then the VM doesn't start, and says what gets through
    )


@dataclass(frozen=True)
class Ended:
    """How a command that was struck ended. `died`: it was stopped; else `code` is its exit code and `said` what it printed."""

    died: bool
    code: int
    said: str


# ---------------------------------------------------------------------------------------------------------------- the scene
def store() -> Store:
    return Store((WORK / "home").absolute())


def paths() -> VmPaths:
    return VmPaths(store().default_base_folder / "S")


def _tpm_is(content: str) -> Callable[[], object]:
    return lambda: (tpm_state.own(paths().folder) / tpm_state.STATE_FILES[1]).write_text(content)


def _tpm_arrived() -> None:
    (tpm_state.arriving(paths().folder, "arrival-1") / tpm_state.STATE_FILES[1]).write_text("theirs")


def _tpm_adopted() -> None:
    tpm_state.adopt(paths().folder / "tpm/arrival-1")


def _variables_are(content: bytes) -> Callable[[], object]:
    return lambda: (paths().folder / firmware.VARIABLES_FILE).write_bytes(content)


def _firmware_made() -> object:
    return firmware.firmware_files(Definition(name="S", uuid=FRESH_UUID, machine=Machine(firmware="efi")), paths().folder)


def _saved() -> None:
    stream = saved_state.begin(paths())
    stream.write_bytes(b"QEVM")
    media.make_durable(stream)  # as the runner does when QEMU has written it
    saved_state.commit(paths(), FACTS)


def _guest_wrote(disk: str, pattern: int) -> Callable[[], object]:
    words = ["qemu-io", "-c", f"write -P {pattern} 512k 64k", str(WORK / "here" / disk)]
    return lambda: subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def _certificate_made() -> None:
    certificate.load(VrdeSettings(), WORK / "home" / "vrde")


def _pair() -> str:
    """Whether the display has its key and a certificate of that key."""
    certificate_path, key = (WORK / "home/vrde" / name for name in ("vrde-cert.pem", "vrde-key.pem"))
    if not certificate_path.exists() or not key.exists():
        return "to be made"
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate_path, key)
    return "made"


DISK = "createhd --filename d --size 1"
CONTROLLER = "storagectl S --name C --add sata"
ATTACHED = (DISK, CONTROLLER, "storageattach S --storagectl C --port 0 --type hdd --medium d", _guest_wrote("d", 1))
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
    Case("clonemedium", "clonemedium d e", before=(DISK, _guest_wrote("d", 1)), media=("d", "e"), through=(MEDIA,)),
    Case(
        "modifymedium --resize",
        "modifymedium d --resize 2",
        before=(DISK, _guest_wrote("d", 1)),
        media=("d",),
        through=(MEDIA,),
    ),
    Case(
        "modifymedium --format",
        "modifymedium d --format QCOW2",
        before=(f"{DISK} --format VDI", *ATTACHED[1:3]),
        media=("d",),
        through=(MEDIA, STORE),
        definition_first=True,
    ),
    Case("closemedium", "closemedium d --delete", before=(DISK,), media=("d",), through=(MEDIA,)),
    Case(
        "snapshot take",
        "snapshot S take one",
        before=(_tpm_is("mine"), _variables_are(b"mine"), *ATTACHED),
        media=("d",),
        through=(SNAPSHOTS,),
    ),
    Case(
        "snapshot restore",
        "snapshot S restore one",
        before=(
            *(_tpm_is("then"), _variables_are(b"then"), *ATTACHED, "snapshot S take one"),
            *(_tpm_is("now"), _variables_are(b"now"), _guest_wrote("d", 2), "modifyvm S --memory 96"),
        ),
        media=("d",),
        through=(
            "machines/snapshots.py",
            "machines/store.py",
        ),
    ),
    Case(
        "snapshot delete",
        "snapshot S delete one",
        before=(*ATTACHED, "snapshot S take one", _guest_wrote("d", 2)),
        media=("d",),
        through=(SNAPSHOTS,),
    ),
    Case("savestate", _saved, through=(SAVED,)),
    Case("a saved state is used", lambda: saved_state.mark_used(paths()), before=(_saved,), through=(SAVED,)),
    Case(
        "a saved state is discarded",
        lambda: saved_state.discard(paths()),
        before=(_saved,),
        through=(SAVED,),
    ),
    Case(
        "a display's certificate is made",
        _certificate_made,
        before=(_certificate_made, (WORK / "home/vrde/vrde-key.pem").unlink),
        through=("vrde/certificate.py",),
    ),
    Case("EFI variables are made", _firmware_made, through=(FIRMWARE,)),
    Case("a TPM arrives", _tpm_adopted, before=(_tpm_is("mine"), _tpm_arrived), through=(TPM,)),
    Case(
        "a TPM arrives in vain",
        lambda: tpm_state.drop(paths().folder / "tpm/arrival-1"),
        before=(_tpm_is("mine"), _tpm_arrived, _tpm_adopted),
        through=(TPM,),
    ),
    Case(
        "a TPM leaves",
        lambda: tpm_state.gone(paths().folder, "to VM 'T'"),
        before=(_tpm_is("mine"),),
        through=(TPM,),
    ),
)


def seen(case: Case) -> Seen:
    """What there is: VMs, preferences, what S keeps for its guest, images. What was begun with a snapshot is finished first, as by the
    next command on it. What is random at each run is left out.
    """
    home = store()
    vms, kept = {}, {}
    for vm in home.all():
        assert isinstance(vm, StoredVm), vm
        folder = vm.paths.folder
        kept[vm.name] = {
            "snapshots": [each.name for each in Snapshots(home, vm).tree.snapshots],
            "variables": _content(folder / firmware.VARIABLES_FILE),
            "tpm": _tpm_content(folder),
            "saved": saved_state.read(vm.paths),
        }
        changed = home.find(vm.uuid).definition  # a snapshot may just have been restored
        nics = tuple(nic.model_copy(update={"mac": ""}) for nic in changed.nics)
        uuid = changed.uuid if changed.name in ("S", "T") else ""
        vms[vm.name] = changed.model_copy(update={"nics": nics, "uuid": uuid})
    images = {name: _image(WORK / "here" / name) for name in case.media}
    return {
        "vms": vms,
        "kept": kept,
        "preferences": preferences.read(home.home),
        "images": images,
        "left": _left_behind(),
        "pair": _pair(),
    }


def _left_behind() -> list[str]:
    """What no command would ever remove: files of a VM whose definition is gone."""
    folders = store().default_base_folder.iterdir()
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
    """Its format, size and what a guest reads on it."""
    if not path.exists():
        return None
    info = media.inspect(path)
    raw = path.with_name(f".{path.name}.read")
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(path), str(raw)], check=True)
    content = hashlib.sha256(raw.read_bytes()).hexdigest()
    raw.unlink()
    return info.format, info.virtual_bytes, content


def require_old_or_new(case: Case, ended: Ended, *, run: Callable[[Action], int], before: Seen, after: Seen) -> None:
    """What is there is what was before or what is to be after, and the message is true. After a command was stopped, it gets through
    when it is given again, or one of `case.again` does. `run` gives exit codes.
    """
    now = seen(case)
    between = [before | {"vms": after["vms"]}] if case.definition_first else []
    assert now in (before, after, *between), ended
    if not ended.died:
        assert "Traceback" not in ended.said, ended
        assert (ended.code == 1 and "teleport: error: " in ended.said) or (ended.code == 0 and now == after), ended
        return
    if run(case.run) != 0 and seen(case) != after:
        assert any(run(words) == 0 for words in case.again), f"nothing helps: {ended}"
        if seen(case) != after:
            assert run(case.run) == 0, ended
    assert seen(case) == after, ended
