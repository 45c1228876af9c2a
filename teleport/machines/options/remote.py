"""The teleporter and the remote display."""

from collections.abc import Sequence
from enum import Enum
from typing import Any

from teleport.machines import vrde
from teleport.machines.auth_libraries import existing_file, named
from teleport.machines.definition import Definition
from teleport.machines.options.kinds import FILE, SWITCH, Kind, number, text
from teleport.machines.options.option import Draft, Option, field
from teleport.machines.vrde_properties import FILE_PROPERTIES

TELEPORTER, DISPLAY = "Teleporter", "Remote display"


def _descriptive(**row: Any) -> Option:
    return Option(hardware=False, **row)


def _teleporter(name: str, kind: Kind, attribute: str, label: str, about: str, **more: Any) -> Option:
    get, put = field("teleporter", attribute)
    return _descriptive(
        name=name,
        where=f"teleporter.{attribute}",
        kind=kind,
        label=label,
        about=about,
        get=get,
        set=put,
        group=TELEPORTER,
        **more,
    )


def _password(attribute: str, other: str) -> Any:
    """A new password replaces a password file, and the reverse."""

    def put(draft: Draft, _: int, value: str) -> None:
        draft["teleporter"][attribute] = value
        if value:
            draft["teleporter"][other] = ""

    return put


_TELEPORTER = (
    _teleporter(
        "teleporter",
        SWITCH,
        "enabled",
        "Teleporter Enabled",
        "on: startvm waits for a teleport instead of booting",
        key="teleporterenabled",
    ),
    _teleporter(
        "teleporterport", number(0, 65535, "PORT"), "port", "Teleporter Port", "the TCP port to wait on; 0 picks a free one"
    ),
    _teleporter(
        "teleporteraddress",
        text("ADDRESS"),
        "address",
        "Teleporter Address",
        "the address to wait on (default: this host only)",
    ),
    Option(
        name="teleporterpassword",
        where="teleporter.password",
        kind=text("PASSWORD"),
        label="Teleporter Password",
        about="kept for a later version: no source is asked for it yet",
        get=lambda definition, _: "set" if definition.teleporter.password else "",
        set=_password("password", "password_file"),
        group=TELEPORTER,
        hardware=False,
        shown=False,
    ),
    Option(
        name="teleporterpasswordfile",
        where="teleporter.password_file",
        kind=FILE,
        label="Teleporter Password File",
        about="a file with that password in its first line",
        get=lambda definition, _: definition.teleporter.password_file,
        set=_password("password_file", "password"),
        group=TELEPORTER,
        hardware=False,
        relevant=lambda definition, _: bool(definition.teleporter.password_file),
    ),
)


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value.value) if isinstance(value, Enum) else str(value)


def _show_properties(value: Any) -> str:
    return ", ".join(f"{name}={text}" for name, text in value.items())


def _first(given: Sequence[str]) -> str:
    return given[0]


def _found(name: str, value: str) -> str:
    """Files are named from the current folder, and must be there: the display's process is elsewhere, and later."""
    if name == "vrdeauthlibrary" and value.lower() not in ("", "default"):
        return named(f"--{name}", value)
    key, equals, path = value.partition("=")
    if name == "vrdeproperty" and path and key.lower() in FILE_PROPERTIES:
        return f"{key}{equals}{existing_file(f'--{name} {key}', path)}"
    return value


def _display(
    name: str, attribute: str, label: str, about: str, metavar: str, *, choices: tuple[str, ...] = (), **more: Any
) -> Option:
    """The display checks its own values (`teleport.machines.vrde`); the words go there as they are."""
    show = _show_properties if attribute == "properties" else _show

    def get(definition: Definition, _: int) -> Any:
        return getattr(definition.vrde, attribute)

    def put(draft: Draft, _: int, value: str) -> None:
        draft["vrde"] = vrde.set_option(draft["vrde"], name, _found(name, value))

    kind = Kind(metavar=metavar, parse=_first, show=show, choices=choices)
    return _descriptive(
        name=name,
        where=f"vrde.{attribute}",
        kind=kind,
        label=label,
        about=about,
        get=get,
        set=put,
        group=DISPLAY,
        live=True,
        **more,
    )


_ON_OFF = ("on", "off")
_DISPLAY = (
    _display("vrde", "enabled", "VRDE", "the remote display server", "on|off", choices=_ON_OFF),
    _display("vrdeport", "ports", "VRDE ports", "ports to choose from, e.g. 5000,5010-5012", "PORTS", key="vrdeports"),
    _display("vrdeaddress", "address", "VRDE address", "the address to listen on (default: all)", "ADDRESS"),
    _display(
        "vrdeauthtype",
        "auth_type",
        "VRDE authentication",
        "who decides over a login",
        "null|external|guest",
        choices=("null", "external", "guest"),
    ),
    _display("vrdeauthlibrary", "auth_library", "VRDE auth library", "what checks external logins", "default|NAME|FILE"),
    _display("vrdemulticon", "multi_connection", "VRDE multi-con", "several viewers at once", "on|off", choices=_ON_OFF),
    _display(
        "vrdereusecon", "reuse_connection", "VRDE reuse-con", "a new viewer replaces the old one", "on|off", choices=_ON_OFF
    ),
    _display(
        "vrdevideochannel",
        "video_channel",
        "VRDE video channel",
        "what moves in fewer and coarser pictures",
        "on|off",
        choices=_ON_OFF,
    ),
    _display(
        "vrdevideochannelquality",
        "video_quality",
        "VRDE video quality",
        "100: up to 30 a second, exact; 10: 6, in few colours",
        "10-100",
    ),
    _display(
        "clipboard",
        "clipboard",
        "Clipboard Mode",
        "text that is copied at a viewer (host) and in the guest; needs --guest-agent on and spice-vdagent in the guest",
        "MODE",
        choices=tuple(each.value for each in vrde.ClipboardMode),
        also=("clipboardmode", "clipboard-mode"),
    ),
    _display("vrdeextpack", "extension", "VRDE extension", "the extension that serves the display", "default|NAME"),
    _display(
        "vrdeproperty",
        "properties",
        "VRDE properties",
        "a property of that extension; without a value it is removed",
        "NAME=[VALUE]",
        repeats=True,
        shown=False,
    ),
)
OPTIONS = (*_TELEPORTER, *_DISPLAY)
