"""Snapshots of a VM that is off: what its settings and its disks were.

```
disk.qcow2                      what the VM writes to; always this name, so that whoever has it attached sees the current content
disk.qcow2.snapshot-1a2b3c4d    what it was at that snapshot; the next younger file has it as its backing file
FOLDER/snapshots.json           the tree of snapshots, each with the definition of its time, and what was begun and is not done yet
```

A disk changes its content by one rename each; what was begun is written down before the first of them, so that a command that was cut
off is finished (or, where nothing has changed yet, undone) by the next one. Until then the VM does not start.
QCOW2 alone: an overlay on another format would change what the name means to others who have it attached.
"""

import contextlib
import json
import os
import secrets
import shlex
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from teleport.errors import BusyError, NotFoundError, StateError, StorageError, TeleportError, UsageError
from teleport.machines import media, owners, tpm_state
from teleport.machines.attached import owner_record_folder
from teleport.machines.definition import Definition
from teleport.machines.files import sync_folder, write_durably
from teleport.machines.firmware import VARIABLES_FILE
from teleport.machines.remote_media import needs_owner_folder
from teleport.machines.store import Store, StoredVm, VmPaths
from teleport.machines.text import parse_definition, render_definition

FORMAT = 1
_FILE = "snapshots.json"


@dataclass(frozen=True)
class Snapshot:
    """One of the tree. `parent` is the UUID of the one before ("" for the first); `disks` are the paths that it has files of."""

    uuid: str
    name: str
    description: str
    taken: str
    parent: str
    disks: tuple[str, ...]
    definition: str

    def file(self, disk: str) -> Path:
        """What that disk was."""
        return Path(f"{disk}.snapshot-{self.uuid[:8]}")


@dataclass(frozen=True)
class Tree:
    """All snapshots of a VM, oldest first. `current` is the UUID of the one that the VM goes on from ("" without any); `pending` is
    what was begun: (what, UUID, files to remove), or None."""

    snapshots: tuple[Snapshot, ...] = ()
    current: str = ""
    pending: tuple[str, str, tuple[str, ...]] | None = None

    def find(self, name_or_uuid: str) -> Snapshot:
        """One by name or UUID. Raises NotFoundError."""
        for each in self.snapshots:
            if name_or_uuid in (each.name, each.uuid):
                return each
        names = ", ".join(repr(each.name) for each in self.snapshots) or "none"
        raise NotFoundError(f"snapshot {name_or_uuid!r}", "the VM has none of that name", f"it has {names}")

    def children(self, parent: str) -> tuple[Snapshot, ...]:
        """Those taken next after it."""
        return tuple(each for each in self.snapshots if each.parent == parent)


def read_tree(paths: VmPaths) -> Tree:
    """A VM's snapshots. Raises StorageError when they cannot be read."""
    file = paths.folder / _FILE
    try:
        content = json.loads(file.read_bytes())
        if content["format"] > FORMAT:
            raise StorageError(f"the snapshots {file}", "written by a newer Teleport", "use that version")
        found = tuple(Snapshot(**{**each, "disks": tuple(each["disks"])}) for each in content["snapshots"])
        pending = content["pending"]
        return Tree(found, content["current"], (pending[0], pending[1], tuple(pending[2])) if pending else None)
    except FileNotFoundError:
        return Tree()
    except OSError as error:
        raise StorageError(f"the snapshots {file}", error.strerror or str(error)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"the snapshots {file}", "are damaged", "restore that file") from error


def snapshot_names(paths: VmPaths) -> tuple[str, ...]:
    """What keeps the VM from teleporting. Raises StorageError."""
    return tuple(each.name for each in read_tree(paths).snapshots)


def require_settled(paths: VmPaths) -> None:
    """Before a start. Raises StateError while a snapshot command is not done: its disks are between two contents."""
    if pending := read_tree(paths).pending:
        raise StateError(
            "startvm", f"a snapshot {pending[0]} was cut off", "`teleport snapshot NAME list` finishes it; then start the VM"
        )


class Snapshots:
    """The snapshots of one VM that is off. Begun commands are finished first; methods raise TeleportError's children."""

    def __init__(self, store: Store, vm: StoredVm) -> None:
        self._store = store
        self._vm = vm
        self._paths = vm.paths
        self.tree = read_tree(vm.paths)
        if self.tree.pending:
            self._finish()

    def take(self, name: str, description: str = "") -> Snapshot:
        """The VM as it is now gets a name. Raises UsageError, BusyError, StorageError; nothing has changed then."""
        if not name.strip() or any(ord(character) < 0x20 for character in name + description):
            raise UsageError("snapshot take", "a snapshot needs a name of one line")
        if any(each.name == name for each in self.tree.snapshots):
            raise UsageError(f"snapshot {name!r}", "there is one of that name", "choose another")
        definition = self._vm.definition
        disks = self._free_disks(definition)
        made = Snapshot(
            uuid=str(uuid.uuid4()),
            name=name,
            description=description,
            taken=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            parent=self.tree.current,
            disks=disks,
            definition=render_definition(definition).decode(),
        )
        before = self.tree
        self._write(Tree((*before.snapshots, made), made.uuid, ("take", made.uuid, ())))
        try:
            self._finish()
        except TeleportError:
            if not any(_is_swapped(made, disk) for disk in disks):
                with contextlib.suppress(StorageError):  # what cannot be taken back now, the next command finishes
                    for path in (*map(made.file, disks), *(kept for _, kept in self._own_files(made))):
                        _unlink(path)
                    self._write(before)
            raise
        return made

    def restore(self, name_or_uuid: str) -> Snapshot:
        """The VM is what it was then, settings and disks; what it has become since is gone. Raises as `take`."""
        wanted = self.tree.find(name_or_uuid)
        self._free_disks(self._vm.definition)
        for disk in wanted.disks:
            if not wanted.file(disk).exists():
                raise StorageError(f"snapshot {wanted.name!r}", f"its file {wanted.file(disk)} is missing", "put it back")
        self._write(replace(self.tree, pending=("restore", wanted.uuid, ())))
        self._finish()
        return wanted

    def delete(self, name_or_uuid: str) -> Snapshot:
        """Forgets one: what its disks hold goes into those that are based on it. Raises as `take`."""
        wanted = self.tree.find(name_or_uuid)
        self._free_disks(self._vm.definition)
        for disk in wanted.disks:
            based = self._based_on(wanted, disk)
            if len(based) > 1:
                raise StateError(
                    f"snapshot {wanted.name!r}",
                    f"several are based on it: {', '.join(path.name for path in based)}",
                    "delete all but one of those first",
                )
        self._write(replace(self.tree, pending=("delete", wanted.uuid, ())))
        self._finish()
        return wanted

    # -- finishing what was begun; every step can be done again

    def _finish(self) -> None:
        assert self.tree.pending is not None
        kind, which, files = self.tree.pending
        if kind == "remove":
            self._remove(files)
            return
        steps = {"take": self._finish_take, "restore": self._finish_restore, "delete": self._finish_delete}
        if kind not in steps:
            raise StorageError(f"the snapshots {self._paths.folder / _FILE}", f"an unknown command {kind!r} was begun")
        steps[kind](next(each for each in self.tree.snapshots if each.uuid == which))

    def _finish_take(self, snapshot: Snapshot) -> None:
        for own, kept in self._own_files(snapshot):
            if own.exists():
                write_durably(kept, own.read_bytes())
        for disk in snapshot.disks:
            _swap(snapshot, disk)
        self._write(replace(self.tree, pending=None))

    def _finish_restore(self, snapshot: Snapshot) -> None:
        for disk in snapshot.disks:
            _put_overlay(snapshot.file(disk), Path(disk))
        for own, kept in self._own_files(snapshot):
            if kept.exists():
                if own.parent != self._paths.folder and not own.parent.exists():
                    tpm_state.own(self._paths.folder)
                write_durably(own, kept.read_bytes())
            else:
                _unlink(own)
        self._restore_settings(snapshot)
        self._write(replace(self.tree, current=snapshot.uuid, pending=None))

    def _finish_delete(self, snapshot: Snapshot) -> None:
        for disk in snapshot.disks:
            for path in self._based_on(snapshot, disk):
                _rebase(path, snapshot.file(disk))
        left = tuple(
            replace(each, parent=snapshot.parent) if each.parent == snapshot.uuid else each
            for each in self.tree.snapshots
            if each is not snapshot
        )
        current = snapshot.parent if self.tree.current == snapshot.uuid else self.tree.current
        kept_files = [kept for _, kept in self._own_files(snapshot)]
        files = tuple(str(path) for path in (*map(snapshot.file, snapshot.disks), *kept_files))
        self._write(Tree(left, current, ("remove", snapshot.uuid, files)))
        self._remove(files)

    def _own_files(self, snapshot: Snapshot) -> tuple[tuple[Path, Path], ...]:
        """What the VM itself keeps for its guest: (the file, its copy at that snapshot); either may be missing."""
        folder = self._paths.folder
        return tuple(
            (own, folder / f"{own.name}.snapshot-{snapshot.uuid[:8]}")
            for own in (folder / VARIABLES_FILE, *tpm_state.snapshot_files(folder))
        )

    def _remove(self, files: tuple[str, ...]) -> None:
        for file in files:
            _unlink(Path(file))
        self._write(replace(self.tree, pending=None))

    def _restore_settings(self, snapshot: Snapshot) -> None:
        then = parse_definition(snapshot.definition.encode(), self._paths.definition)
        self._store.edit(
            self._vm,
            lambda now: then.model_copy(update={"name": now.name, "uuid": now.uuid, "description": now.description}),
        )

    def _write(self, tree: Tree) -> None:
        content = {
            "format": FORMAT,
            "current": tree.current,
            "pending": tree.pending,
            "snapshots": [vars(each) for each in tree.snapshots],
        }
        write_durably(self._paths.folder / _FILE, json.dumps(content, indent=1, ensure_ascii=False).encode())
        self.tree = tree

    # -- looking

    def _free_disks(self, definition: Definition) -> tuple[str, ...]:
        """The disks, none of which anybody uses. Raises UsageError, BusyError."""
        self._require_owner(definition)
        disks = [each for controller in definition.ordered_controllers() for each in controller.ordered() if each.type == "hdd"]
        for each in disks:
            if needs_owner_folder(each.medium) or each.format != "qcow2":
                raise UsageError(
                    f"snapshot of {each.medium}",
                    "only disks in QCOW2 files can have snapshots here",
                    f"teleport modifymedium disk {shlex.quote(each.medium)} --format QCOW2 converts a file",
                )
            media.require_unused(Path(each.medium), each.format)
        return tuple(each.medium for each in disks)

    def _require_owner(self, definition: Definition) -> None:
        """QEMU's locks hold on local files only; on shared ones the owner record tells who runs the guest."""
        folder = owner_record_folder(definition)
        owner: Mapping[str, Any] = owners.owner_now(folder) if folder else {}
        if owner.get("vm_uuid", "") not in ("", definition.uuid):
            raise BusyError(
                f"snapshot of VM {definition.name!r}",
                f"its disk belongs to VM {owner.get('vm_name')!r} on {owner.get('host')}",
                "power it off there first",
            )

    def _based_on(self, snapshot: Snapshot, disk: str) -> list[Path]:
        """The files of that disk whose backing file is the snapshot's."""
        file = snapshot.file(disk)
        candidates = [Path(disk), *(each.file(disk) for each in self.tree.snapshots if each != snapshot)]
        found = []
        for path in candidates:
            if path.exists():
                backing = media.inspect(path, image_format="qcow2").backing
                if backing and Path(backing).resolve() == file.resolve():
                    found.append(path)
        return found


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
        if path.parent.exists():
            sync_folder(path.parent)
    except OSError as error:
        raise StorageError(f"removing {path}", error.strerror or str(error), "check its permissions") from error


def _is_swapped(snapshot: Snapshot, disk: str) -> bool:
    file = snapshot.file(disk)
    return file.exists() and not (Path(disk).exists() and file.samefile(disk))


def _swap(snapshot: Snapshot, disk: str) -> None:
    """The disk's file gets the snapshot's name too; then an overlay takes its own. One rename, and either content is there."""
    if _is_swapped(snapshot, disk):
        return
    file = snapshot.file(disk)
    try:
        if not file.exists():
            file.hardlink_to(disk)
            sync_folder(file.parent)
    except OSError as error:
        raise StorageError(f"snapshot of {disk}", error.strerror or str(error), "its folder must know hard links") from error
    _put_overlay(file, Path(disk))


def _put_overlay(backing: Path, disk: Path) -> None:
    """An empty overlay on `backing` becomes `disk`, at once."""
    size_bytes = media.inspect(backing, image_format="qcow2").virtual_bytes
    fresh = disk.with_name(f".{disk.name[:180]}.{secrets.token_hex(4)}.new")
    try:
        words = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", backing.name, "--", str(fresh), str(size_bytes)]
        media.run_tool(words, what=f"snapshot of {disk}")
        with contextlib.suppress(OSError):  # a disk that was deleted has no mode to keep
            fresh.chmod(disk.stat().st_mode & 0o777)
        media.make_durable(fresh)
        fresh.replace(disk)
        sync_folder(disk.parent)
    except OSError as error:
        raise StorageError(f"snapshot of {disk}", error.strerror or str(error), "check free space and permissions") from error
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)


def _rebase(path: Path, removed: Path) -> None:
    """What `removed` adds to its own backing file is copied into `path`, which is based on that one afterwards."""
    below = media.inspect(removed, image_format="qcow2").backing
    name = os.path.relpath(below, path.parent) if below else ""
    words = [
        "rebase",
        "-q",
        "-f",
        "qcow2",
        *(["-F", media.inspect(Path(below)).format] if below else []),
        "-b",
        name,
        "--",
        str(path),
    ]
    media.run_tool(words, what=f"putting {removed.name} into {path}", seconds=None)
    try:
        media.make_durable(path)
    except OSError as error:
        raise StorageError(f"writing {path}", error.strerror or str(error), "check that storage") from error
