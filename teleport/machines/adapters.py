"""Network adapters, as a definition has them."""

from ipaddress import IPv4Address
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from teleport.machines.fields import Line, Mac, Part

MOST_NICS = 8
MAC_PREFIX = "08:00:27"  # VirtualBox's own block of addresses
_LONGEST_INTERFACE = 15  # Linux: IFNAMSIZ without its NUL

NicAttachment = Literal["none", "null", "nat", "bridged", "intnet"]
NicModel = Literal["Am79C970A", "82540EM", "82544GC", "82545EM", "82574L", "rtl8139", "vmxnet3", "virtio"]


def _address(value: str) -> str:
    try:
        return str(IPv4Address(value)) if value else ""
    except ValueError:
        raise ValueError(f"{value!r} is not an IPv4 address") from None


def _interface(value: str) -> str:
    if len(value.encode()) > _LONGEST_INTERFACE or "/" in value or " " in value or value in (".", ".."):
        raise ValueError("is not the name of a network interface (at most 15 characters, no blanks or slashes)")
    return value


Address = Annotated[str, AfterValidator(_address)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Forward(Part):
    """A port of this host that leads to the guest behind `nat`. Empty addresses: all of the host's, and the guest's first."""

    name: Line
    protocol: Literal["tcp", "udp"] = "tcp"
    host_address: Address = ""
    host_port: Port
    guest_address: Address = ""
    guest_port: Port


class Nic(Part):
    """A network adapter; a number that the definition doesn't list has none. `bridge` is an interface of this host."""

    number: Annotated[int, Field(ge=1, le=MOST_NICS)]
    attachment: NicAttachment = "none"
    model: NicModel = "82540EM"
    mac: Mac = ""
    cable: bool = True
    bridge: Annotated[Line, AfterValidator(_interface)] = ""
    network: Line = "intnet"
    forwards: Annotated[tuple[Forward, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.attachment == "bridged" and not self.bridge:
            raise ValueError(f"adapter {self.number} is bridged, but no bridge is named: --bridgeadapter{self.number}")
        if self.attachment == "intnet" and not self.network:
            raise ValueError(f"adapter {self.number} needs the internal network's name: --intnet{self.number}")
        names = [each.name for each in self.forwards]
        ports = [(each.protocol, each.host_address, each.host_port) for each in self.forwards]
        if len(set(names)) < len(names) or len(set(ports)) < len(ports):
            raise ValueError(f"adapter {self.number} has two forwardings of one name or one port")
        return self
