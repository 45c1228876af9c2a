from pathlib import Path
from uuid import uuid4

import pytest

from teleport.errors import BusyError, NotFoundError, StorageError, UsageError
from teleport.machines.definition import Definition
from teleport.machines.files import locked
from teleport.machines.names import folder_name, name_of_folder
from teleport.machines.store import BrokenVm, Store, StoredVm, VmPaths, home_folder
from teleport.machines.text import render_definition

ODD_NAMES = (
    *(
        "Windows XP",
        "Müller & Söhne",
        "a/b/../../c",
        ".",
        "..",
        "...",
        "-rf",
        "--delete",
        "😀" * 300,
        "x" * 300,
        "a" * 119 + "/",
    ),
    *("$(reboot)", "`id`", "a'b\"c", "*", "~", "\\", "%2F", " leading", "trailing ", "日本語", "a\u0301", "CON", "{uuid}"),
)


def make(name: str, **more: object) -> Definition:
    return Definition.model_validate({"name": name, "uuid": str(uuid4())} | more)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def test_home_is_named_or_the_states_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert home_folder({"TELEPORT_HOME": str(tmp_path)}) == tmp_path
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert home_folder({}) == tmp_path / "state" / "teleport"


def test_an_empty_home_has_no_vms(store: Store) -> None:
    assert store.all() == ()
    with pytest.raises(NotFoundError):
        store.find("S")
    assert not store.home.exists()


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_is_kept_and_found(store: Store, name: str) -> None:
    vm = make(name)
    paths = store.create(vm, register=True)
    assert store.find(name).definition == vm
    assert store.find(vm.uuid.upper()).name == name
    assert store.find(f"{{{vm.uuid}}}").name == name
    assert paths.folder.parent == store.default_base_folder
    assert len(paths.folder.name.encode()) <= 120
    store.unregister(store.find(name), delete=True)
    assert not paths.folder.exists()


def test_folders_of_different_names_differ() -> None:
    names = [*ODD_NAMES, "😀" * 299, "x" * 299, "x" * 301, "a" * 119 + "?", "A/B", "a%2Fb"]
    folders = [folder_name(each) for each in names]
    assert len(set(folders)) == len(names)
    for folder in folders:
        assert not folder.startswith(("-", ".", " ", "~"))
        assert "/" not in folder
    assert name_of_folder(folder_name("a/b")) == "a/b"


def test_a_vm_is_not_listed_before_it_is_registered(store: Store, tmp_path: Path) -> None:
    vm = make("S")
    paths = store.create(vm, base_folder=tmp_path / "elsewhere", register=False)
    assert store.all() == ()
    assert store.register(paths.folder).definition == vm
    assert store.find("S").paths == paths
    with pytest.raises(UsageError, match="already"):
        store.register(paths.definition)
    store.unregister(store.find("S"), delete=False)
    assert store.all() == ()
    assert store.register(paths.definition).definition == vm


def test_names_and_uuids_are_taken_once(store: Store, tmp_path: Path) -> None:
    vm = make("S")
    store.create(vm, register=True)
    with pytest.raises(UsageError, match="one of that name"):
        store.create(make("S"), register=True)
    with pytest.raises(UsageError, match="same UUID"):
        store.create(make("T", uuid=vm.uuid), base_folder=tmp_path, register=True)
    with pytest.raises(UsageError, match="exists already"):
        store.create(make("S"), register=False)
    assert [each.name for each in store.all()] == ["S"]


def test_a_broken_vm_breaks_no_other(store: Store) -> None:
    good, bad, gone = make("good"), make("bad"), make("gone")
    store.create(good, register=True)
    bad_paths = store.create(bad, register=True)
    store.create(gone, register=True).definition.unlink()
    bad_paths.definition.write_text('name = "bad"\nsurprise = 1\n')
    found = {each.name: each for each in store.all()}
    assert isinstance(found["good"], StoredVm)
    assert isinstance(found["bad"], BrokenVm)
    assert isinstance(found["gone"], BrokenVm)
    assert "surprise: there is no such setting" in str(found["bad"].error)
    with pytest.raises(StorageError, match="surprise"):
        store.find("bad")
    with pytest.raises(StorageError):
        store.find(gone.uuid)
    store.unregister(store.find_entry("bad"), delete=True)
    store.unregister(store.find_entry("gone"), delete=False)
    assert [each.name for each in store.all()] == ["good"]


def test_a_change_that_fails_leaves_the_file_byte_for_byte(store: Store) -> None:
    paths = store.create(make("S"), register=True)
    before = paths.definition.read_bytes()

    def fail(_: Definition) -> Definition:
        raise UsageError("no", "no")

    with pytest.raises(UsageError):
        store.edit(store.find("S"), fail)
    assert paths.definition.read_bytes() == before
    store.edit(store.find("S"), lambda vm: vm)
    assert paths.definition.read_bytes() == before


def test_a_vm_gets_another_name_and_uuid(store: Store) -> None:
    vm, other = make("S"), make("T")
    store.create(vm, register=True)
    store.create(other, register=True)
    with pytest.raises(UsageError, match="that name"):
        store.edit(store.find("S"), lambda old: old.model_copy(update={"name": "T"}))
    with pytest.raises(UsageError, match="another VM has it"):
        store.edit(store.find("S"), lambda old: old.model_copy(update={"uuid": other.uuid}))
    fresh = str(uuid4())
    store.edit(store.find("S"), lambda old: old.model_copy(update={"name": "S/2", "uuid": fresh}))
    assert store.find("S/2").uuid == fresh
    assert {each.name for each in store.all()} == {"S/2", "T"}
    assert store.find(fresh).paths.folder.name == "S"


def test_two_writers_do_not_meet(store: Store) -> None:
    store.create(make("S"), register=True)
    vm = store.find("S")
    with locked(vm.paths.lock, what="another writer"):
        second = locked(vm.paths.lock, what="VM 'S'", wait_seconds=0.0)
        with pytest.raises(BusyError, match="another command"):
            second.__enter__()
    store.edit(vm, lambda old: old.model_copy(update={"description": "free again"}))
    assert store.find("S").definition.description == "free again"


def test_each_writer_starts_from_what_the_last_one_wrote(store: Store) -> None:
    store.create(make("S"), register=True)
    stale = store.find("S")
    store.edit(stale, lambda old: old.model_copy(update={"description": "first"}))
    store.edit(stale, lambda old: old.model_copy(update={"ostype": "Linux26_64"}))
    now = store.find("S").definition
    assert (now.description, now.ostype) == ("first", "Linux26_64")


def test_deleting_leaves_what_is_not_ours(store: Store) -> None:
    paths = store.create(make("S"), register=True)
    disk = paths.folder / "disk.qcow2"
    disk.write_text("precious")
    paths.logs.mkdir()
    (paths.logs / "teleport.log").write_text("log")
    store.unregister(store.find("S"), delete=True)
    assert [each.name for each in paths.folder.iterdir()] == ["disk.qcow2"]


def test_a_definition_that_was_registered_under_another_uuid_says_so(store: Store) -> None:
    vm = make("S")
    paths = store.create(vm, register=True)
    paths.definition.write_bytes(render_definition(make("S")))
    with pytest.raises(StorageError, match="registered as"):
        store.find(vm.uuid)


def test_paths_of_a_vm() -> None:
    paths = VmPaths(Path("/h/S"))
    assert (paths.definition, paths.log) == (Path("/h/S/definition.toml"), Path("/h/S/logs/teleport.log"))
    assert {paths.run, paths.journal, paths.lock, paths.logs} == {
        Path("/h/S") / each for each in ("run", "journal", ".lock", "logs")
    }
