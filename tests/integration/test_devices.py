"""Every kind of disk and network adapter in use by a guest that moves: a write and a packet before and after, and it goes on.

A selection with each bus runs always; `deploy/devices` (TELEPORT_DEVICE_MATRIX=full) plays all of them.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness.guest import REPOSITORY, GuestConsole, Load, guest_image
from tests.harness.home import Home
from tests.harness.host import Host
from tests.harness.proof import proven_move

pytestmark = pytest.mark.qemu

FULL_KERNEL, CLOUD_KERNEL = REPOSITORY / ".cache/kernel-full", REPOSITORY / ".cache/kernel"
LOAD = Load(resident_mb=8, rewrite_mb=8, dirty_mb_s=4, disk=True)


@dataclass(frozen=True)
class Machine:
    """Settings (`modifyvm`), a controller (`storagectl --add X --controller Y`) for the disk, and what the guest must see.

    `kernel` is the small one where that has all drivers: it boots in a third of the time, and under EFI in less.
    """

    settings: str
    bus: str
    chip: str
    sees: str
    port: int = 0
    kernel: Path = FULL_KERNEL
    always: bool = False


MACHINES = {
    "ide": Machine("--nictype1 Am79C970A", "ide", "PIIX4", "1022:2000", always=True),
    "ide-ich9": Machine("--chipset ich9 --nictype1 82540EM --audio null --audiocontroller hda", "ide", "PIIX4", "8086:100e"),
    "sata": Machine("--nictype1 82545EM --cpus 2 --audio null", "sata", "IntelAhci", "8086:100f", port=3),
    "sata-ich9": Machine(
        "--chipset ich9 --nictype1 82574L --hpet on", "sata", "IntelAhci", "8086:10d3", port=1, always=True
    ),
    "scsi": Machine("--nictype1 rtl8139 --usb on --mouse usbtablet", "scsi", "LsiLogic", "10ec:8139", port=6),
    "sas": Machine("--nictype1 vmxnet3 --graphicscontroller vmsvga", "sas", "LsiLogicSas", "15ad:07b0"),
    "virtio-scsi": Machine(
        "--chipset ich9 --nictype1 virtio", "virtio", "VirtIO", "1af4:1004", port=9, kernel=CLOUD_KERNEL, always=True
    ),
    "efi": Machine(
        "--chipset ich9 --firmware efi --nictype1 virtio --boot1 disk",
        "virtio", "VirtioBlk", "1af4:1001", kernel=CLOUD_KERNEL, always=True,
    ),
    "usb": Machine(
        "--nictype1 82544GC --usbehci on --usbxhci on --keyboard usb", "usb", "USB", "8086:100c", port=2, always=True
    ),
}  # fmt: skip
FULL = os.environ.get("TELEPORT_DEVICE_MATRIX") == "full"
SELECTED = [name for name, machine in MACHINES.items() if FULL or machine.always]


def _define(host: Host, machine: Machine, disk: Path) -> None:
    host.define(load=LOAD, memory_mb=256)
    image = guest_image(machine.kernel)
    host.run("modifyvm", host.name, "--kernel", image.kernel, "--initrd", image.initrd, *machine.settings.split())
    if not disk.exists():
        host.run("createhd", "--filename", disk, "--size", 64)
    host.run("storagectl", host.name, "--name", "C", "--add", machine.bus, "--controller", machine.chip)
    place = ("--port", machine.port, "--device", 0, "--type", "hdd")
    host.run("storageattach", host.name, "--storagectl", "C", *place, "--medium", disk)


@pytest.mark.parametrize("name", SELECTED)
def test_a_guest_moves_with_its_devices(name: str, home: Home, second_home: Home, shared_folder: Path) -> None:
    machine = MACHINES[name]
    source, target = Host("S", home), Host("T", second_home)
    for host in (source, target):
        _define(host, machine, shared_folder / "disk.qcow2")
    with GuestConsole(source.endpoint, target.endpoint) as console:
        source.start()
        console.wait_ready(120)
        seen = console.run("cat /sys/bus/pci/devices/*/uevent | grep PCI_ID | cut -d= -f2 | tr A-Z a-z | tr '\\n' ' '")
        assert machine.sees in seen
        first = console.disk()
        assert console.net()
        move = proven_move(source, target, console, console.check("before"), options=("--plan", "shared"))
        assert move.disk_sequence > first
        assert console.run("cat /sys/bus/pci/devices/*/uevent | grep PCI_ID | cut -d= -f2 | tr A-Z a-z | tr '\\n' ' '") == seen
