"""Names of devices, from sysfs and from what iscsi-inq prints."""

import os
from pathlib import Path

import pytest

from teleport.host.device_identity import device_identity, has_own_serial, lun_name
from teleport.preflight.device import Device

SERIAL = "Unit Serial Number:[                            serial77]\n"
OWN = "DEVICE DESIGNATOR #{}\nCode Set:(1) BINARY\nPIV:0\nAssociation:(0) LOGICAL_UNIT\nDesignator Type:(3) NAA\nDesignator:[{}]\n"
PORT = "DEVICE DESIGNATOR #{}\nCode Set:(1) BINARY\nAssociation:(1) TARGET_PORT\nDesignator Type:(4) REL\nDesignator:[{}]\n"
HEAD = "Page Code:(0x83) DEVICE_IDENTIFICATION\n"


def test_a_lun_is_named_by_itself_and_not_by_the_way_to_it() -> None:
    one = lun_name(serial_page=SERIAL, designator_page=HEAD + OWN.format(0, "naa.1") + PORT.format(1, "port 1"))
    assert one.startswith("scsi:")
    assert one == lun_name(serial_page=SERIAL, designator_page=HEAD + PORT.format(0, "port 2") + OWN.format(1, "naa.1"))
    assert one != lun_name(serial_page=SERIAL, designator_page=HEAD + OWN.format(0, "naa.2"))
    assert one != lun_name(serial_page=SERIAL.replace("77", "78"), designator_page=HEAD + OWN.format(0, "naa.1"))
    assert lun_name(serial_page="", designator_page="") == ""


@pytest.mark.parametrize(
    ("serial", "own"),
    [
        ("                              beaf11", False), ("beaf12", False), ("", False), ("1", False), ("00000000000000", False),
        ("MYSERIAL   0", False), ("1a2b3c4d", False), ("IET 00010001", False), ("serial77", True), ("S5Y1NX0R", True),
        ("6f2a44f0-7a43-4f0e-a2b1-0c5d2f6c1e11", True),
    ],
)  # fmt: skip
def test_a_serial_number_by_default_is_none_of_its_own(serial: str, own: bool) -> None:
    assert has_own_serial(f"Unit Serial Number:[{serial}]\n") is own
    assert not has_own_serial("")


def _disk(sysfs: Path, name: str, *, wwid: str = "") -> Path:
    folder = sysfs / "devices" / name
    (folder / "device").mkdir(parents=True)
    if wwid:
        (folder / "device/wwid").write_text(wwid + "\n")
    return folder


def _named(sysfs: Path, folder: Path, minor: int) -> Device:
    """As the kernel has it: dev/block/MAJOR:MINOR leads to the device's folder."""
    (sysfs / "dev/block").mkdir(parents=True, exist_ok=True)
    (sysfs / f"dev/block/253:{minor}").symlink_to(folder)
    return device_identity(os.makedev(253, minor), sysfs=sysfs)


def test_a_block_device_is_named_by_what_it_lies_on(tmp_path: Path) -> None:
    nameless = _named(tmp_path, _disk(tmp_path, "vdb"), 0)
    assert (nameless.name, nameless.lies_on) == ("", ())
    assert nameless.here.endswith("/block/253:0")
    sda, sdb = (_disk(tmp_path, name, wwid="naa.6001405aabb") for name in ("sda", "sdb"))
    assert _named(tmp_path, sda, 1).lies_on == ("naa.6001405aabb",)
    part = sda / "sda2"
    part.mkdir()
    (part / "partition").write_text("2\n")
    named = _named(tmp_path, part, 2)
    assert (named.name, named.lies_on) == ("partition 2", ("naa.6001405aabb",))
    multipath, volume = tmp_path / "devices/dm-0", tmp_path / "devices/dm-1"
    for folder, uuid, below in ((multipath, "mpath-36001405aabb", (sda, sdb)), (volume, "LVM-abc", (multipath,))):
        (folder / "dm").mkdir(parents=True)
        (folder / "dm/uuid").write_text(uuid + "\n")
        (folder / "slaves").mkdir()
        for each in below:
            (folder / "slaves" / each.name).symlink_to(each)
    assert _named(tmp_path, multipath, 3).text.partition("name=")[2] == _named(tmp_path, sdb, 4).text.partition("name=")[2]
    named = _named(tmp_path, volume, 5)
    assert (named.name, named.lies_on) == ("LVM-abc", ("naa.6001405aabb",))


def test_two_loop_devices_of_one_file_are_one(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.touch()
    for name in ("loop0", "loop1", "loop2"):
        (_disk(tmp_path, name) / "loop").mkdir()
        (tmp_path / "devices" / name / "loop/backing_file").write_text(f"{image if name != 'loop2' else tmp_path}\n")
        (tmp_path / "devices" / name / "loop/offset").write_text("0\n")
    one, other, third = (_named(tmp_path, tmp_path / "devices" / f"loop{minor}", minor) for minor in range(3))
    assert one == other != third
