"""Network adapters."""

import secrets
from typing import Any

from teleport.machines import ostypes
from teleport.machines.definition import MAC_PREFIX, MOST_NICS, Definition, checked_mac
from teleport.machines.options.kinds import Kind, choice
from teleport.machines.options.option import Draft, Option, numbered

NETWORK = "Network"
_NOT_THERE = "Teleport doesn't have that kind of network yet"


def new_mac() -> str:
    """A fresh address in VirtualBox's block."""
    return ":".join([MAC_PREFIX, *(f"{byte:02x}" for byte in secrets.token_bytes(3))])


def _entry(draft: Draft, number: int) -> dict[str, Any]:
    model = ostypes.OS_TYPES[draft["ostype"]].nic_model if draft["ostype"] in ostypes.OS_TYPES else "82540EM"
    return numbered(draft, "nics", number, {"attachment": "none", "model": model, "mac": new_mac()})


def _set(name: str) -> Any:
    def put(draft: Draft, number: int, value: str) -> None:
        entry = _entry(draft, number)
        entry[name] = value
        entry["mac"] = entry["mac"] or new_mac()

    return put


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
        kind=choice(
            "none",
            "null",
            "nat",
            refused=dict.fromkeys(("bridged", "intnet", "hostonly", "generic", "natnetwork"), _NOT_THERE),
        ),
        label="NIC",
        about="none: no adapter; null: an adapter without a cable; nat: behind the host's own address",
        get=lambda definition, number: definition.nic(number).attachment,
        set=_set("attachment"),
        group=NETWORK,
        most=MOST_NICS,
    ),
    Option(
        name="nictype",
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
)
