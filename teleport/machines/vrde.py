"""A VM's remote display settings: the value, and the one place where each option and property is checked when it is *set*.

VirtualBox checks these late or never; here a bad value and an unknown name are refused by name (manual, chapter 7.1).
Nothing here imports the display itself: definitions embed the value, `teleport.vrde` reads it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from types import MappingProxyType
from typing import Any

from teleport.errors import UsageError
from teleport.machines import display_extensions
from teleport.machines.numbers import whole_number
from teleport.machines.vrde_properties import (
    BUILT_IN_PROPERTIES,
    DEFAULT_PORT,
    RDP_PROPERTIES,
    Property,
    SecurityMethod,
    check_address,
    check_path,
    check_ports,
    known_property,
    parse_ports,
)

DEFAULT_EXTENSION = "rdp"
DEFAULT_AUTH_LIBRARY = "VBoxAuth"
MOST_MONITORS = 8
EXTRADATA_USER = "VBoxAuthSimple/users/"
EXTRADATA_FEATURE = "VRDP/Feature/"


class AuthType(Enum):
    """`--vrdeauthtype`: who decides over a login."""

    NULL = "null"
    EXTERNAL = "external"
    GUEST = "guest"


class ClipboardMode(Enum):
    """`--clipboard`: which way text may go between viewers (VirtualBox's host) and the guest."""

    DISABLED = "disabled"
    HOST_TO_GUEST = "hosttoguest"
    GUEST_TO_HOST = "guesttohost"
    BIDIRECTIONAL = "bidirectional"


@dataclass(frozen=True)
class VrdeSettings:
    """The remote display of one VM.

    `ports` is VirtualBox's list of ports and ranges as text, `address` "" for all addresses (IPv4 and IPv6), `auth_library` ""
    for the default of `setproperty vrdeauthlibrary`, `video_quality` 10–100 in percent, `properties` by canonical name,
    `users` SHA-256 hex digests by user name (VBoxAuthSimple), `monitors` the number of the guest's screens.
    """

    enabled: bool = False
    ports: str = str(DEFAULT_PORT)
    address: str = ""
    auth_type: AuthType = AuthType.NULL
    auth_library: str = ""
    multi_connection: bool = False
    reuse_connection: bool = False
    video_channel: bool = False
    video_quality: int = 75
    extension: str = DEFAULT_EXTENSION
    properties: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[str, str] = field(default_factory=dict)
    monitors: int = 1
    clipboard: ClipboardMode = ClipboardMode.DISABLED

    def is_disabled(self, feature: str) -> bool:
        """Whether `Client/Disable<feature>` is set."""
        return self.properties.get(f"Client/Disable{feature}", "") == "1"

    @property
    def security(self) -> SecurityMethod:
        """`Security/Method`, VirtualBox's default being Negotiate."""
        return SecurityMethod(self.properties.get("Security/Method") or "negotiate")


def _switch(what: str, value: str) -> bool:
    chosen = {"on": True, "off": False}.get(value.lower())
    if chosen is None:
        raise UsageError(what, f"{value!r} is neither on nor off")
    return chosen


def _number(what: str, value: str, low: int, high: int) -> int:
    try:
        return whole_number(value, low, high)
    except ValueError as error:
        raise UsageError(what, str(error)) from error


# What the 3.2 spelling of 7.1.10 reaches, by its name in lower case.
_FEATURES: Mapping[str, str] = MappingProxyType(
    {name.lower(): name for name in RDP_PROPERTIES if name.startswith("Client/Disable")}
)


def _known(settings: VrdeSettings) -> Mapping[str, Property]:
    known = BUILT_IN_PROPERTIES.get(settings.extension)
    return display_extensions.properties_of(settings.extension) if known is None else known


def set_property(settings: VrdeSettings, name: str, value: str, known: Mapping[str, Property] | None = None) -> VrdeSettings:
    """`--vrdeproperty NAME=VALUE`. `known` are the extension's properties (default: what it says itself); an empty value
    removes the property. Raises UsageError for names it doesn't know and values it doesn't take."""
    known = _known(settings) if known is None else known
    spec = known_property(name, known)
    if spec is None:
        raise UsageError(
            f"--vrdeproperty {name}",
            f"the extension {settings.extension!r} has no such property",
            f"it knows {', '.join(sorted(known))}" if known else f"is an extension named {settings.extension!r} installed?",
        )
    checked = spec.check(f"--vrdeproperty {spec.name}", value)
    if spec.name == "TCP/Ports":
        return replace(settings, ports=checked or str(DEFAULT_PORT))
    if spec.name == "TCP/Address":
        return replace(settings, address=checked)
    properties = {key: old for key, old in settings.properties.items() if key != spec.name}
    if checked:
        properties[spec.name] = checked
    return replace(settings, properties=properties)


def _auth_type(what: str, value: str) -> AuthType:
    if value.lower() not in {t.value for t in AuthType}:
        raise UsageError(what, f"{value!r} is not a way to authenticate", "use null, external or guest")
    return AuthType(value.lower())


def _clipboard(what: str, value: str) -> ClipboardMode:
    modes = [each.value for each in ClipboardMode]
    if value.lower() not in modes:
        raise UsageError(what, f"{value!r} is no mode of the clipboard", f"use {', '.join(modes)}")
    return ClipboardMode(value.lower())


def _library(what: str, value: str) -> str:
    return "" if value.lower() == "default" else check_path(what, value)


# The options that set one field: option → (field, check, which yields that field's type).
_FIELDS: Mapping[str, tuple[str, Callable[[str, str], Any]]] = MappingProxyType(
    {
        "vrde": ("enabled", _switch),
        "vrdeport": ("ports", check_ports),
        "vrdeaddress": ("address", check_address),
        "vrdeauthtype": ("auth_type", _auth_type),
        "vrdeauthlibrary": ("auth_library", _library),
        "vrdemulticon": ("multi_connection", _switch),
        "vrdereusecon": ("reuse_connection", _switch),
        "vrdevideochannel": ("video_channel", _switch),
        "vrdevideochannelquality": ("video_quality", lambda what, value: _number(what, value, 10, 100)),
        "clipboard": ("clipboard", _clipboard),
        "monitorcount": ("monitors", lambda what, value: _number(what, value, 1, MOST_MONITORS)),
    }
)
OPTIONS = frozenset({*_FIELDS, "vrdeextpack", "vrdeproperty"})


def set_option(settings: VrdeSettings, option: str, value: str, known: Mapping[str, Property] | None = None) -> VrdeSettings:
    """One of `modifyvm`'s options by name without its dashes (`vrdeport`, `vrdemulticon`, …; the older `vrdp…` too).

    Raises UsageError.
    """
    name = option.lstrip("-").lower()
    name = "vrde" + name[4:] if name.startswith("vrdp") else name
    what = f"--{name}"
    if name in _FIELDS:
        field_name, check = _FIELDS[name]
        return replace(settings, **{field_name: check(what, value)})
    if name == "vrdeextpack":
        return _set_extension(settings, what, value)
    if name == "vrdeproperty":
        key, equals, text = value.partition("=")
        if not equals:
            raise UsageError(what, f"{value!r} is not NAME=VALUE")
        return set_property(settings, key, text, known)
    raise UsageError(what, "not an option of the remote display")


def _set_extension(settings: VrdeSettings, what: str, value: str) -> VrdeSettings:
    name = DEFAULT_EXTENSION if value.lower() in ("default", "oracle vm virtualbox extension pack") else value.lower()
    if not name or not all(c.isalnum() or c in "-_." for c in name):
        raise UsageError(
            what, f"{value!r} is not the name of an extension", "use default, rdp, vnc or the name of one you installed"
        )
    known = BUILT_IN_PROPERTIES.get(name)
    foreign = [key for key in settings.properties if known is not None and key not in known]
    if foreign:
        raise UsageError(what, f"{name!r} has no {', '.join(foreign)}", "empty those properties first")
    return replace(settings, extension=name)


def is_display_key(key: str) -> bool:
    """Whether a key of extradata is the display's: its own settings hold it, or it is refused."""
    return key.lower().startswith(("vrdp/", "vrde/", "vboxauthsimple/"))


def set_extradata(settings: VrdeSettings, key: str, value: str) -> VrdeSettings | None:
    """`setextradata` for the display's own keys: `VBoxAuthSimple/users/<user>` and the 3.2 spelling `VRDP/Feature/Client/…`.

    An empty value removes. None: the key is not the display's. Raises UsageError, also for keys that would be the display's and that
    nothing reads.
    """
    if not is_display_key(key):
        return None
    if key.lower().startswith(EXTRADATA_FEATURE.lower()):
        name = key[len(EXTRADATA_FEATURE) :]
        if name.lower() not in _FEATURES:
            raise UsageError(
                f"setextradata {key}", "there is no such feature of the display", f"it knows {', '.join(_FEATURES.values())}"
            )
        return set_property(settings, name, value)
    if not key.lower().startswith(EXTRADATA_USER.lower()):
        raise UsageError(
            f"setextradata {key}",
            "the display has no such key, and nothing else reads it",
            f"it knows {EXTRADATA_USER}NAME and {EXTRADATA_FEATURE}Client/DisableDisplay and the like",
        )
    user = key[len(EXTRADATA_USER) :]
    digest = value.strip().lower()
    if not user:
        raise UsageError(f"setextradata {key}", "no user is named", f"write {EXTRADATA_USER}NAME")
    if digest and (len(digest) != 64 or set(digest) - set("0123456789abcdef")):
        raise UsageError(
            f"setextradata {key}",
            "this is not a SHA-256 hash",
            "`internalcommands passwordhash PASSWORD` prints the one to use",
        )
    users = {name: old for name, old in settings.users.items() if name != user}
    if digest:
        users[user] = digest
    return replace(settings, users=users)


def extradata(settings: VrdeSettings) -> Mapping[str, str]:
    """What `set_extradata` has set, by the keys that `getextradata` knows."""
    features = {f"{EXTRADATA_FEATURE}{name}": value for name, value in settings.properties.items() if name.lower() in _FEATURES}
    return {f"{EXTRADATA_USER}{user}": digest for user, digest in settings.users.items()} | features


def validate(settings: VrdeSettings, known: Mapping[str, Property] | None = None) -> None:
    """Checks a whole value, as one read from a file edited by hand. Raises UsageError for the first thing wrong.

    Properties of an extension that is not built in are checked only against `known`: what it knows it alone can say.
    """
    if not isinstance(settings.auth_type, AuthType):
        raise UsageError(
            "--vrdeauthtype", f"{settings.auth_type!r} is not a way to authenticate", "use null, external or guest"
        )
    parse_ports(settings.ports)
    check_address("--vrdeaddress", settings.address)
    _number("--vrdevideochannelquality", str(settings.video_quality), 10, 100)
    _number("--monitorcount", str(settings.monitors), 1, MOST_MONITORS)
    _set_extension(settings, "--vrdeextpack", settings.extension)
    fresh = replace(settings, properties={})
    if known is not None or settings.extension in BUILT_IN_PROPERTIES:
        for name, value in settings.properties.items():
            set_property(fresh, name, value, known)
    for user, digest in settings.users.items():
        set_extradata(fresh, f"{EXTRADATA_USER}{user}", digest)


def to_dict(settings: VrdeSettings) -> dict[str, object]:
    """The value as JSON or TOML can hold it; `from_dict` reads it back."""
    raw: dict[str, object] = {each.name: getattr(settings, each.name) for each in fields(settings)}
    return raw | {
        "auth_type": settings.auth_type.value,
        "clipboard": settings.clipboard.value,
        "properties": dict(settings.properties),
        "users": dict(settings.users),
    }


def from_dict(raw: Mapping[str, object]) -> VrdeSettings:
    """Reads what `to_dict` wrote. Raises UsageError for fields it doesn't know, values of a wrong type, and `validate`'s."""
    defaults = VrdeSettings()
    values: dict[str, Any] = {}  # each of its default's type
    for name, value in raw.items():
        default = getattr(defaults, name, None)
        if default is None or name not in {each.name for each in fields(defaults)}:
            raise UsageError("the remote display's settings", f"there is no field {name!r}")
        if isinstance(default, Enum):
            words = [each.value for each in type(default)]
            if value not in words:
                raise UsageError("the remote display's settings", f"{name} {value!r} is unknown", f"use {', '.join(words)}")
            values[name] = type(default)(value)
        elif isinstance(default, Mapping):
            if not isinstance(value, Mapping) or not all(isinstance(v, str) for v in value.values()):
                raise UsageError("the remote display's settings", f"{name} must hold texts by name")
            values[name] = {str(k): str(v) for k, v in value.items()}
        elif type(value) is not type(default):
            raise UsageError("the remote display's settings", f"{name} must be of type {type(default).__name__}, not {value!r}")
        else:
            values[name] = value
    settings = replace(defaults, **values)
    validate(settings)
    return settings
