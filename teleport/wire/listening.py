"""Which addresses and port a teleporter binds: found and tried with sockets of our own, since gRPC's refusal has no reason in it."""

import asyncio
import errno
import socket

from teleport.errors import BusyError, TeleportError, UsageError
from teleport.wire.options import is_loopback

LOOPBACK = ("127.0.0.1", "::1")
_TRIES = 20  # a free port must be free at every address


async def listening_addresses(address: str, *, insecure: bool) -> tuple[str, ...]:
    """The numeric addresses that `address` means; "" is both loopbacks, or with `insecure` all of this host's.

    Raises UsageError for one that does not exist, or is off loopback without `insecure`.
    """
    if not address:
        return ("::",) if insecure else LOOPBACK  # gRPC binds :: for IPv4 too, or 0.0.0.0 where there is no IPv6
    if address.lower() == "localhost":
        return LOOPBACK
    try:
        found = await asyncio.get_running_loop().getaddrinfo(address, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UsageError(
            f"teleporter address {address!r}", why, "modifyvm NAME --teleporteraddress with one of this host's"
        ) from error
    addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
    outside = [one for one in addresses if not is_loopback(one)]
    if outside and not insecure:
        raise UsageError(
            f"teleporter address {outside[0]}",
            "off loopback the guest's memory would travel as plain text",
            "startvm NAME --insecure, in a network that you trust",
        )
    return addresses


def choose_port(addresses: tuple[str, ...], port: int) -> tuple[tuple[str, ...], int]:
    """The addresses that this host has, and a port that is free at all of them (`port`, or for 0 any). Raises BusyError, UsageError."""
    if port:
        return _bindable(addresses, port), port
    for _ in range(_TRIES):
        free = _try(addresses[0], 0) or _try(addresses[-1], 0)
        try:
            return _bindable(addresses, free), free
        except BusyError:
            continue
    raise BusyError(
        "teleporter port", "no port was found that is free at every address", "name one with modifyvm --teleporterport"
    )


def _bindable(addresses: tuple[str, ...], port: int) -> tuple[str, ...]:
    found = [address for address in addresses if _try(address, port)]
    if not found:
        raise UsageError(
            f"teleporter address {', '.join(addresses)}",
            "this host has no such address",
            "modifyvm NAME --teleporteraddress with one of this host's",
        )
    return tuple(found)


def _try(address: str, port: int) -> int:
    """Binds for a moment; returns the port, or 0 when this host has no such address (or no IPv6). Raises BusyError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC: an ended connection is no obstacle
            if family == socket.AF_INET6 and address != "::":
                trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            trial.bind((address, port))
            trial.listen(1)
            return int(trial.getsockname()[1])
    except OSError as error:
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            return 0
        raise _refused(address, port, error) from error


def _refused(address: str, port: int, error: OSError) -> TeleportError:
    what = f"teleporter port {port}"
    if error.errno == errno.EADDRINUSE:
        return BusyError(
            what,
            f"something else listens at {address} there already",
            "modifyvm NAME --teleporterport with another port, or 0 for a free one",
        )
    if error.errno == errno.EACCES:
        return UsageError(what, "this user may not bind it", "modifyvm NAME --teleporterport with a port from 1024 on")
    return UsageError(what, f"cannot be bound at {address} ({error.strerror or error})", "modifyvm NAME --teleporteraddress")
