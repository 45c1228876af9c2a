"""Two block devices are one disk only where that is proved."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleport.model import Finding, MediumFact
from teleport.preflight.device import Device, device, not_one_device
from teleport.preflight.storage import compare_media, other_identity

DISK = Device(here="boot1/block/8:16", lies_on=("naa.6001405aabb",))
LOGICAL = Device(here="boot1/block/253:1", name="LVM-abc", lies_on=("naa.6001405aabb",))
NAMELESS = Device(here="boot1/block/252:16")
THERE = "boot2/block/8:32"


def _fact(disk: Device, path: str = "/dev/sdb") -> MediumFact:
    return MediumFact(
        node="sata-0-0", kind="hdd", format="raw", read_only=False, virtual_size_bytes=1, size_bytes=1, path=path,
        identity=disk.text, content="samples:a,-,b",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("here", "there", "proved"),
    [
        (DISK, replace(DISK, here=THERE), True),
        (DISK, replace(DISK, here=THERE, lies_on=("naa.6001405ccdd",)), False),
        (replace(DISK, name="partition 1"), replace(DISK, here=THERE, name="partition 1"), True),
        (replace(DISK, name="partition 1"), replace(DISK, here=THERE, name="partition 2"), False),
        (replace(DISK, name="partition 1"), replace(DISK, here=THERE), False),
        (LOGICAL, replace(LOGICAL, here=THERE), True),
        (LOGICAL, replace(LOGICAL, here=THERE, lies_on=()), False),  # on what tells no name there
        (replace(LOGICAL, lies_on=()), replace(LOGICAL, here=THERE, lies_on=()), False),  # a cloned host has that volume, too
        (LOGICAL, replace(LOGICAL, here=THERE, lies_on=("naa.6001405ccdd",)), False),  # the array's copy of the whole group
        (LOGICAL, replace(LOGICAL, here=THERE, name="LVM-abd"), False),
        (NAMELESS, NAMELESS, True),  # one host's one device
        (NAMELESS, replace(NAMELESS, here=THERE), False),
        (NAMELESS, DISK, False),
        *(
            (replace(NAMELESS, lies_on=(many,)), replace(NAMELESS, here=THERE, lies_on=(many,)), False)
            for many in (
                "naa.60000000000000000e00000000010001", "t10.ATA     QEMU HARDDISK                           QM00001",
                "t10.QEMU    QEMU HARDDISK   sata-0-0", "t10.LIO", "naa.0000",
            )
        ),
        (
            replace(NAMELESS, lies_on=("t10.ATA     Samsung SSD 870   S5Y1NX0R",)),
            replace(NAMELESS, here=THERE, lies_on=("t10.ATA     Samsung SSD 870   S5Y1NX0R",)),
            True,
        ),
    ],
)  # fmt: skip
def test_only_what_is_proved_is_one_disk(here: Device, there: Device, proved: bool) -> None:
    for one, other in ((here, there), (there, here)):
        assert (not_one_device(_fact(one), _fact(other)) == "") is proved
        found = compare_media((_fact(one),), (_fact(other),), {"sata-0-0": ""})
        assert [finding.what for finding in found] == ([] if proved else ["medium sata-0-0 identity"])


def test_an_administrator_can_name_what_has_no_name() -> None:
    by_id = "/dev/disk/by-id/database"
    other = replace(NAMELESS, here=THERE)
    assert not_one_device(_fact(NAMELESS, by_id), _fact(other, by_id)) == ""
    assert "/dev/disk/by-id" in not_one_device(_fact(NAMELESS, by_id), _fact(other, "/dev/vdb"))
    assert "/dev/disk/by-id" in not_one_device(_fact(NAMELESS), _fact(other))
    clone = replace(DISK, here=THERE, lies_on=("naa.6001405ccdd",))
    assert "calls itself otherwise" in not_one_device(_fact(DISK, by_id), _fact(clone, by_id))


@pytest.mark.parametrize(
    "name", ["dm-uuid-LVM-abc", "dm-name-vg-guest", "lvm-pv-uuid-x", "md-uuid-1:2", "ata-QEMU_HARDDISK_QM00001"]
)
def test_links_that_udev_makes_of_what_a_clone_has_are_no_proof(name: str) -> None:
    path = f"/dev/disk/by-id/{name}"
    assert "a udev rule" in not_one_device(_fact(NAMELESS, path), _fact(replace(NAMELESS, here=THERE), path))


def test_two_names_are_shown() -> None:
    clone = replace(LOGICAL, here=THERE, name="LVM-abd")
    assert compare_media((_fact(LOGICAL),), (_fact(clone),), {"sata-0-0": ""}) == (
        Finding("medium sata-0-0 identity", "/dev/sdb (LVM-abc on naa.6001405aabb)", "/dev/sdb (LVM-abd on naa.6001405aabb)"),
    )
    assert not other_identity(LOGICAL.text, "remote:x")
    assert not other_identity("boot1/8:1/12", "boot2/8:1/12")


def test_a_device_against_a_file_is_not_proved() -> None:
    file = replace(_fact(DISK, "/x.raw"), identity="boot2/8:1/12", content="")
    assert [each.what for each in compare_media((_fact(DISK),), (file,), {"sata-0-0": ""})] == ["medium sata-0-0 identity"]


@given(st.text(), st.text(), st.lists(st.text(), max_size=3))
def test_what_is_said_is_what_is_understood(here: str, name: str, below: list[str]) -> None:
    disk = Device(here=here, name=name, lies_on=tuple(sorted(below)))
    assert device(disk.text) == disk


@given(st.text())
def test_whatever_a_peer_says_is_no_proof(text: str) -> None:
    assert device(text) is None
    assert not_one_device(_fact(NAMELESS), replace(_fact(NAMELESS), identity=f"device:{text}"))
