"""QEMU's `info qtree` as devices and facts: what the guest can see of them, without what may differ harmlessly.

The text is the one that QEMU 10.0 prints (system/qdev-monitor.c, qtree_print): indented by two, a device's properties and own
lines below `dev: DRIVER, id "ID"`, its buses after them. Tried on `pc` and `q35` with a guest that had booted Linux against one
that waits for a stream: apart from what is left out here, nothing differs.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from teleport.model import REMOTE_USB, Fact

# Not among them: `mac`. The target is started with the source's; with another one an e1000e refuses to load (its serial number
# is made of the MAC, tried).
# Properties that may differ between two machines that are the same to the guest, by the reason.
_NAMES_OF_BACKENDS = {  # how this host calls the other end; what is behind it has facts of its own or is descriptive
    *("drive", "chardev", "netdev", "audiodev", "memdev", "rng", "cryptodev", "tpmdev", "iothread", "display", "input"),
    *("romfile", "loaderfile", "file", "logfile", "evdev"),  # a ROM's content travels with the guest, its size is compared
}
_SET_BY_THE_GUEST = {  # by the firmware or the guest's kernel; they travel in the stream
    *("busnr", "MCFG", "smb_io_base"),
}
_GUESSED_FROM_CONTENT = {  # QEMU guesses a geometry from the partition table when it starts (hw/block/hd-geometry.c)
    *("cyls", "heads", "secs", "lcyls", "lheads", "lsecs"),
}
_POLICY_OF_THE_HOST = {  # how QEMU serves the device, never seen by the guest
    *(
        "account-invalid",
        "account-failed",
        "rerror",
        "werror",
        "share-rw",
        "iothread-vq-mapping",
        "ioeventfd",
        "tx",
        "x-txtimer",
    ),
    *(
        "x-txburst",
        "debug",
        "pcap",
        "x-max-bounce-buffer-size",
        "backend_defaults",
        "ebpf-rss-fds",
        "failover_pair_id",
        "vhost",
    ),
    *("vhostforce", "stats-intervals", "loglevel", "commandlog", "x-ignore-backend-features"),
}
HARMLESS_PROPERTIES = frozenset(_NAMES_OF_BACKENDS | _SET_BY_THE_GUEST | _GUESSED_FROM_CONTENT | _POLICY_OF_THE_HOST)

# The properties that say where on its bus a device sits, the first that it has.
_ADDRESSES = ("addr", "scsi-id", "unit", "cad", "usb port", "nr", "address", "iobase", "index", "slot")
# A virtio device is two to QEMU, the transport and the function on this bus; it is one to the guest.
_VIRTIO_BUS = "virtio-bus"

_DEVICE = re.compile(r'dev: (?P<driver>.*), id "(?P<id>.*)"')
_PROPERTY = re.compile(r"(?P<name>[^ ].*?) = (?P<value>.*)")
_NUMBER = re.compile(r"(?P<number>-?[0-9]+) \(.*\)")
_PCI = re.compile(r"class (?P<title>.*), addr .*, pci id (?P<id>[0-9a-f]{4}:[0-9a-f]{4} \(sub [0-9a-f]{4}:[0-9a-f]{4}\))")
_BAR = re.compile(r"bar (?P<number>[0-9]+): (?P<kind>.*) at 0x(?P<first>[0-9a-f]+) \[0x(?P<last>[0-9a-f]+)\]")
_USB = re.compile(r"addr \S*, port (?P<port>\S*), speed .*")


@dataclass(frozen=True)
class Device:
    """One device: what it is, the bus that it sits on (with that bus's owner), and what the tree says of it.

    `properties` are QEMU's, numbers without their second notation; `shape` holds what is not a property: PCI id and BARs
    (number → kind and size in bytes; the address is the guest's), the USB port.
    """

    driver: str
    id: str
    bus: str
    owner: int  # index of the device that has the bus; -1 for the main system bus
    properties: dict[str, str] = field(default_factory=dict)
    shape: dict[str, str] = field(default_factory=dict)


def parse_qtree(text: str) -> tuple[Device, ...]:
    """The devices in the tree's order (of one bus: the newest first). Lines that are not understood are left out."""
    devices: list[Device] = []
    open_devices: list[tuple[int, int]] = []  # (indent, index), outermost first
    open_buses: list[tuple[int, str, int]] = []  # (indent, name, owner)
    for line in text.splitlines():
        content = line.strip()
        indent = len(line) - len(line.lstrip(" "))
        while open_devices and open_devices[-1][0] >= indent:
            open_devices.pop()
        while open_buses and open_buses[-1][0] >= indent:
            open_buses.pop()
        if content.startswith("bus: "):
            open_buses.append((indent, content.removeprefix("bus: "), open_devices[-1][1] if open_devices else -1))
        elif match := _DEVICE.fullmatch(content):
            _, bus, owner = open_buses[-1] if open_buses else (0, "", -1)
            open_devices.append((indent, len(devices)))
            devices.append(Device(driver=match["driver"], id=match["id"], bus=bus, owner=owner))
        elif open_devices:
            _note(devices[open_devices[-1][1]], content)
    return tuple(devices)


def _note(device: Device, line: str) -> None:
    """One line of a device: a property, or one of the few lines that buses print (PCI's, USB's)."""
    if match := _PROPERTY.fullmatch(line):
        value = match["value"]
        number = _NUMBER.fullmatch(value)
        device.properties[match["name"]] = number["number"] if number else value.removeprefix('"').removesuffix('"')
    elif match := _PCI.fullmatch(line):
        device.shape["pci id"] = f"{match['id']} {match['title']}"
    elif match := _BAR.fullmatch(line):
        size_bytes = (int(match["last"], 16) - int(match["first"], 16) + 1) % (1 << 64)
        device.shape[f"bar {match['number']}"] = f"{match['kind']} of {size_bytes} bytes"
    elif match := _USB.fullmatch(line):
        device.shape["usb port"] = match["port"]


def device_facts(devices: Iterable[Device]) -> tuple[Fact, ...]:
    """What the guest sees of the devices.

    Area "device": driver, bus, PCI id, BARs: all must agree. Area "property": QEMU's properties that reach the guest, compared
    where both sides have them, since a newer QEMU knows more of them for the same machine type.
    """
    tree = tuple(devices)
    subjects = _subjects(tree)
    facts: list[Fact] = []
    for device, subject in zip(tree, subjects, strict=True):
        if device.id.startswith(REMOTE_USB):
            continue  # unplugged before anything moves
        if device.bus != _VIRTIO_BUS:
            facts.append(Fact("device", subject, "driver", device.driver))
            facts.append(Fact("device", subject, "bus", _place(device, subjects)))
            facts.extend(Fact("device", subject, name, value) for name, value in device.shape.items())
        facts.extend(
            Fact("property", subject, name, value)
            for name, value in device.properties.items()
            if name not in HARMLESS_PROPERTIES
        )
    return tuple(dict.fromkeys(facts))


def _subjects(tree: tuple[Device, ...]) -> tuple[str, ...]:
    """A name for each device that is the same on both sides: its id, or where it sits; numbered only where that is not unique."""
    names: list[str] = []
    for device in tree:
        if device.id:
            names.append(device.id)
        elif device.bus == _VIRTIO_BUS and device.owner >= 0:
            names.append(names[device.owner])
        else:
            address = next((f"@{value}" for value in _addresses(device)), "")
            names.append(f"{device.bus}/{device.driver}{address}")
    total, seen = Counter(name for name, _ in _without_virtio(names, tree)), Counter[str]()
    numbered: dict[int, str] = {}
    for name, index in reversed(list(_without_virtio(names, tree))):  # the oldest first, so that a late comer renames nobody
        seen[name] += 1
        numbered[index] = f"{name}#{seen[name]}" if total[name] > 1 and seen[name] > 1 else name
    return tuple(numbered.get(index, numbered.get(device.owner, names[index])) for index, device in enumerate(tree))


def _without_virtio(names: list[str], tree: tuple[Device, ...]) -> Iterator[tuple[str, int]]:
    """(name, index) of the devices that are not the function behind a virtio transport."""
    return ((name, index) for index, (name, device) in enumerate(zip(names, tree, strict=True)) if device.bus != _VIRTIO_BUS)


def _addresses(device: Device) -> Iterator[str]:
    known = device.properties | device.shape
    return (known[name] for name in _ADDRESSES if known.get(name))


def _place(device: Device, subjects: tuple[str, ...]) -> str:
    """The bus with its owner: bus names alone are QEMU's own numbering."""
    return f"{subjects[device.owner]}/{device.bus}" if device.owner >= 0 else device.bus
