"""The properties of the remote display (`--vrdeproperty`; manual, 7.1): which each extension of ours knows, and how each is checked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address
from types import MappingProxyType

from teleport.errors import UsageError

DEFAULT_PORT = 3389
MOST_PORTS = 4096


class SecurityMethod(Enum):
    """`Security/Method`: which protection a viewer may use."""

    NEGOTIATE = "negotiate"
    RDP = "rdp"
    TLS = "tls"


@dataclass(frozen=True)
class Property:
    """One property that an extension knows. `check` returns the value in its canonical form or raises UsageError(what, why)."""

    name: str
    meaning: str
    check: Callable[[str, str], str]


def parse_ports(text: str, what: str = "--vrdeport") -> tuple[int, ...]:
    """``5000,5010-5012`` → (5000, 5010, 5011, 5012), in the order given; `default` and 0 mean 3389. Raises UsageError."""
    ports: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if first.strip().lower() == "default":
            first = "0"
        if not (first.strip().isascii() and first.strip().isdigit() and (not dash or last.strip().isdigit())):
            raise UsageError(what, f"{text!r} is not a list of ports", "write it like 3389 or 5000,5010-5012")
        low, high = int(first), int(last or first)
        if not dash and low == 0:
            low = high = DEFAULT_PORT
        if not 1 <= low <= high <= 65535:
            raise UsageError(
                what, f"{part.strip()!r} is not within 1-65535, smaller number first", "write it like 5000,5010-5012"
            )
        if len(ports) + high - low >= MOST_PORTS:
            raise UsageError(what, f"more than {MOST_PORTS} ports", "name a smaller range")
        ports.extend(port for port in range(low, high + 1) if port not in ports)
    return tuple(ports)


def check_address(what: str, value: str) -> str:
    """An address to listen on; "" for all of them. Raises UsageError."""
    bare = value.strip().removeprefix("[").removesuffix("]")
    if bare.lower() in ("", "*", "default"):
        return ""
    if bare.lower() == "localhost":
        return "localhost"
    try:
        ip_address(bare.partition("%")[0])
    except ValueError:
        raise UsageError(what, f"{value!r} is not an IP address", "give an IPv4 or IPv6 address of this host") from None
    return bare


def check_ports(what: str, value: str) -> str:
    """A list of ports as text. Raises UsageError."""
    parse_ports(value, what)
    return value.strip()


def _on_or_empty(what: str, value: str) -> str:
    if value not in ("", "0", "1"):
        raise UsageError(what, f"{value!r} is neither 1 nor empty", "1 switches the feature off, an empty value on again")
    return "1" if value == "1" else ""


def _method(what: str, value: str) -> str:
    if value.lower() not in ("", *(m.value for m in SecurityMethod)):
        raise UsageError(what, f"{value!r} is not a security method", "use negotiate, rdp or tls")
    return value.lower()


def check_path(what: str, value: str) -> str:
    """A path. Raises UsageError."""
    if "\0" in value or "\n" in value:
        raise UsageError(what, "a path has no line breaks")
    return value


def _vnc_password(what: str, value: str) -> str:
    if len(value.encode()) > 8:
        raise UsageError(what, "VNC's own passwords have at most 8 bytes", "shorten it, or use the rdp extension")
    return value


def _properties(*properties: Property) -> Mapping[str, Property]:
    return MappingProxyType({p.name: p for p in properties})


_COMMON = (
    Property("TCP/Ports", "ports and ranges to choose from, as --vrdeport", check_ports),
    Property("TCP/Address", "address to listen on, as --vrdeaddress", check_address),
    Property("Client/DisableDisplay", "1: viewers see nothing", _on_or_empty),
    Property("Client/DisableInput", "1: keyboard and mouse of viewers are ignored", _on_or_empty),
    Property("Client/DisableClipboard", "1: no shared clipboard", _on_or_empty),
)
_TLS = (
    Property("Security/CACertificate", "PEM file with the certificate authority's certificate", check_path),
    Property("Security/ServerCertificate", "PEM file with the server's certificate", check_path),
    Property("Security/ServerPrivateKey", "PEM file with the server's private key", check_path),
)
RDP_PROPERTIES = _properties(
    *_COMMON,
    *_TLS,
    Property("Client/DisableUSB", "1: no remote USB", _on_or_empty),
    Property("Client/DisableAudio", "1: no sound", _on_or_empty),
    Property("Client/DisableUpstreamAudio", "1: no microphone", _on_or_empty),
    Property("Security/Method", "negotiate, rdp or tls", _method),
)
VNC_PROPERTIES = _properties(*_COMMON, Property("VNCPassword", "VNC's own password, at most 8 bytes", _vnc_password))
# Those that name a file, in lower case.
FILE_PROPERTIES = frozenset(each.name.lower() for each in _TLS)
# What the extensions that come with us know; another one brings its own list (teleport.vrde.extension).
BUILT_IN_PROPERTIES: Mapping[str, Mapping[str, Property]] = MappingProxyType(
    {"rdp": RDP_PROPERTIES, "vnc": VNC_PROPERTIES, "none": {}}
)


def known_property(name: str, known: Mapping[str, Property]) -> Property | None:
    """That property among those that are known, in any case."""
    return {each.lower(): known[each] for each in known}.get(name.lower())
