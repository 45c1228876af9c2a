"""What must be the same at both ends of a teleport: settings to compare, each with the command that mends it.

Every setting that a guest sees is listed, also "none" where something could be and isn't, so that what one side has too much can
be mended too. Commands address controllers by their bus (`--storagectl sata`), whatever each side calls them; options that the
definition only takes together come together.
"""

import shlex
from dataclasses import dataclass

from teleport.machines.arguments.storage import node_name
from teleport.machines.controllers import BUSES, Bus
from teleport.machines.definition import Definition
from teleport.machines.drives import Attachment
from teleport.machines.options import OPTIONS, option
from teleport.machines.options.option import Option
from teleport.machines.remote_media import needs_owner_folder

NONE = "none"
PLACEHOLDER = "{vm}"
_NO_PLACEHOLDER = "{''vm}"  # within a shell's quotes, the same text
# Values that the definition takes only beside some values of the others: a mending command then sets them all.
_BOARD = ("chipset", "acpi", "ioapic", "cpus")
_TOGETHER: tuple[tuple[str, ...], ...] = (("kernel", "initrd", "append"), ("usb", "usbehci", "usbxhci", "mouse", "keyboard"))
_HARMLESS = {"chipset": "piix3", "acpi": "on", "ioapic": "on", "cpus": "1"}


@dataclass(frozen=True)
class Setting:
    """One setting that the guest sees. `mend` is the command that gives it to another VM, which stands in it as ``{vm}``."""

    key: str
    value: str
    mend: str

    def mending_command(self, vm_name: str) -> str:
        """The command for the VM of that name; it can be pasted into a shell."""
        return self.mend.replace(PLACEHOLDER, shlex.quote(vm_name))


def hardware_settings(definition: Definition) -> tuple[Setting, ...]:
    """All of them in the options' and controllers' order, e.g. ``memory = 1024``, ``nic1 = nat``, ``sata-0-0 = hdd``."""
    settings = [
        Setting(
            key=each.flag(number).removeprefix("--"),
            value=each.wanted(definition, number),
            mend=_modify(definition, each, number),
        )
        for each in OPTIONS
        if each.hardware
        for number in each.numbers
        if each.relevant(definition, number)
    ]
    for bus in BUSES:
        settings += _controller_settings(definition, bus)
    return tuple(settings)


def _modify(definition: Definition, chosen: Option, number: int) -> str:
    if chosen.mend:
        return f"teleport modifyvm {{vm}} {chosen.mend(definition, number).replace(PLACEHOLDER, _NO_PLACEHOLDER)}"
    together: tuple[str, ...] = next((group for group in _TOGETHER if chosen.name in group), (chosen.name,))
    if chosen.name in _BOARD and chosen.text(definition, number) != _HARMLESS[chosen.name]:
        together = _BOARD
    uses = [_use(definition, option(name) if name != chosen.name else chosen, number) for name in together]
    return f"teleport modifyvm {{vm}} {' '.join(uses)}"


def _use(definition: Definition, chosen: Option, number: int) -> str:
    words = chosen.spoken(definition, number)
    return " ".join([chosen.flag(number), *(_quoted(word) for word in words)])


def _quoted(word: str) -> str:
    """A word for the shell, in which ``{vm}`` is no placeholder."""
    return shlex.quote(word).replace(PLACEHOLDER, _NO_PLACEHOLDER)


def _controller_settings(definition: Definition, bus: Bus) -> list[Setting]:
    controller = definition.controller(bus)
    owner_folder = definition.owner_folder
    if controller is None:
        return [Setting(key=f"controller {bus}", value=NONE, mend=f"teleport storagectl {{vm}} --name {bus} --remove")]
    kind = BUSES[bus]
    bootable = "on" if controller.bootable else "off"
    ports = f", {controller.port_count} ports" if kind.least_ports < kind.most_ports else ""
    first = f"{_modify(definition, option('usbehci'), 0)} && " if bus == "usb" else ""  # what it is plugged into
    settings = [
        Setting(
            key=f"controller {bus}",
            value=f"{controller.chip}{ports}{'' if controller.bootable else ', not bootable'}",
            mend=f"{first}teleport storagectl {{vm}} --name {_quoted(controller.name)} --add {kind.add} "
            f"--controller {controller.chip} --portcount {controller.port_count} --bootable {bootable} --replace",
        )
    ]
    by_place = {(each.port, each.device): each for each in controller.attachments}
    for port in range(controller.port_count):
        for device in range(kind.devices_per_port):
            attachment = by_place.get((port, device))
            place = Attachment(port=port, device=device, type="dvddrive")
            settings.append(
                Setting(
                    key=node_name(bus, place),
                    value=attachment.type if attachment else NONE,
                    mend=f"teleport storageattach {{vm}} --storagectl {bus} --port {port} --device {device}"
                    + _medium(attachment, owner_folder),
                )
            )
    return settings


def _medium(attachment: Attachment | None, owner_folder: str) -> str:
    if attachment is None:
        return " --medium none"
    words = f" --type {attachment.type} --medium {_quoted(attachment.medium or 'emptydrive')}"
    if attachment.password_file:
        words += f" --passwordfile {_quoted(attachment.password_file)}"
    return words + (f" --ownerfolder {_quoted(owner_folder)}" if needs_owner_folder(attachment.medium) and owner_folder else "")
