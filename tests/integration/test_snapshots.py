"""Snapshots with real images: what the disk holds after each command, and after each place where one can be cut off."""

import json
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from teleport.errors import StorageError, TeleportError
from teleport.machines import media, snapshots
from teleport.machines.definition import Definition
from teleport.machines.definition import Machine as BoardOf
from teleport.machines.drives import Attachment, Controller
from teleport.machines.firmware import VARIABLES_FILE
from teleport.machines.snapshots import Snapshots, read_tree
from teleport.machines.store import Store, StoredVm
from tests.harness.home import Home

pytestmark = pytest.mark.qemu


class Machine:
    """A VM with two disks that is off."""

    def __init__(self, home: Home, folder: Path) -> None:
        self.home = home
        self.disks = [folder / "one.qcow2", folder / "two.qcow2"]
        for disk in self.disks:
            media.create_disk(disk, size_bytes=8 << 20)
        attached = tuple(
            Attachment(port=port, type="hdd", medium=str(disk), format="qcow2") for port, disk in enumerate(self.disks)
        )
        controller = Controller(name="Disks", bus="virtio-blk", chip="VirtioBlk", port_count=2, attachments=attached)
        definition = Definition(name="S", uuid=str(uuid.uuid4()), machine=BoardOf(memory_mb=128), controllers=(controller,))
        Store(home.folder).create(definition, register=True)

    def run(self, *words: str | Path | int, code: int = 0) -> str:
        ran = self.home.teleport(*words, check=False)
        assert ran.code == code, ran
        return ran.err if code else ran.out

    def write(self, pattern: int, megabyte: int = 0) -> None:
        """What a guest would have done to both disks."""
        for disk in self.disks:
            io(disk, f"write -P {pattern} {megabyte}M 64k")

    def holds(self, pattern: int, megabyte: int = 0) -> bool:
        return all("Pattern verification failed" not in io(disk, f"read -P {pattern} {megabyte}M 64k") for disk in self.disks)

    @property
    def vm(self) -> StoredVm:
        return Store(self.home.folder).find("S")

    @property
    def files(self) -> set[str]:
        return {path.name for path in self.disks[0].parent.iterdir() if not path.name.endswith(".teleport")}


def io(disk: Path, command: str) -> str:
    done = subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", command, str(disk)], capture_output=True, text=True, timeout=30, check=False
    )
    return done.stdout + done.stderr


@pytest.fixture
def machine(home: Home, shared_folder: Path) -> Machine:
    return Machine(home, shared_folder)


def test_take_restore_and_delete(machine: Machine) -> None:
    machine.write(1)
    variables = machine.vm.paths.folder / VARIABLES_FILE
    variables.write_bytes(b"of the first")
    machine.run("snapshot", "S", "take", "first", "--description", "as installed")
    machine.write(2)
    variables.write_bytes(b"of the second")
    machine.run("modifyvm", "S", "--memory", 256)
    machine.run("snapshot", "S", "take", "second")
    machine.write(3)
    assert machine.holds(3)

    shown = machine.run("snapshot", "S", "list", "--machinereadable").splitlines()
    assert shown[0] == 'SnapshotName="first"'
    assert 'SnapshotDescription="as installed"' in shown
    assert 'SnapshotName-1="second"' in shown
    assert 'CurrentSnapshotName="second"' in shown
    assert 'CurrentSnapshotNode="SnapshotName-1"' in shown
    assert "Name: second" in machine.run("snapshot", "S", "list")

    machine.run("snapshot", "S", "restore", "first")
    assert machine.holds(1)
    assert machine.vm.definition.machine.memory_mb == 128
    assert variables.read_bytes() == b"of the first"
    machine.write(4)
    machine.run("snapshot", "S", "restore", "second")
    assert machine.holds(2)
    assert machine.vm.definition.machine.memory_mb == 256
    machine.write(5, megabyte=2)

    # The oldest goes first: what it holds alone moves up.
    machine.run("snapshot", "S", "delete", "first")
    assert machine.holds(2)
    assert machine.holds(5, megabyte=2)
    machine.run("snapshot", "S", "restorecurrent")
    assert machine.holds(2)
    assert machine.holds(0, megabyte=2)
    machine.run("snapshot", "S", "delete", "second")
    assert machine.holds(2)
    assert machine.files == {"one.qcow2", "two.qcow2"}
    assert [path.name for path in variables.parent.iterdir() if "snapshot-" in path.name] == []
    assert "does not have any snapshots" in machine.run("snapshot", "S", "list")
    for disk in machine.disks:
        information = json.loads(
            subprocess.run(["qemu-img", "info", "--output=json", str(disk)], capture_output=True, check=True).stdout
        )
        assert "backing-filename" not in information


def test_one_that_several_are_based_on_is_kept(machine: Machine) -> None:
    machine.run("snapshot", "S", "take", "root")
    machine.run("snapshot", "S", "take", "left")
    machine.run("snapshot", "S", "restore", "root")
    machine.run("snapshot", "S", "take", "right")
    said = machine.run("snapshot", "S", "delete", "root", code=1)
    assert "several are based on it" in said
    machine.run("snapshot", "S", "delete", "left")
    machine.run("snapshot", "S", "delete", "root")
    assert [each.name for each in read_tree(machine.vm.paths).snapshots] == ["right"]


def test_what_cannot_have_a_snapshot_says_why(machine: Machine) -> None:
    machine.run("snapshot", "S", "take", "first")
    assert "there is one of that name" in machine.run("snapshot", "S", "take", "first", code=2)
    assert "it has 'first'" in machine.run("snapshot", "S", "restore", "second", code=1)
    assert "it has snapshots" in machine.run("unregistervm", "S", "--delete", code=1)
    # Another VM's guest, by the owner record beside the first disk.
    record = Path(f"{machine.disks[0]}.teleport")
    record.mkdir()
    owner = {"host": "h", "home": "/elsewhere", "vm_uuid": "7b6d", "vm_name": "T", "epoch": "e"}
    (record / "00000000000001.owner").write_text(json.dumps({"format": 1, "generation": 1, "nonce": "n", "owner": owner}))
    assert "belongs to VM 'T'" in machine.run("snapshot", "S", "take", "third", code=1)


def test_a_running_vm_takes_none_and_one_with_snapshots_teleports_nowhere(machine: Machine, second_home: Home) -> None:
    machine.run("snapshot", "S", "take", "before")
    machine.run("startvm", "S")
    assert "is made of a VM that is off" in machine.run("snapshot", "S", "take", "now", code=1)
    assert "Name: before" in machine.run("snapshot", "S", "list")
    second_home.teleport("createvm", "--name", "T", "--ostype", "Linux26_64", "--register")
    second_home.teleport("modifyvm", "T", "--memory", 128, "--teleporter", "on", "--teleporterport", 0)
    second_home.teleport("startvm", "T")
    port = second_home.info("T")["teleporterport"]
    ran = machine.home.teleport("controlvm", "S", "teleport", "--host", "localhost", "--port", port, check=False)
    assert ran.code == 1
    assert "snapshot before" in ran.err + ran.out
    assert "teleport snapshot S delete before" in ran.err + ran.out
    assert machine.home.info("S")["VMState"] == "running"
    machine.run("controlvm", "S", "poweroff")


class Cut(Exception):
    """The power went."""


@pytest.mark.parametrize("command", ["take", "restore", "delete"])
def test_a_command_that_is_cut_off_anywhere_is_finished_or_undone(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Cut before the first write, before the second, …: the disks hold one of the two contents, both of them the same."""
    store = Store(machine.home.folder)
    machine.write(1)
    Snapshots(store, machine.vm).take("first")
    machine.write(2)
    commands: dict[str, Callable[[Snapshots], object]] = {
        "take": lambda them: them.take("second"),
        "restore": lambda them: them.restore("first"),
        "delete": lambda them: them.delete("first"),
    }
    steps = [(snapshots, name) for name in ("write_durably", "sync_folder")] + [
        (snapshots.media, name) for name in ("run_tool", "make_durable")
    ]
    before = 0
    while True:
        left = [before]  # steps until the cut

        def cut(original: Callable[..., object], left: list[int] = left) -> Callable[..., object]:
            def step(*arguments: object, **more: object) -> object:
                left[0] -= 1
                if left[0] < 0:
                    raise Cut
                return original(*arguments, **more)

            return step

        with monkeypatch.context() as patched:
            for module, name in steps:
                patched.setattr(module, name, cut(getattr(module, name)))
            try:
                commands[command](Snapshots(store, machine.vm))
                done = True
            except Cut:
                done = False
        after = Snapshots(store, machine.vm)  # as the next command begins
        assert after.tree.pending is None
        for disk in machine.disks:
            subprocess.run(["qemu-img", "check", "-q", str(disk)], check=True, timeout=30)
        assert machine.holds(2) or (command == "restore" and machine.holds(1)), f"cut after {before} steps"
        assert not [name for name in machine.files if name.startswith(".")] or not done
        if done:
            break
        if command == "take" and any(each.name == "second" for each in after.tree.snapshots):
            after.delete("second")
        elif command == "restore":
            machine.write(2)
        elif command == "delete" and not after.tree.snapshots:
            after.take("first")
        before += 1
    assert before > 3


def test_a_disk_that_is_full_leaves_everything_as_it_was(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.write(1)

    def full(*_: object, **__: object) -> None:
        raise StorageError("snapshot", "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(snapshots, "_put_overlay", full)
        with pytest.raises(TeleportError, match="No space left"):
            Snapshots(Store(machine.home.folder), machine.vm).take("first")
    assert read_tree(machine.vm.paths).snapshots == ()
    assert machine.files == {"one.qcow2", "two.qcow2"}
    assert machine.holds(1)
