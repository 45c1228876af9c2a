"""The ports of this host that a guest needs when it arrives: tried before it leaves where it is."""

import shlex
import socket
from collections.abc import Iterator

from teleport.machines.definition import Definition
from teleport.preflight.resources import PortWish


def port_wishes(definition: Definition, *, source_is_here: bool) -> tuple[PortWish, ...]:
    """Each port that the definition's guest binds on this host, tried.

    Forwarded ports are left out when the source is on this host: it may be the source that has them, and lets them go in time
    (`teleport.runner.forwards`).
    """
    name = shlex.quote(definition.name)
    return (*_serial(definition, name), *(() if source_is_here else _forwarded(definition, name)))


def _serial(definition: Definition, name: str) -> Iterator[PortWish]:
    for port in definition.serial:
        if port.enabled and port.mode == "tcpserver":
            yield PortWish(
                what=f"uartmode{port.number}",
                address=f"127.0.0.1:{port.path}",
                error=_tried(socket.SOCK_STREAM, "127.0.0.1", int(port.path)),
                mend=f"teleport modifyvm {name} --uartmode{port.number} disconnected",
            )


def _forwarded(definition: Definition, name: str) -> Iterator[PortWish]:
    for nic in definition.nics:
        for each in nic.forwards if nic.attachment == "nat" else ():
            kind = socket.SOCK_STREAM if each.protocol == "tcp" else socket.SOCK_DGRAM
            yield PortWish(
                what=f"natpf{nic.number} {each.name}".rstrip(),
                address=f"{each.host_address or '*'}:{each.host_port}",
                error=_tried(kind, each.host_address, each.host_port),
                mend=f"teleport modifyvm {name} --natpf{nic.number} delete {shlex.quote(each.name)}",
            )


def _tried(kind: socket.SocketKind, address: str, port: int) -> str:
    """Why this port cannot be had; "" when it can."""
    with socket.socket(socket.AF_INET, kind) as probe:
        if kind is socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return error.strerror or str(error)
    return ""
