import asyncio
import errno
import json
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from teleport.errors import StorageError
from teleport.host import owner_record
from teleport.host.faults import set_faults
from teleport.host.owner_record import KEPT_GENERATIONS, FolderOwnerRecord
from teleport.model import FREE, ClaimResult, Owner, RecordView

WON, LOST, UNKNOWN = ClaimResult.WON, ClaimResult.LOST, ClaimResult.UNKNOWN


def owner(number: int) -> Owner:
    return Owner(host=f"host{number}", home="/home", vm_uuid=f"uuid{number}", vm_name=f"VM {number}", epoch=f"epoch{number}")


@pytest.fixture(autouse=True)
def _no_faults() -> Iterator[None]:
    yield
    set_faults("")


@pytest.fixture(params=["link", "folder"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A record's folder on a filesystem with links, and on one that answers as those do that have none."""
    if request.param == "folder":

        def no_link(*_: Any, **__: Any) -> None:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

        monkeypatch.setattr(owner_record.os, "link", no_link)
    return tmp_path / "disk.teleport"


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_register_with_one_winner_a_generation(folder: Path) -> None:
    async def scenario() -> None:
        record = FolderOwnerRecord(folder)
        await record.probe()
        assert await record.read() == RecordView(generation=0, owner=FREE, started=False)
        assert await record.claim(1, owner(1)) is WON
        assert await record.claim(1, owner(1)) is WON  # one's own again
        assert await FolderOwnerRecord(folder).claim(1, owner(2)) is LOST
        assert await record.read() == RecordView(generation=1, owner=owner(1), started=False)
        await record.note_started(1)
        await record.note_started(1)
        assert (await record.read()).started
        assert await record.claim(2, FREE) is WON
        assert await record.read() == RecordView(generation=2, owner=FREE, started=False)
        assert await record.claim(1, owner(1)) is LOST  # won once, and the record went on
        assert leftovers(folder) == []

    asyncio.run(scenario())


def test_a_claim_beyond_the_next_generation_is_unknown(folder: Path) -> None:
    """The folder is not the one that we knew: storage that is not mounted must not let anybody win."""

    async def scenario() -> None:
        record = FolderOwnerRecord(folder)
        await record.probe()
        assert await record.claim(7, owner(1)) is UNKNOWN
        assert (await record.read()).generation == 0

    asyncio.run(scenario())


def test_missing_storage(tmp_path: Path) -> None:
    async def scenario() -> None:
        record = FolderOwnerRecord(tmp_path / "not mounted" / "record")
        with pytest.raises(StorageError):
            await record.read()
        with pytest.raises(StorageError):
            await record.probe()
        assert await record.claim(1, owner(1)) is UNKNOWN

    asyncio.run(scenario())


def test_a_prepared_claim_only_needs_its_name(folder: Path) -> None:
    async def scenario() -> None:
        record = FolderOwnerRecord(folder)
        await record.prepare_claim(1, owner(1))
        assert len(leftovers(folder)) == 1
        set_faults("record.write=raise:disk full")
        assert await record.claim(1, owner(1)) is WON
        with pytest.raises(StorageError, match="disk full"):
            await record.prepare_claim(2, owner(1))
        set_faults("")
        await record.prepare_claim(2, owner(1))
        await record.discard_claim()
        assert leftovers(folder) == []
        await record.prepare_claim(2, owner(1))
        assert await record.claim(2, owner(3)) is WON  # another than was prepared
        assert (await record.read()).owner == owner(3)

    asyncio.run(scenario())


def test_a_lost_reply_is_found_out_by_reading(folder: Path) -> None:
    async def scenario() -> None:
        record = FolderOwnerRecord(folder)
        await record.probe()
        set_faults("record.linked=raise:EIO")
        assert await record.claim(1, owner(1)) is WON
        set_faults("record.link=raise:EIO")
        assert await record.claim(2, owner(1)) is UNKNOWN
        set_faults("record.verify=raise:EIO")
        assert await record.claim(2, owner(1)) is UNKNOWN  # named, but not confirmed
        set_faults("")
        assert await record.claim(2, owner(2)) is LOST
        assert await record.claim(2, owner(1)) is WON

    asyncio.run(scenario())


@pytest.mark.parametrize("point", ["record.link", "record.linked", "record.verify"])
def test_storage_that_hangs_is_unknown(folder: Path, point: str) -> None:
    async def scenario() -> None:
        await FolderOwnerRecord(folder).probe()
        record = FolderOwnerRecord(folder, timeout_seconds=0.5)
        set_faults(f"{point}=hang")
        assert await record.claim(1, owner(1)) is UNKNOWN
        set_faults("record.read=hang,record.note=hang")
        with pytest.raises(StorageError, match="did not answer"):
            await record.read()
        with pytest.raises(StorageError, match="did not answer"):
            await record.note_started(1)
        set_faults("")
        while (asked_again := await record.claim(1, owner(1))) is UNKNOWN:
            pass  # half a second may be short on a busy machine
        assert asked_again is WON

    asyncio.run(scenario())


def test_old_generations_are_pruned_and_late_claims_still_lose(folder: Path) -> None:
    async def scenario() -> None:
        record = FolderOwnerRecord(folder)
        await record.probe()
        last = KEPT_GENERATIONS + 4
        for generation in range(1, last + 1):
            assert await record.claim(generation, owner(generation)) is WON
            await record.note_started(generation)
        kept = sorted(path.name for path in folder.iterdir() if path.suffix == ".owner")
        assert len(kept) == KEPT_GENERATIONS
        assert await FolderOwnerRecord(folder).claim(1, owner(99)) is LOST
        assert await FolderOwnerRecord(folder).claim(1, owner(1)) is LOST

    asyncio.run(scenario())


def test_damage_is_never_taken_for_freedom(folder: Path) -> None:
    async def scenario() -> None:
        record = FolderOwnerRecord(folder)
        await record.probe()
        (folder / f"{1:014d}.owner").write_text("{")
        with pytest.raises(StorageError, match="damaged"):
            await record.read()
        assert await record.claim(1, owner(1)) is UNKNOWN
        (folder / f"{2:014d}.owner").write_text(json.dumps({"format": 2, "generation": 2, "owner": {}}))
        with pytest.raises(StorageError, match="newer"):
            await record.read()

    asyncio.run(scenario())


def test_a_filesystem_that_overwrites_names_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner_record.os, "link", lambda *_: None)
    with pytest.raises(StorageError, match="second writer"):
        asyncio.run(FolderOwnerRecord(tmp_path / "record").probe())
    assert list((tmp_path / "record").iterdir()) == []


def _claimant(folder: str, number: int, generations: int, results: Any) -> None:
    async def claim_all() -> list[str]:
        record = FolderOwnerRecord(Path(folder), timeout_seconds=60)
        answers = []
        for generation in range(1, generations + 1):
            while (answer := await record.claim(generation, owner(number))) is UNKNOWN:  # noqa: ASYNC110 - other processes
                await asyncio.sleep(0)  # the others have not got so far yet
            answers.append(answer.value)
        return answers

    results.put((number, asyncio.run(claim_all())))


def test_many_processes_claim_and_one_wins_each(folder: Path) -> None:
    claimants, generations = 6, 12
    context = multiprocessing.get_context("fork")
    asyncio.run(FolderOwnerRecord(folder).probe())
    results = context.Queue()
    children = [
        context.Process(target=_claimant, args=(str(folder), number, generations, results)) for number in range(claimants)
    ]
    for child in children:
        child.start()
    answers = dict(results.get(timeout=120) for _ in children)
    for child in children:
        child.join(timeout=60)
        assert child.exitcode == 0
    for generation in range(generations):
        assert [answers[number][generation] for number in answers].count("won") <= 1
        text = folder / f"{generation + 1:014d}.owner"
        content = json.loads((text / "owner" if text.is_dir() else text).read_text())
        winner = int(content["owner"]["vm_uuid"].removeprefix("uuid"))
        # The winner knows it, unless the others had gone on before it looked again (then it lost what it had won).
        assert answers[winner][generation] == "won" or generation + 1 < generations
        assert all(answers[number][generation] == "lost" for number in answers if number != winner)
    assert leftovers(folder) == []
