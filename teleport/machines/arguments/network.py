"""Network adapters: a backend `nicN-backend` and the device `nicN`."""

import hashlib
from dataclasses import dataclass

from teleport.machines.adapters import Forward, Nic, NicModel
from teleport.machines.arguments.boot import network_boot_index
from teleport.machines.arguments.launch import Launch
from teleport.machines.arguments.places import NIC_FIRST, slot
from teleport.machines.definition import Definition

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
        if backend := _backend(definition, nic, launch):
            arguments += ["-netdev", f"{backend},id=nic{nic.number}-backend"]
            properties.append(f"netdev=nic{nic.number}-backend")
        arguments += ["-device", ",".join(properties)]
    return arguments


def _backend(definition: Definition, nic: Nic, launch: Launch) -> str:
    """`null` is an adapter whose cable is in no socket."""
    match nic.attachment:
        case "nat":
            forwards = "" if launch.incoming else "".join(f",hostfwd={_forward(each)}" for each in nic.forwards)
            return f"user{forwards}"
        case "bridged":
            return f"tap,ifname={tap_name(definition, nic.number)},script=no,downscript=no"
        case "intnet":
            address, port = internal_group(nic.network)
            return f"socket,mcast={address}:{port},localaddr=127.0.0.1"
        case _:
            return ""


def _forward(forward: Forward) -> str:
    ends = f"{forward.host_address}:{forward.host_port}-{forward.guest_address}:{forward.guest_port}"
    return f"{forward.protocol}:{ends}"


def forward_commands(definition: Definition) -> tuple[str, ...]:
    """Lines for the human monitor that open the forwarded ports at a target, once the source has let them go.

    A port can be bound once on a host, so a QEMU that waits for a guest (`Launch.incoming`) is started without them.
    """
    return tuple(
        f"hostfwd_add nic{nic.number}-backend {_forward(each)}"
        for nic in sorted(definition.nics, key=lambda each: each.number)
        if nic.attachment == "nat"
        for each in nic.forwards
    )


def release_commands(definition: Definition) -> tuple[str, ...]:
    """Lines for the human monitor of a source that close its forwarded ports."""
    return tuple(
        f"hostfwd_remove nic{nic.number}-backend {each.protocol}:{each.host_address}:{each.host_port}"
        for nic in sorted(definition.nics, key=lambda each: each.number)
        if nic.attachment == "nat"
        for each in nic.forwards
    )


def unplugged(definition: Definition) -> tuple[str, ...]:
    """The adapters (QEMU's ids) whose link must be set down by `set_link` before the guest runs."""
    return tuple(
        f"nic{nic.number}"
        for nic in sorted(definition.nics, key=lambda each: each.number)
        if nic.attachment == "null" or (nic.attachment != "none" and not nic.cable)
    )


def tap_name(definition: Definition, number: int) -> str:
    """The tap interface of a bridged adapter on this host: the VM's own, so that both ends of a teleport may be on one bridge."""
    digest = hashlib.sha256(f"{definition.uuid}/{number}".encode()).hexdigest()
    return f"tp{digest[:11]}n{number}"


@dataclass(frozen=True)
class Tap:
    """A tap interface that must be there, on its bridge, before QEMU starts, and is removed after it ended."""

    name: str
    bridge: str


def taps(definition: Definition) -> tuple[Tap, ...]:
    """The taps of the bridged adapters."""
    return tuple(
        Tap(name=tap_name(definition, nic.number), bridge=nic.bridge)
        for nic in sorted(definition.nics, key=lambda each: each.number)
        if nic.attachment == "bridged"
    )


def internal_group(network: str) -> tuple[str, int]:
    """The multicast group, on the loopback interface, of an internal network's name: who uses the name hears each other."""
    digest = hashlib.sha256(f"teleport internal network {network}".encode()).digest()
    return f"239.255.{digest[0]}.{digest[1]}", 49152 + int.from_bytes(digest[2:4], "big") % 16384
