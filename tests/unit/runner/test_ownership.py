"""Who may start a guest, by a real record in a folder."""

import asyncio
from pathlib import Path

import pytest

from teleport.errors import StateError
from teleport.host.owner_record import FolderOwnerRecord
from teleport.model import FREE, ClaimResult, Owner
from teleport.runner.ownership import NoRecord, record_at, set_free, take_for_start

ME = Owner(host="a", home="/a", vm_uuid="1", vm_name="S", epoch="x")
OTHER = Owner(host="b", home="/b", vm_uuid="2", vm_name="T", epoch="y")


def test_a_new_guest_is_taken_with_the_first_generation(tmp_path: Path) -> None:
    record = FolderOwnerRecord(tmp_path / "d.teleport")
    assert asyncio.run(take_for_start(record, ME, take_over=False)) == 1
    assert asyncio.run(record.read()).owner == ME


def test_a_guest_that_another_vm_owns_is_refused_by_name_until_it_is_freed(tmp_path: Path) -> None:
    async def scene() -> int:
        record = FolderOwnerRecord(tmp_path / "d.teleport")
        generation = await take_for_start(record, OTHER, take_over=False)
        with pytest.raises(StateError, match="'T' on b"):
            await take_for_start(record, ME, take_over=False)
        await set_free(record, generation)
        assert (await record.read()).owner == FREE
        return await take_for_start(record, ME, take_over=False)

    assert asyncio.run(scene()) == 3


def test_after_a_crash_the_same_vm_starts_again_and_another_takes_over_on_demand(tmp_path: Path) -> None:
    async def scene() -> None:
        record = FolderOwnerRecord(tmp_path / "d.teleport")
        await take_for_start(record, ME, take_over=False)
        assert await take_for_start(record, ME, take_over=False) == 2
        assert await take_for_start(record, OTHER, take_over=True) == 3

    asyncio.run(scene())


def test_without_a_record_nobody_wins_by_himself() -> None:
    record = record_at(None, ME)
    assert isinstance(record, NoRecord)
    assert asyncio.run(take_for_start(record, ME, take_over=False)) == 0
    assert asyncio.run(record.claim(1, ME)) is ClaimResult.UNKNOWN
