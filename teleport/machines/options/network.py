"""Network adapters."""

import secrets
import shlex
from collections.abc import Callable, Sequence
from typing import Any

from teleport.machines import ostypes
from teleport.machines.adapters import MAC_PREFIX, MOST_NICS, Forward
from teleport.machines.definition import Definition
from teleport.machines.fields import checked_mac
from teleport.machines.options.kinds import SWITCH, Kind, choice, refuse, text
from teleport.machines.options.option import Draft, Option, numbered

NETWORK = "Network"
# Kinds of network of VirtualBox that Linux and QEMU have not, or have under another name.
NOT_HERE = {
    "hostonly": "Linux has it as a bridge that no card of this host is on: `ip link add vboxnet0 type bridge`, give it an address, "
    "and use bridged with --bridgeadapterN vboxnet0",
    "generic": "its drivers (UDP tunnel, VDE) are VirtualBox's own: use bridged, or intnet between VMs of one host",
    "natnetwork": "its server is VirtualBox's own: nat gives each adapter a network of its own, intnet connects VMs of one host",
}


def new_mac() -> str:
    """A fresh address in VirtualBox's block."""
    return ":".join([MAC_PREFIX, *(f"{byte:02x}" for byte in secrets.token_bytes(3))])


def _entry(draft: Draft, number: int) -> dict[str, Any]:
    model = ostypes.OS_TYPES[draft["ostype"]].nic_model if draft["ostype"] in ostypes.OS_TYPES else "82540EM"
    return numbered(draft, "nics", number, {"attachment": "none", "model": model, "mac": new_mac()})


def _set(name: str) -> Any:
    def put(draft: Draft, number: int, value: Any) -> None:
        entry = _entry(draft, number)
        entry[name] = value
        entry["mac"] = entry["mac"] or new_mac()

    return put


def _parse_forward(given: Sequence[str]) -> dict[str, Any] | str:
    if given[0].lower() == "delete":
        return given[1]
    parts = given[0].split(",")
    if len(parts) != 6:
        raise ValueError(f"{given[0]!r} is not [NAME],tcp|udp,[HOSTIP],HOSTPORT,[GUESTIP],GUESTPORT")
    name, protocol, host_address, host_port, guest_address, guest_port = parts
    if protocol.lower() not in ("tcp", "udp"):
        raise refuse(protocol, ("tcp", "udp"))
    for port in (host_port, guest_port):
        if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
            raise ValueError(f"{port!r} is not a port from 1 to 65535")
    return {
        "name": name or f"{protocol.lower()}_{host_port}_{guest_port}",
        "protocol": protocol.lower(),
        "host_address": host_address,
        "host_port": int(host_port),
        "guest_address": guest_address,
        "guest_port": int(guest_port),
    }


def _set_forward(draft: Draft, number: int, value: dict[str, Any] | str) -> None:
    entry = _entry(draft, number)
    forwards = list(entry.get("forwards", ()))
    if isinstance(value, str):
        left = [each for each in forwards if each["name"] != value]
        if len(left) == len(forwards):
            names = ", ".join(each["name"] for each in forwards) or "none"
            raise ValueError(f"there is no forwarding {value!r}; this adapter has {names}")
        entry["forwards"] = tuple(left)
        return
    if any(each["name"] == value["name"] for each in forwards):
        raise ValueError(f"there is a forwarding {value['name']!r} already: delete it first")
    entry["forwards"] = (*forwards, value)


def _show_forwards(value: tuple[Forward, ...]) -> str:
    return "; ".join(
        f"{each.name},{each.protocol},{each.host_address},{each.host_port},{each.guest_address},{each.guest_port}"
        for each in value
    )


def _is(attachment: str) -> Callable[[Definition, int], bool]:
    return lambda definition, number: definition.nic(number).attachment == attachment


def _mend(definition: Definition, number: int) -> str:
    nic = definition.nic(number)
    where = {
        "bridged": f" --bridgeadapter{number} {shlex.quote(nic.bridge)}",
        "intnet": f" --intnet{number} {shlex.quote(nic.network)}",
    }
    return f"--nic{number} {nic.attachment}{where.get(nic.attachment, '')}"


def _forward_words(following: Sequence[str]) -> int:
    return 2 if following and following[0].lower() == "delete" else 1


def _is_there(definition: Definition, number: int) -> bool:
    return definition.nic(number).attachment != "none"


def _parse_mac(given: Any) -> str:
    return new_mac() if given[0].lower() == "auto" else checked_mac(given[0])


_MAC = Kind(
    metavar="MAC|auto",
    parse=_parse_mac,
    show=lambda value: value.replace(":", "").upper(),
    choices=("auto",),
)

OPTIONS = (
    Option(
        name="nic",
        where="nics.attachment",
        kind=choice(
            "none",
            "null",
            "nat",
            "bridged",
            "intnet",
            refused=NOT_HERE,
        ),
        label="NIC",
        about="none: no adapter; null: one without a cable; nat: behind the host's address; bridged: on a bridge of the host; "
        "intnet: with other VMs of this host",
        get=lambda definition, number: definition.nic(number).attachment,
        set=_set("attachment"),
        group=NETWORK,
        most=MOST_NICS,
        mend=_mend,
    ),
    Option(
        name="nictype",
        where="nics.model",
        kind=choice(
            *("Am79C970A", "82540EM", "82544GC", "82545EM", "82574L", "rtl8139", "vmxnet3", "virtio"),
            also={
                "Am79C973": "Am79C970A",
                "virtio-net": "virtio",
                "pcnet": "Am79C970A",
                "e1000": "82540EM",
                "e1000e": "82574L",
            },
            refused={"82543GC": "QEMU has no such adapter, 82544GC is its nearest", "Am79C960": "QEMU has no such adapter"},
        ),
        label="NIC type",
        about="the adapter's model; Am79C973 gets QEMU's PCnet, which is an Am79C970A",
        get=lambda definition, number: definition.nic(number).model,
        set=_set("model"),
        group=NETWORK,
        most=MOST_NICS,
        relevant=_is_there,
    ),
    Option(
        name="macaddress",
        where="nics.mac",
        kind=_MAC,
        label="MAC",
        about="the adapter's address; a guest that arrives keeps its own",
        get=lambda definition, number: definition.nic(number).mac,
        set=_set("mac"),
        group=NETWORK,
        most=MOST_NICS,
        hardware=False,
        relevant=_is_there,
    ),
    Option(
        name="cableconnected",
        where="nics.cable",
        kind=SWITCH,
        label="Cable connected",
        about="whether the adapter has a link",
        get=lambda definition, number: definition.nic(number).cable,
        set=_set("cable"),
        group=NETWORK,
        most=MOST_NICS,
        relevant=_is_there,
    ),
    Option(
        name="natpf",
        where="nics.forwards",
        kind=Kind(
            metavar="[NAME],tcp|udp,[HOSTIP],HOSTPORT,[GUESTIP],GUESTPORT|delete NAME",
            parse=_parse_forward,
            show=_show_forwards,
            choices=("delete",),
            words=_forward_words,
        ),
        label="NAT forwarding",
        about="lets a port of this host lead to the guest",
        get=lambda definition, number: definition.nic(number).forwards,
        set=_set_forward,
        group=NETWORK,
        most=MOST_NICS,
        hardware=False,
        shown=False,
        repeats=True,
        relevant=_is("nat"),
    ),
    Option(
        name="bridgeadapter",
        where="nics.bridge",
        kind=text("BRIDGE"),
        label="Bridge",
        about="the bridge of this host that the adapter is on",
        get=lambda definition, number: definition.nic(number).bridge,
        set=_set("bridge"),
        group=NETWORK,
        most=MOST_NICS,
        hardware=False,
        relevant=_is("bridged"),
    ),
    Option(
        name="intnet",
        where="nics.network",
        kind=text("NETWORK"),
        label="Internal network",
        about="the name of the network; VMs of this host with the same one hear each other, also after a teleport on this host",
        get=lambda definition, number: definition.nic(number).network,
        set=_set("network"),
        group=NETWORK,
        most=MOST_NICS,
        hardware=False,
        relevant=_is("intnet"),
    ),
)
