"""The port that viewers connect to: the first free one of a list, on IPv4 and IPv6 alike."""

import contextlib
import socket

from teleport.errors import BusyError, UsageError
from teleport.machines.vrde_properties import parse_ports
from teleport.vrde.extension import Bound

BACKLOG = 64


def _addresses(address: str) -> list[tuple[socket.AddressFamily, str]]:
    if address == "":
        return [(socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")]
    if address == "localhost":
        return [(socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.1")]
    return [(socket.AF_INET6 if ":" in address else socket.AF_INET, address)]


def _bind(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            scope = address.partition("%")[2]
            opened.bind((address.partition("%")[0], port, 0, socket.if_nametoindex(scope) if scope else 0))
        else:
            opened.bind((address, port))
        opened.listen(BACKLOG)
    except BaseException:
        opened.close()
        raise
    return opened


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


def listen(ports: str, address: str, what: str = "the remote display") -> tuple[Bound, tuple[socket.socket, ...]]:
    """Binds the first port of `ports` that is free on all addresses meant by `address` ("" all, "localhost" both loopbacks).

    Raises BusyError when none is free, UsageError when the address is none of this host's.
    """
    wanted = _addresses(address)
    if len(wanted) > 1 and not _has_ipv6():
        wanted = wanted[1:]
    choices = parse_ports(ports)
    for port in choices:
        opened: list[socket.socket] = []
        try:
            for family, each in wanted:
                opened.append(_bind(family, each, port))
        except OSError as error:
            for each_socket in opened:
                each_socket.close()
            if error.errno in (98, 13):  # EADDRINUSE, EACCES (below 1024): the next one
                continue
            raise UsageError(
                "--vrdeaddress", f"{address!r} cannot be bound: {error.strerror}", "use an address of this host"
            ) from error
        return Bound(port, tuple(each for _, each in wanted)), tuple(opened)
    raise BusyError(what, f"none of the ports {ports} is free", "choose others with modifyvm --vrdeport, such as 5000-5050")
