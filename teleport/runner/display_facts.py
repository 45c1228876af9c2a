"""Of a display: what `showvminfo` shows, and which changes a running front cannot take. Functions of values alone."""

from teleport.machines.vrde import VrdeSettings
from teleport.model import DisplayStatus

# What a running front cannot exchange: it is stopped and started for that, and its viewers connect again.
_NEEDS_RESTART = ("ports", "address", "extension")


def shown(status: DisplayStatus) -> dict[str, str]:
    """What `showvminfo` shows of a front that serves."""
    facts = {
        "vrde": "on",
        "vrdeport": str(status.port),
        "vrdeviewers": str(status.viewers),
        "vrdeaddress": _as_set(status.addresses),
    }
    named = {"vrdefingerprint": status.details.get("fingerprint"), "vrdelimit": status.details.get("limit")}
    return facts | {name: value for name, value in named.items() if value}


def _as_set(addresses: tuple[str, ...]) -> str:
    """Bound addresses as `--vrdeaddress` says them: "" all, "localhost" both loopbacks."""
    if len(addresses) == 1:
        return addresses[0]
    return "localhost" if "::1" in addresses else ""


def restart_is_needed(before: VrdeSettings, after: VrdeSettings) -> bool:
    """Whether a front with the one has to be started anew for the other."""

    def fixed(settings: VrdeSettings) -> tuple[object, ...]:
        return tuple(getattr(settings, name) for name in _NEEDS_RESTART)

    return fixed(before) != fixed(after)
