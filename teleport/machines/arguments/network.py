"""Network adapters: a backend `nicN-backend` and the device `nicN`."""

from teleport.machines.arguments.boot import network_boot_index
from teleport.machines.arguments.launch import Launch
from teleport.machines.arguments.places import NIC_FIRST, slot
from teleport.machines.definition import Definition, Nic, NicModel

_DEVICES: dict[NicModel, str] = {
    "Am79C970A": "pcnet",
    "82540EM": "e1000",
    "82544GC": "e1000-82544gc",
    "82545EM": "e1000-82545em",
    "82574L": "e1000e",
    "rtl8139": "rtl8139",
    "vmxnet3": "vmxnet3",
    "virtio": "virtio-net-pci",
}


def network_arguments(definition: Definition, launch: Launch) -> list[str]:
    """The adapters by number; the first one may boot, the others have no boot ROM (eight of them don't fit)."""
    arguments: list[str] = []
    present = [each for each in sorted(definition.nics, key=lambda each: each.number) if each.attachment != "none"]
    boot_index = network_boot_index(definition)
    for position, nic in enumerate(present):
        boots = position == 0 and boot_index is not None
        properties = [
            _DEVICES[nic.model],
            f"id=nic{nic.number}",
            f"addr={slot(NIC_FIRST + nic.number - 1)}",
            f"mac={launch.mac(nic.number, nic.mac)}",
            f"bootindex={boot_index}" if boots else "romfile=",
        ]
        if backend := _backend(nic):
            arguments += ["-netdev", f"{backend},id=nic{nic.number}-backend"]
            properties.append(f"netdev=nic{nic.number}-backend")
        arguments += ["-device", ",".join(properties)]
    return arguments


def _backend(nic: Nic) -> str:
    """`null` is an adapter whose cable is in no socket."""
    return "user" if nic.attachment == "nat" else ""
