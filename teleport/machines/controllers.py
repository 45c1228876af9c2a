"""Storage controllers: VirtualBox's names for them, what they hold, and where their devices sit.

One controller of each bus. The order of `BUSES` is the controllers' order everywhere (boot, the owner record's disk, tables).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Bus = Literal["ide", "sata", "scsi", "sas", "virtio-scsi", "virtio-blk", "floppy", "usb"]
Chip = Literal["PIIX4", "IntelAhci", "LsiLogic", "LsiLogicSas", "VirtIO", "VirtioBlk", "I82078", "USB"]


@dataclass(frozen=True)
class BusKind:
    """What one kind of controller takes. Ports are numbered from 0; `default_ports` is VirtualBox's word for a new one."""

    add: str  # what `storagectl --add` calls it
    chips: tuple[Chip, ...]  # the first is the default
    least_ports: int
    most_ports: int
    default_ports: int
    devices_per_port: int
    types: tuple[str, ...]


@dataclass(frozen=True)
class ChipKind:
    """One controller chip: its bus, and the words that VirtualBox or people use for it."""

    name: Chip
    bus: Bus
    also: tuple[str, ...] = ()


BUSES: Mapping[Bus, BusKind] = MappingProxyType(
    {
        "ide": BusKind(
            add="ide",
            chips=("PIIX4",),
            least_ports=2,
            most_ports=2,
            default_ports=2,
            devices_per_port=2,
            types=("hdd", "dvddrive"),
        ),
        "sata": BusKind(
            add="sata",
            chips=("IntelAhci",),
            least_ports=1,
            most_ports=6,  # QEMU's ich9-ahci; the guest always sees six
            default_ports=6,
            devices_per_port=1,
            types=("hdd", "dvddrive"),
        ),
        "scsi": BusKind(
            add="scsi",
            chips=("LsiLogic",),
            least_ports=7,
            most_ports=7,  # QEMU's lsi53c895a: SCSI ids 0-6, the controller is 7
            default_ports=7,
            devices_per_port=1,
            types=("hdd", "dvddrive"),
        ),
        "sas": BusKind(
            add="sas",
            chips=("LsiLogicSas",),
            least_ports=1,
            most_ports=8,
            default_ports=8,
            devices_per_port=1,
            types=("hdd", "dvddrive"),
        ),
        "virtio-scsi": BusKind(
            add="virtio",
            chips=("VirtIO",),
            least_ports=1,
            most_ports=256,
            default_ports=16,
            devices_per_port=1,
            types=("hdd", "dvddrive"),
        ),
        "virtio-blk": BusKind(
            add="virtio",
            chips=("VirtioBlk",),
            least_ports=1,
            most_ports=8,  # each disk is a PCI device of its own
            default_ports=8,
            devices_per_port=1,
            types=("hdd",),
        ),
        "floppy": BusKind(
            add="floppy",
            chips=("I82078",),
            least_ports=1,
            most_ports=1,
            default_ports=1,
            devices_per_port=2,
            types=("fdd",),
        ),
        "usb": BusKind(
            add="usb",
            chips=("USB",),
            least_ports=1,
            most_ports=4,  # the controllers' first two ports are for mouse and keyboard
            default_ports=4,
            devices_per_port=1,
            types=("hdd",),
        ),
    }
)

_CHIPS = (
    ChipKind("PIIX4", "ide"),
    ChipKind("IntelAhci", "sata", also=("IntelAHCI", "ahci")),
    ChipKind("LsiLogic", "scsi", also=("LSILogic", "lsi")),
    ChipKind("LsiLogicSas", "sas", also=("LSILogicSAS", "lsisas")),
    ChipKind("VirtIO", "virtio-scsi", also=("virtio-scsi", "VirtioSCSI")),
    ChipKind("VirtioBlk", "virtio-blk", also=("virtio-blk",)),
    ChipKind("I82078", "floppy"),
    ChipKind("USB", "usb"),
)
_CHIP_BY_WORD = {word.lower(): chip for chip in _CHIPS for word in (chip.name, *chip.also)}


# Chips of VirtualBox that QEMU doesn't have, or that cannot teleport.
_REFUSED = {
    "buslogic": "is a chip that QEMU does not have",
    "piix3": "is older than the chip that QEMU has, PIIX4",
    "ich6": "is not the chip that QEMU has, PIIX4",
    "nvme": "blocks every migration in QEMU",
}


def chip_of(word: str) -> ChipKind:
    """The chip by any of its names, whatever the case. Raises KeyError, with the reason for those that cannot be had."""
    if word.lower() in _REFUSED:
        raise KeyError(_REFUSED[word.lower()])
    return _CHIP_BY_WORD[word.lower()]


def chip_names() -> tuple[str, ...]:
    """All chips, as they are written."""
    return tuple(chip.name for chip in _CHIPS)


def _adds() -> dict[str, tuple[Bus, ...]]:
    words: dict[str, tuple[Bus, ...]] = {}
    for bus, kind in BUSES.items():
        words[kind.add] = (*words.get(kind.add, ()), bus)
    return words


# `storagectl --add` word → the buses that it may mean; the first is the default.
ADDS: Mapping[str, tuple[Bus, ...]] = MappingProxyType(_adds())
