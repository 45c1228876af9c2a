"""The extension interface: how a remote display is supplied, by us or by others (manual, 7.1: the VRDE).

An extension is an object of `Extension`, found through the entry-point group ``teleport.vrde`` under the name that `--vrdeextpack`
gives. It makes one `DisplayServer` a VM, which lives in a process of its own, the *front* (`teleport.vrde.front`): that outlives the
VM's QEMU and runner, keeps viewers connected through a teleport, and is talked to through `teleport.vrde.control`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol, runtime_checkable

from teleport.errors import NotFoundError
from teleport.machines.display_extensions import GROUP
from teleport.machines.vrde import VrdeSettings
from teleport.machines.vrde_properties import Property
from teleport.vrde.clipboard_link import ClipboardLink
from teleport.vrde.login import Authenticator
from teleport.vrde.microphone import Microphone
from teleport.vrde.screens import Screens
from teleport.vrde.sessions import Sessions
from teleport.vrde.throttle import Throttle
from teleport.vrde.usb import UsbDevices


@dataclass(frozen=True)
class Bound:
    """Where a display listens: the port, and the addresses it is bound to."""

    port: int
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Context:
    """What an extension gets to serve one VM's display.

    `folder` is of mode 0700 and the front's own (sockets, logs), `keys` keeps certificates over restarts. Viewers are put on `screens`
    (RFB, one relay a screen), which the front switches when the guest moves, `admit`ted through `sessions` (several or one, taking
    over), and decided over by `throttle.decide` with `authenticator`, which slows down who guesses. `note` writes one line to the
    VM's log (refusals; never a password). `usb` takes the devices that viewers share, `clipboard` what they copy, and `microphone`
    what they say, where the extension can let them in.
    """

    vm_name: str
    folder: Path
    keys: Path
    settings: VrdeSettings
    screens: Screens
    sessions: Sessions
    authenticator: Authenticator
    throttle: Throttle
    note: Callable[[str], None]
    usb: UsbDevices | None = None
    clipboard: ClipboardLink | None = None
    microphone: Microphone | None = None
    details: Mapping[str, str] = field(default_factory=dict)


class DisplayServer(Protocol):
    """One VM's display, running. Errors are `teleport.errors`. A teleport is not its business: the front switches the screens."""

    async def start(self) -> Bound:
        """Binds the first free port and serves. Raises BusyError when none is free, UsageError for settings that cannot work."""

    async def stop(self) -> None:
        """Ends all sessions and frees everything. Idempotent."""

    async def update(self, settings: VrdeSettings) -> None:
        """Takes over what can change while it runs. The gates of the screens, the authenticator and the rules of `sessions` are
        exchanged by the front itself; this is for what only the extension knows."""

    def details(self) -> Mapping[str, str]:
        """Facts worth showing, such as the certificate's fingerprint."""


@runtime_checkable
class Extension(Protocol):
    """What stands behind an entry point."""

    @property
    def name(self) -> str:
        """The name it is found under."""

    @property
    def properties(self) -> Mapping[str, Property]:
        """The properties it knows, checked when they are set."""

    def problem(self) -> str:
        """Why it cannot serve on this host, with what to do; "" when it can."""

    def serve(self, context: Context) -> DisplayServer:
        """A server for one VM, not started yet."""


def names() -> tuple[str, ...]:
    """The extensions that are installed."""
    return tuple(sorted({each.name for each in entry_points(group=GROUP)}))


def find(name: str) -> Extension:
    """The extension of that name. Raises NotFoundError when none is installed, or what is installed is none."""
    for each in entry_points(group=GROUP):
        if each.name == name:
            try:
                found = each.load()
            except ImportError as error:
                raise NotFoundError(f"the display extension {name!r}", f"cannot be loaded: {error}", "reinstall it") from error
            if not isinstance(found, Extension):
                raise NotFoundError(f"the display extension {name!r}", f"{each.value} is no teleport.vrde.extension.Extension")
            return found
    raise NotFoundError(
        f"the display extension {name!r}",
        "is not installed",
        f"installed are {', '.join(names()) or 'none'}; set one with modifyvm --vrdeextpack, or run deploy/set-up",
    )
