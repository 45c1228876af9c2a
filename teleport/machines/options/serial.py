"""Serial ports."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from teleport.machines.definition import MOST_SERIAL_PORTS, Definition
from teleport.machines.options.kinds import Kind, refuse
from teleport.machines.options.option import Draft, Option, numbered

SERIAL = "Serial ports"
_PATHS = ("file", "server", "client")
_LONGEST_SOCKET = 107  # Linux' sun_path without its NUL
_MODES = ("disconnected", *_PATHS, "tcpserver", "tcpclient")


def _number(word: str, low: int, high: int, what: str) -> int:
    try:
        value = int(word, 0)
    except ValueError:
        value = -1
    if not low <= value <= high:
        raise ValueError(
            f"{word!r} is not {what} from {low:#x} to {high:#x}" if low else f"{word!r} is not {what} from 0 to {high}"
        )
    return value


def _parse_port(given: Sequence[str]) -> tuple[int, int] | None:
    if given[0].lower() == "off":
        return None
    if len(given) < 2:
        raise ValueError("give an I/O base and an IRQ, e.g. 0x3F8 4, or off")
    return _number(given[0], 0x100, 0xFFF8, "an I/O base"), _number(given[1], 0, 15, "an IRQ")


def _port_words(following: Sequence[str]) -> int:
    return 1 if following and following[0].lower() == "off" else 2


def _mode_words(following: Sequence[str]) -> int:
    if not following or following[0].lower() == "disconnected" or following[0].startswith("/"):
        return 1
    # an unknown mode takes its word along, so that it is the mode that is refused
    return 2 if following[0].lower() in _MODES or (len(following) > 1 and not following[1].startswith("-")) else 1


def _parse_mode(given: Sequence[str]) -> tuple[str, str]:
    mode = given[0].lower()
    if given[0].startswith("/"):
        return "device", given[0]
    if mode not in _MODES:
        raise refuse(given[0], (*_MODES, "a device such as /dev/ttyS0"))
    if mode == "disconnected":
        return mode, ""
    if len(given) < 2 or not given[1]:
        raise ValueError(f"{mode} needs a {'path' if mode in _PATHS else 'port' if mode == 'tcpserver' else 'HOST:PORT'}")
    if mode in _PATHS:
        path = str(Path(given[1]).absolute())
        if mode != "file" and len(path.encode()) > _LONGEST_SOCKET:
            raise ValueError(f"{path!r} is too long for a socket: at most {_LONGEST_SOCKET} bytes")
        return mode, path
    host, _, port = given[1].rpartition(":")
    if (mode == "tcpclient") != bool(host) or not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        form = "port" if mode == "tcpserver" else "HOST:PORT with a port"
        raise ValueError(f"{given[1]!r} is not a {form} from 1 to 65535")
    return mode, given[1]


def _show_port(value: tuple[int, int] | None) -> str:
    return "off" if value is None else f"{value[0]:#06x} {value[1]}"


def _show_mode(value: tuple[str, str]) -> str:
    mode, path = value
    return path if mode == "device" else f"{mode} {path}".rstrip()


def _get_port(definition: Definition, number: int) -> tuple[int, int] | None:
    port = definition.serial_port(number)
    return (port.io_base, port.irq) if port.enabled else None


def _set_port(draft: Draft, number: int, value: tuple[int, int] | None) -> None:
    entry = numbered(draft, "serial", number, {})
    entry["enabled"] = value is not None
    if value is not None:
        entry["io_base"], entry["irq"] = value


def _set_mode(draft: Draft, number: int, value: tuple[str, str]) -> None:
    entry: dict[str, Any] = numbered(draft, "serial", number, {})
    entry["mode"], entry["path"] = value


OPTIONS = (
    Option(
        name="uart",
        where="serial.io_base, serial.irq",
        kind=Kind(metavar="off|IOBASE IRQ", parse=_parse_port, show=_show_port, choices=("off",), words=_port_words),
        label="UART",
        about="a serial port at that I/O base and interrupt, e.g. 0x3F8 4",
        get=_get_port,
        set=_set_port,
        group=SERIAL,
        most=MOST_SERIAL_PORTS,
    ),
    Option(
        name="uartmode",
        where="serial.mode, serial.path",
        kind=Kind(
            metavar="disconnected|file FILE|server SOCKET|client SOCKET|tcpserver PORT|tcpclient HOST:PORT|DEVICE",
            parse=_parse_mode,
            show=_show_mode,
            choices=_MODES,
            words=_mode_words,
        ),
        label="UART mode",
        about="where the port leads on this host",
        get=lambda definition, number: (definition.serial_port(number).mode, definition.serial_port(number).path),
        set=_set_mode,
        group=SERIAL,
        most=MOST_SERIAL_PORTS,
        hardware=False,
        relevant=lambda definition, number: definition.serial_port(number).enabled,
    ),
)
