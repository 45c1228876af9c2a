"""Where VMs are kept, and how they are found and changed.

```
HOME/registry/UUID                 one line: the path of a registered VM's definition
HOME/lock                          held while VMs are registered, unregistered or made
HOME/machines/FOLDER/              or in another base folder
    definition.toml  .lock         the VM (text.py), and the lock of whoever changes it
    logs/  journal/                the runner's
    run                            a link to the runner's folder of sockets, while it runs
```

A VM is what its definition file says; the registry only points there. One that cannot be read is listed as broken and harms no other.
"""

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from teleport.errors import NotFoundError, StorageError, TeleportError, UsageError
from teleport.machines import tpm_state
from teleport.machines.definition import Definition
from teleport.machines.files import locked, make_folder, sync_folder, write_durably
from teleport.machines.firmware import VARIABLES_FILE
from teleport.machines.names import folder_name, name_of_folder
from teleport.machines.text import parse_definition, render_definition

DEFINITION_FILE = "definition.toml"
_FILES = ("lock", "state.json", "startup-error.json", "snapshots.json", "display.json", VARIABLES_FILE)
_FOLDERS = ("logs", "journal", tpm_state.FOLDER, "saved.new", "saved.used")


@dataclass(frozen=True)
class VmPaths:
    """The files of one VM. `run` is a link that the runner makes to a short folder (mode 0700) with control.sock, qmp.sock and
    state.json in it; it is missing, or points nowhere, when the VM doesn't run."""

    folder: Path

    @property
    def definition(self) -> Path:
        """The definition, TOML."""
        return self.folder / DEFINITION_FILE

    @property
    def lock(self) -> Path:
        """Locked by whoever changes the definition."""
        return self.folder / ".lock"

    @property
    def logs(self) -> Path:
        """The folder of log files."""
        return self.folder / "logs"

    @property
    def log(self) -> Path:
        """The log that `showvminfo` names."""
        return self.logs / "teleport.log"

    @property
    def journal(self) -> Path:
        """The folder of journals."""
        return self.folder / "journal"

    @property
    def saved(self) -> Path:
        """The folder of the saved state, there while the VM has one (see `saved_state`)."""
        return self.folder / "saved"

    @property
    def run(self) -> Path:
        """The link to the runner's folder."""
        return self.folder / "run"


@dataclass(frozen=True)
class StoredVm:
    """A VM that could be read."""

    definition: Definition
    paths: VmPaths

    @property
    def name(self) -> str:
        """Its name."""
        return self.definition.name

    @property
    def uuid(self) -> str:
        """Its UUID."""
        return self.definition.uuid


@dataclass(frozen=True)
class BrokenVm:
    """A registered VM whose definition cannot be read, with the reason. `name` is what its folder or the remains tell."""

    name: str
    uuid: str
    paths: VmPaths
    error: TeleportError


def home_folder(environment: Mapping[str, str]) -> Path:
    """The state folder: `TELEPORT_HOME`, or `teleport` in the XDG state folder."""
    named = environment.get("TELEPORT_HOME", "")
    if named:
        return Path(named).absolute()
    import platformdirs  # noqa: PLC0415 - 20 ms that most calls with a home of their own don't need

    return platformdirs.user_state_path("teleport")


class Store:
    """The VMs of one home. Methods raise TeleportError's children; nothing is half changed afterwards."""

    def __init__(self, home: Path) -> None:
        self.home = home

    @property
    def registry(self) -> Path:
        """The folder of pointers to registered VMs."""
        return self.home / "registry"

    @property
    def default_base_folder(self) -> Path:
        """Where new VMs go."""
        return self.home / "machines"

    # -- reading

    def all(self) -> tuple[StoredVm | BrokenVm, ...]:
        """Every registered VM, by name."""
        try:
            entries = sorted(self.registry.iterdir())
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise StorageError(
                f"the registry {self.registry}", error.strerror or str(error), "check its permissions"
            ) from error
        found = [self._entry(each) for each in entries if _is_uuid(each.name)]
        good = {each.paths.folder for each in found if isinstance(each, StoredVm)}
        # An entry that a power cut left behind while a UUID was changed: the VM is there under the other one.
        found = [each for each in found if isinstance(each, StoredVm) or each.paths.folder not in good]
        return tuple(sorted(found, key=lambda each: (each.name, each.uuid)))

    def find(self, name_or_uuid: str) -> StoredVm:
        """The VM by UUID (also in braces) or name. Raises NotFoundError, or StorageError when its definition is broken."""
        found = self.find_entry(name_or_uuid)
        if isinstance(found, BrokenVm):
            raise found.error
        return found

    def find_entry(self, name_or_uuid: str) -> StoredVm | BrokenVm:
        """As `find`, with a broken one as it is."""
        every = self.all()
        if _is_uuid(name_or_uuid):
            for each in every:
                if each.uuid == str(UUID(name_or_uuid)):
                    return each
        named = [each for each in every if each.name == name_or_uuid]
        if len(named) == 1:
            return named[0]
        if named:
            uuids = ", ".join(each.uuid for each in named)
            raise UsageError(f"VM {name_or_uuid!r}", "several VMs have that name", f"give one of their UUIDs: {uuids}")
        raise _not_found(name_or_uuid, [each.name for each in every])

    def load(self, file: Path) -> Definition:
        """A definition from its file, registered or not."""
        return _load(file)

    # -- changing

    def create(self, definition: Definition, *, base_folder: Path | None = None, register: bool) -> VmPaths:
        """Writes a new VM. Raises UsageError when its name or UUID is taken, or its folder holds another one."""
        base = (base_folder or self.default_base_folder).absolute()
        with self._locked():
            paths = VmPaths(base / folder_name(definition.name))
            if register:
                self._require_free(definition, paths)
            if paths.definition.exists():
                raise UsageError(
                    f"VM {definition.name!r}",
                    f"its settings file {str(paths.definition)!r} exists already",
                    f"register that one by `teleport registervm`, or choose another name (its UUID is {_peek_uuid(paths)})",
                )
            make_folder(paths.folder)
            write_durably(paths.definition, render_definition(definition))
            _sync_parents(paths.folder)
            if register:
                self._point(definition.uuid, paths)
        return paths

    def register(self, file: Path) -> StoredVm:
        """Registers the VM of a definition file (or of the folder that holds it)."""
        file = (file / DEFINITION_FILE if file.is_dir() else file).absolute()
        if file.name != DEFINITION_FILE:
            raise UsageError(f"registering {file}", f"a VM's settings file is called {DEFINITION_FILE}", "name that file")
        paths = VmPaths(file.parent)
        definition = _load(file)
        with self._locked():
            self._require_free(definition, paths)
            self._point(definition.uuid, paths)
        return StoredVm(definition=definition, paths=paths)

    def unregister(self, vm: StoredVm | BrokenVm, *, delete: bool) -> None:
        """Forgets a VM; `delete` removes its definition, logs and journals, never a medium."""
        with self._locked():
            self._unpoint(vm.uuid)
            try:
                if delete:
                    _remove_vm(vm.paths)
            except OSError as error:
                raise StorageError(f"removing VM {vm.name!r}", error.strerror or str(error), "check permissions") from error

    @contextlib.contextmanager
    def editing(self, vm: StoredVm) -> Iterator["Edit"]:
        """Holds the VM's definition against other writers, as it is now on the disk; `Edit.save` writes."""
        with locked(vm.paths.lock, what=f"VM {vm.name!r}"):
            content = _read(vm.paths.definition)
            yield Edit(self, vm.paths, parse_definition(content, vm.paths.definition), content)

    def edit(self, vm: StoredVm, change: Callable[[Definition], Definition]) -> Definition:
        """Changes one VM; nothing is written when `change` raises."""
        with self.editing(vm) as editor:
            return editor.save(change(editor.definition))

    # -- within

    def _entry(self, pointer: Path) -> StoredVm | BrokenVm:
        paths = VmPaths(self.registry)
        try:
            target = Path(_read(pointer).decode().rstrip("\n"))
            paths = VmPaths(target.parent)
            definition = _load(target)
            if definition.uuid != pointer.name:
                raise StorageError(
                    f"the definition {target}",
                    f"has the UUID {definition.uuid}, but is registered as {pointer.name}",
                    "correct the UUID, or unregister that one and register this",
                )
        except (TeleportError, UnicodeDecodeError) as error:
            if isinstance(error, UnicodeDecodeError):
                error = StorageError(f"the registry's entry {pointer}", "is not a path", "remove it and register the VM again")
            return BrokenVm(name=_guess_name(paths), uuid=pointer.name, paths=paths, error=error)
        return StoredVm(definition=definition, paths=paths)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        make_folder(self.registry)
        with locked(self.home / "lock", what="the list of VMs"):
            yield

    def _require_free(self, definition: Definition, paths: VmPaths) -> None:
        for each in self.all():
            if each.uuid == definition.uuid:
                same = each.paths.folder == paths.folder
                why = "is registered already" if same else f"the VM {each.name!r} has the same UUID {each.uuid}"
                raise UsageError(f"VM {definition.name!r}", why, "" if same else "give it another one")
            if each.name == definition.name:
                raise UsageError(
                    f"VM {definition.name!r}", f"there is one of that name already ({each.uuid})", "choose another"
                )

    def _point(self, uuid: str, paths: VmPaths) -> None:
        write_durably(self.registry / uuid, f"{paths.definition}\n".encode())

    def _unpoint(self, uuid: str) -> None:
        try:
            (self.registry / uuid).unlink(missing_ok=True)
            sync_folder(self.registry)
        except OSError as error:
            raise StorageError(f"removing {self.registry / uuid}", error.strerror or str(error), "check permissions") from error


class Edit:
    """One change under way (see `Store.editing`)."""

    def __init__(self, store: Store, paths: VmPaths, definition: Definition, content: bytes) -> None:
        self._store = store
        self._paths = paths
        self._content = content
        self.definition = definition

    def save(self, definition: Definition) -> Definition:
        """Writes it, unless nothing changed. A new name must be free; the UUID stays (`change_uuid` is a registration)."""
        old = self.definition
        if definition == old:
            return old
        if (definition.name, definition.uuid) != (old.name, old.uuid):
            self._save_identity(definition, old)
        else:
            write_durably(self._paths.definition, render_definition(definition, self._content))
        self.definition = definition
        return definition

    def _save_identity(self, definition: Definition, old: Definition) -> None:
        """Name and UUID are in the registry too. A new UUID is pointed to before the file has it and the old one forgotten after,
        so that a power cut leaves the VM registered (with one entry that says that it is broken)."""
        store = self._store
        with store._locked():
            others = [each for each in store.all() if each.uuid != old.uuid]
            if any(each.name == definition.name for each in others):
                raise UsageError(f"VM {definition.name!r}", "there is one of that name already", "choose another")
            if any(each.uuid == definition.uuid for each in others):
                raise UsageError(f"UUID {definition.uuid}", "another VM has it", "choose another")
            registered = (store.registry / old.uuid).exists()
            moved = definition.uuid != old.uuid and registered
            if moved:
                store._point(definition.uuid, self._paths)
            write_durably(self._paths.definition, render_definition(definition, self._content))
            if moved:
                store._unpoint(old.uuid)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise StorageError(f"the file {path}", "is missing", "restore it, or `teleport unregistervm` the VM") from None
    except OSError as error:
        raise StorageError(f"the file {path}", error.strerror or str(error), "check its permissions") from error


def _load(file: Path) -> Definition:
    return parse_definition(_read(file), file)


def _is_uuid(text: str) -> bool:
    return re.fullmatch(r"\{?[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\}?", text) is not None


def _guess_name(paths: VmPaths) -> str:
    """A broken definition's name: its name line if that can still be read, else the folder's."""
    with contextlib.suppress(OSError):
        text = paths.definition.read_bytes().decode(errors="replace")
        if match := re.search(r'^name *= *"([^"\\\n]+)" *$', text, re.MULTILINE):
            return match[1]
    return name_of_folder(paths.folder.name)


def _peek_uuid(paths: VmPaths) -> str:
    try:
        return _load(paths.definition).uuid
    except TeleportError:
        return "unreadable"


def _not_found(wanted: str, names: list[str]) -> NotFoundError:
    import difflib  # noqa: PLC0415 - for the message about a name that does not exist

    near = difflib.get_close_matches(wanted, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "`teleport list vms` names them"
    return NotFoundError(f"VM {wanted!r}", "there is none registered with that name or UUID", hint)


def _sync_parents(folder: Path) -> None:
    """A new folder must be found after a power cut too."""
    with contextlib.suppress(OSError):  # a base folder whose parents we may not open is durable as far as we can make it
        sync_folder(folder.parent)
        sync_folder(folder.parent.parent)


def _remove_vm(paths: VmPaths) -> None:
    """Our own files only: people keep media in a VM's folder too. The definition goes last: with it what is left after a power cut can
    be registered and deleted again."""
    for name in _FOLDERS:
        if (paths.folder / name).is_dir():
            shutil.rmtree(paths.folder / name)
    for file in (paths.lock, paths.run, *(paths.folder / name for name in _FILES)):
        if file.is_symlink() or file.exists():
            file.unlink()
    paths.definition.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty: something that is not ours is left there
        paths.folder.rmdir()
