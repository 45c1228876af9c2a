"""What a running machine can become: the difference of two definitions, as far as QEMU can follow it without a new start.

An adapter's other end, its link and its forwarded ports, and the media of CD and floppy drives. Everything else is refused by name:
a device that comes or goes needs the guest's consent, and the two ends of a teleport must agree on what there is.
"""

from dataclasses import dataclass

from teleport.errors import StateError
from teleport.machines.adapters import MOST_NICS, Nic
from teleport.machines.controllers import Bus
from teleport.machines.definition import Definition
from teleport.machines.drives import Attachment, Controller

_PLUG_FIELDS = ("attachment", "bridge", "network")


@dataclass(frozen=True)
class DrivePlace:
    """Where a drive is."""

    bus: Bus
    port: int
    device: int

    def of(self, definition: Definition) -> Attachment | None:
        """The drive there, if there is one."""
        controller = definition.controller(self.bus)
        drives = controller.attachments if controller else ()
        return next((each for each in drives if (each.port, each.device) == (self.port, self.device)), None)


@dataclass(frozen=True)
class LiveChange:
    """What differs: `plugs` are adapters with another end, `cables` those with another link or other forwarded ports, `drives` those
    with another medium."""

    plugs: tuple[int, ...] = ()
    cables: tuple[int, ...] = ()
    drives: tuple[DrivePlace, ...] = ()


def live_change(before: Definition, after: Definition) -> LiveChange:
    """What must be done to a machine that runs as `before`. Raises StateError for what only a machine that is off can become."""
    numbers = range(1, MOST_NICS + 1)
    different = [number for number in numbers if before.nic(number) != after.nic(number)]
    for number in different:
        _require_live_nic(before.nic(number), after.nic(number))
    plugs = tuple(number for number in different if _plug(before.nic(number)) != _plug(after.nic(number)))
    drives = tuple(place for each in before.controllers for place in _changed_drives(each, after))
    rest = before.model_copy(update={"nics": after.nics, "controllers": after.controllers})
    if rest != after or [_frame(each) for each in before.controllers] != [_frame(each) for each in after.controllers]:
        raise _only_off(f"VM {before.name!r}", "that setting belongs to the machine as it was started")
    return LiveChange(plugs=plugs, cables=tuple(number for number in different if number not in plugs), drives=drives)


def _plug(nic: Nic) -> tuple[str, str]:
    """What the adapter is connected with."""
    return nic.attachment, {"bridged": nic.bridge, "intnet": nic.network}.get(nic.attachment, "")


def _require_live_nic(before: Nic, after: Nic) -> None:
    what = f"nic{before.number}"
    if before.attachment == "none":
        raise _only_off(what, f"the running machine has no adapter {before.number}")
    if after.attachment == "none":
        raise StateError(
            what, "an adapter cannot leave a running machine", f"`{what} null` takes its cable out; none is for one that is off"
        )
    fixed = after.model_copy(update={name: getattr(before, name) for name in (*_PLUG_FIELDS, "cable", "forwards")})
    if fixed != before:
        raise _only_off(what, "its model and address belong to the machine as it was started")


def _changed_drives(before: Controller, after: Definition) -> list[DrivePlace]:
    controller = after.controller(before.bus)
    theirs = {(each.port, each.device): each for each in controller.attachments} if controller else {}
    ours = {(each.port, each.device): each for each in before.attachments}
    changed = []
    for port, device in sorted(ours.keys() | theirs.keys()):
        old, new = ours.get((port, device)), theirs.get((port, device))
        if old == new:
            continue
        what = f"{before.name} port {port} device {device}"
        if old is None:
            raise _only_off(what, "a drive cannot be added to a running machine")
        if new is None:
            hint = "`--medium emptydrive` takes the medium out" if old.type != "hdd" else "power it off first"
            raise StateError(what, "a drive cannot leave a running machine", hint)
        if "hdd" in (old.type, new.type) or old.type != new.type:
            raise _only_off(what, "only the media of CD and floppy drives may change while the machine runs")
        changed.append(DrivePlace(before.bus, port, device))
    return changed


def _frame(controller: Controller) -> Controller:
    return controller.model_copy(update={"attachments": ()})


def _only_off(what: str, why: str) -> StateError:
    return StateError(what, why, "change it while the VM is off: `teleport controlvm NAME poweroff` first")
