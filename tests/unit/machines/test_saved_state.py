"""The folder of a saved state: there whole or not at all, and used once."""

import asyncio
import json
from pathlib import Path

import pytest

from teleport.errors import StateError, StorageError
from teleport.host.owner_record import FolderOwnerRecord
from teleport.machines import saved_state
from teleport.machines.owners import owner_now
from teleport.machines.saved_state import SavedFacts
from teleport.machines.store import VmPaths
from teleport.model import FREE, GuestIdentity, Owner

FACTS = SavedFacts(
    identity=GuestIdentity(smbios_uuid="u", macs=((1, "08:00:27:00:00:01"),)),
    generation=7,
    epoch="e",
    was_paused=True,
    software="teleport",
    qemu="10.0.2",
)


@pytest.fixture
def paths(tmp_path: Path) -> VmPaths:
    return VmPaths(tmp_path)


def names(paths: VmPaths) -> list[str]:
    return sorted(path.name for path in paths.folder.iterdir())


def test_it_is_there_once_it_is_whole_and_gone_once_it_is_used(paths: VmPaths) -> None:
    assert saved_state.read(paths) is None
    stream = saved_state.begin(paths)
    stream.write_bytes(b"QEVM")
    assert saved_state.read(paths) is None
    saved_state.commit(paths, FACTS)
    assert saved_state.read(paths) == FACTS
    assert saved_state.stream_of(paths).read_bytes() == b"QEVM"
    with pytest.raises(StateError, match="there is a saved state already"):
        saved_state.begin(paths)
    saved_state.mark_used(paths)
    assert saved_state.read(paths) is None
    saved_state.mark_unused(paths)
    assert saved_state.read(paths) == FACTS
    saved_state.mark_used(paths)
    saved_state.drop_unfinished(paths)
    assert names(paths) == []


def test_what_a_cut_left_is_swept_up_by_the_next_save(paths: VmPaths) -> None:
    saved_state.begin(paths).write_bytes(b"half")
    assert saved_state.begin(paths).read_bytes() == b""
    saved_state.commit(paths, FACTS)
    saved_state.discard(paths)
    assert names(paths) == []
    with pytest.raises(StateError, match="no saved state"):
        saved_state.discard(paths)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "is damaged"),
        (b"{}", "is damaged"),
        (json.dumps({"format": 99}).encode(), "newer Teleport"),
        (None, "No such file"),
    ],
)
def test_a_damaged_one_says_so(paths: VmPaths, content: bytes | None, reason: str) -> None:
    saved_state.begin(paths)
    saved_state.commit(paths, FACTS)
    file = paths.saved / "saved.json"
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(StorageError, match=reason):
        saved_state.read(paths)
    saved_state.discard(paths)


def test_who_only_looks_at_an_owner_record_sees_what_its_writer_wrote(tmp_path: Path) -> None:
    async def claims() -> None:
        record = FolderOwnerRecord(tmp_path / "record")
        assert owner_now(record.folder) == {}
        await record.probe()
        assert owner_now(record.folder) == {}
        await record.claim(1, Owner(host="h", home="/home", vm_uuid="v", vm_name="S", epoch="e"))
        assert owner_now(record.folder)["vm_name"] == "S"
        await record.claim(2, FREE)
        assert owner_now(record.folder)["vm_uuid"] == ""

    asyncio.run(claims())
    (tmp_path / "record/00000000000003.owner").write_text("torn")
    with pytest.raises(StorageError, match="damaged"):
        owner_now(tmp_path / "record")
