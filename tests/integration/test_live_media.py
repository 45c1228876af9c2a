"""Media of a machine that runs, in every kind of drive that can change one: in, another, out, and a failure that changes nothing."""

import asyncio
from pathlib import Path

import pytest

from teleport.errors import HypervisorError
from teleport.host.live_changes import has_medium, insert, node_in
from teleport.machines.controllers import Bus
from teleport.machines.definition import Definition, Machine
from teleport.machines.drives import MediumType
from teleport.machines.live import DrivePlace
from tests.integration.test_machines import media, running
from tests.unit.machines.cases import controller, definition, drive

pytestmark = pytest.mark.qemu
__all__ = ["media"]

_CD: MediumType = "dvddrive"
DRIVES: dict[Bus, MediumType] = {"ide": _CD, "sata": _CD, "scsi": _CD, "sas": _CD, "virtio-scsi": _CD, "floppy": "fdd"}


def _with(path: str, *, read_only: bool = False) -> Definition:
    """One drive of each kind, with that medium ("": empty)."""
    drives = {bus: drive(0, 0, kind, path, "raw" if path else "") for bus, kind in DRIVES.items()}
    drives["floppy"] = drives["floppy"].model_copy(update={"read_only": read_only})
    return definition(machine=Machine(memory_mb=16), controllers=tuple(controller(bus, each) for bus, each in drives.items()))


async def _changes(folder: Path) -> None:
    image, other = f"{folder}/floppy.img", f"{folder}/cd.iso"
    empty = _with("")
    async with running(empty, folder, paused=True) as (guest, _):
        for bus in DRIVES:
            place = DrivePlace(bus, 0, 0)
            for wanted in (_with(image), _with(other, read_only=True), _with(other), empty):
                await insert(guest, wanted, place, force=False)
                assert await has_medium(guest, wanted, place), bus
            await insert(guest, _with(image), place, force=False)
            node = await node_in(guest, empty, place)
            with pytest.raises(HypervisorError, match="No such file"):
                await insert(guest, _with(f"{folder}/nothing.iso"), place, force=True)
            assert await node_in(guest, empty, place) == node
            await insert(guest, empty, place, force=False)
        names = {each["node-name"] for each in await guest.execute("query-named-block-nodes")}
        assert not names, "a medium that is in no drive is closed"


def test_media_of_every_kind_of_drive(media: Path) -> None:
    asyncio.run(asyncio.wait_for(_changes(media), 60))
