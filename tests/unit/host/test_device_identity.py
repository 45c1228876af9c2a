"""Names of devices, from sysfs and from what iscsi-inq prints."""

import os
from pathlib import Path

import pytest

from teleport.host.device_identity import device_identity, has_own_serial, lun_name
from teleport.preflight.storage import other_identity

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


def test_a_block_device_is_named_by_the_kernel(tmp_path: Path) -> None:
    number = os.makedev(253, 3)
    folder = tmp_path / "dev/block/253:3"
    assert device_identity(number, sysfs=tmp_path) == ""
    (folder / "device").mkdir(parents=True)
    (folder / "device/wwid").write_text("naa.6001405aabb\n")
    assert device_identity(number, sysfs=tmp_path) == "wwid:naa.6001405aabb"
    (folder / "dm").mkdir()
    (folder / "dm/uuid").write_text("LVM-abc\n")
    assert device_identity(number, sysfs=tmp_path) == "dm:LVM-abc"


def test_only_names_of_one_kind_tell_two_devices_apart() -> None:
    assert other_identity("scsi:a", "scsi:b")
    assert not other_identity("scsi:a", "scsi:a")
    assert not other_identity("dm:a", "wwid:b")
    assert not other_identity("", "scsi:b")
    assert not other_identity("boot1/8:1/12", "boot2/8:1/12")
