"""Network adapters: the device `nicN`, and the backend `nicN-backend` that it is connected with.

QEMU lets no device change its backend, but ports of a hub come and go (tried): so the device sits on port `nicN-port` of hub N for
good, and what it is connected with is plugged in at another port, `nicN-plug`. A hub knows no offloads; a virtio adapter on a
bridge has its tap directly instead, since it agrees with the guest on checksums and segmentation by the host, which is most of its
speed. That one stays as it was started.
"""

import hashlib
from collections.abc import Mapping
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
        backends = netdevs(nic, tap_fd=launch.tap_fds.get(nic.number, ""))
        direct = nic.model == "virtio" and nic.attachment == "bridged"
        if not direct:
            arguments += ["-netdev", f"hubport,id={port_id(nic.number)},hubid={nic.number}"]
        for each in backends[:1] if direct else backends:
            words = [str(each["type"]), *(f"{name}={value}" for name, value in each.items() if name != "type")]
            if nic.attachment == "nat" and each["type"] == "user" and not launch.incoming:
                words += [f"hostfwd={_forward(forward)}" for forward in nic.forwards]
            arguments += ["-netdev", ",".join(words)]
        properties.append(f"netdev={backend_id(nic.number) if direct else port_id(nic.number)}")
        arguments += ["-device", ",".join(properties)]
    return arguments


def port_id(number: int) -> str:
    """The adapter's own port of its hub."""
    return f"nic{number}-port"


def plug_id(number: int) -> str:
    """The port at which the backend is plugged in."""
    return f"nic{number}-plug"


def backend_id(number: int) -> str:
    """What the adapter is connected with."""
    return f"nic{number}-backend"


def netdevs(nic: Nic, *, tap_fd: int | str) -> tuple[Mapping[str, str | int], ...]:
    """The backend, without forwarded ports, and the plug that puts it on the adapter's hub, each as `netdev_add` takes it.

    `tap_fd` is what QEMU calls the descriptor of a bridged adapter's tap, which others don't have. `null` is an adapter whose cable
    is in no socket: nothing.
    """
    match nic.attachment:
        case "nat":
            backend: dict[str, str | int] = {"type": "user"}
        case "bridged":
            if tap_fd == "":
                raise ValueError("a bridged adapter needs its tap")
            backend = {"type": "tap", "fd": tap_fd}
        case "intnet":
            address, port = internal_group(nic.network)
            backend = {"type": "socket", "mcast": f"{address}:{port}", "localaddr": "127.0.0.1"}
        case _:
            return ()
    plug: dict[str, str | int] = {
        "type": "hubport",
        "id": plug_id(nic.number),
        "hubid": nic.number,
        "netdev": backend_id(nic.number),
    }
    return {**backend, "id": backend_id(nic.number)}, plug


def _forward(forward: Forward) -> str:
    ends = f"{forward.host_address}:{forward.host_port}-{forward.guest_address}:{forward.guest_port}"
    return f"{forward.protocol}:{ends}"


def forward_commands(definition: Definition) -> tuple[str, ...]:
    """Lines for the human monitor that open the forwarded ports at a target, once the source has let them go.

    A port can be bound once on a host, so a QEMU that waits for a guest (`Launch.incoming`) is started without them.
    """
    return tuple(
        forward_command(nic.number, each)
        for nic in sorted(definition.nics, key=lambda each: each.number)
        if nic.attachment == "nat"
        for each in nic.forwards
    )


def forward_command(number: int, forward: Forward) -> str:
    """The line for the human monitor that opens one port; it answers with nothing when that was done."""
    return f"hostfwd_add {backend_id(number)} {_forward(forward)}"


def release_command(number: int, forward: Forward) -> str:
    """... that closes it; it answers with a line in any case."""
    return f"hostfwd_remove {backend_id(number)} {forward.protocol}:{forward.host_address}:{forward.host_port}"


def unplugged(definition: Definition) -> tuple[str, ...]:
    """The adapters (QEMU's ids) whose link must be set down by `set_link` before the guest runs."""
    return tuple(
        f"nic{nic.number}"
        for nic in sorted(definition.nics, key=lambda each: each.number)
        if nic.attachment != "none" and not has_link(nic)
    )


def has_link(nic: Nic) -> bool:
    """Whether the guest sees a carrier."""
    return nic.cable and nic.attachment not in ("none", "null")


@dataclass(frozen=True)
class Tap:
    """The tap interface of bridged adapter `number`: the VM's own, so that both ends of a teleport may be on one bridge."""

    number: int
    name: str
    bridge: str


def taps(definition: Definition) -> tuple[Tap, ...]:
    """The taps of the bridged adapters, which QEMU gets open (`Launch.tap_fds`)."""
    return tuple(
        Tap(number=nic.number, name=_tap_name(definition, nic.number), bridge=nic.bridge)
        for nic in sorted(definition.nics, key=lambda each: each.number)
        if nic.attachment == "bridged"
    )


def _tap_name(definition: Definition, number: int) -> str:
    digest = hashlib.sha256(f"{definition.uuid}/{number}".encode()).hexdigest()
    return f"tp{digest[:11]}n{number}"


def internal_group(network: str) -> tuple[str, int]:
    """The multicast group, on the loopback interface, of an internal network's name: who uses the name hears each other."""
    digest = hashlib.sha256(f"teleport internal network {network}".encode()).digest()
    return f"239.255.{digest[0]}.{digest[1]}", 49152 + int.from_bytes(digest[2:4], "big") % 16384
