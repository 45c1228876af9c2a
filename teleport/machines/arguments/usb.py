"""USB controllers, and mouse and keyboard on them; sound."""

from collections.abc import Collection

from teleport.machines.arguments.launch import Launch, escaped
from teleport.machines.arguments.places import AUDIO, EHCI, OHCI, XHCI, slot
from teleport.machines.definition import Definition, Usb

_CONTROLLERS = {"ohci": ("pci-ohci,num-ports=6", OHCI), "ehci": ("usb-ehci", EHCI), "xhci": ("qemu-xhci,p2=6,p3=6", XHCI)}
_PORTS = range(1, 7)  # each controller has six
SOUND = "sound-backend"
_MICE = {"usb": "usb-mouse", "usbtablet": "usb-tablet"}


def usb_arguments(definition: Definition) -> list[str]:
    """The controllers `ohci`, `ehci`, `xhci` that are on, then mouse and keyboard at ports 1 and 2 of the newest."""
    usb = definition.usb
    arguments: list[str] = []
    for name in _present(usb):
        device, place = _CONTROLLERS[name]
        arguments += ["-device", f"{device},id={name},addr={slot(place)}"]
    if usb.mouse != "ps2":
        arguments += ["-device", f"{_MICE[usb.mouse]},id=mouse,bus={_present(usb)[-1]}.0,port=1"]
    if usb.keyboard != "ps2":
        arguments += ["-device", f"usb-kbd,id=keyboard,bus={_present(usb)[-1]}.0,port=2"]
    return arguments


def storage_bus(definition: Definition) -> str:
    """Where USB disks are plugged in: the newest controller."""
    return f"{_present(definition.usb)[-1]}.0"


def bus_for(usb: Usb, speed: str) -> str:
    """The bus on which a device of that speed works; "" when the VM has none. OHCI: USB 1.1; EHCI: only USB 2.0; xHCI: all."""
    slow = speed in ("low", "full")
    if usb.xhci:
        return "xhci.0"
    if usb.ehci and speed == "high":
        return "ehci.0"
    return "ohci.0" if usb.ohci and slow else ""


def needed_for(speed: str) -> str:
    """The option that a device of that speed needs."""
    slow = speed in ("low", "full")
    return f"a USB device of {speed} speed needs {'--usb on or ' if slow else '--usbehci on or ' if speed == 'high' else ''}--usbxhci on"


def free_port(definition: Definition, used: Collection[int]) -> int | None:
    """A port of any controller for a device that comes and goes: the highest that neither those in `used` have, nor mouse, keyboard
    and disks (which have the newest controller's). Named, since QEMU adds a hub of its own when it must choose the last free one."""
    usb, disks = definition.usb, definition.controller("usb")
    taken = {*used, *({1} if usb.mouse != "ps2" else ()), *({2} if usb.keyboard != "ps2" else ())}
    taken |= {3 + each.port for each in disks.attachments} if disks else set()
    return max(set(_PORTS) - taken, default=None)


def _present(usb: Usb) -> list[str]:
    """The controllers that are on, the oldest first."""
    return [name for name in _CONTROLLERS if getattr(usb, name)]


def has_sound(definition: Definition) -> bool:
    """Whether there is a sound card."""
    return definition.audio.driver != "none"


def records(definition: Definition) -> bool:
    """Whether viewers' microphones are to reach the guest: QEMU's sb16 (hw/audio/sb16.c) plays only."""
    return has_sound(definition) and definition.audio.input and definition.audio.controller != "sb16"


def sound_arguments(definition: Definition, launch: Launch) -> list[str]:
    """The sound card, if any; this host plays nothing of it, and VNC takes from the backend what viewers hear. Where the guest hears them,
    that comes through SPICE on `launch.microphone_socket` ("": this host cannot); the guest sees no difference, and can move to a host
    without."""
    if not has_sound(definition):
        return []
    backend = ["-audiodev", f"none,id={SOUND}"]
    if launch.microphone_socket and records(definition):
        # without a password, as VNC: the folder is of mode 0700
        spice = f"unix=on,addr={escaped(launch.microphone_socket)},disable-ticketing=on"
        backend = ["-audiodev", f"spice,id={SOUND}", "-spice", spice]
    match definition.audio.controller:
        case "ac97":
            return [*backend, "-device", f"AC97,id=sound,addr={slot(AUDIO)},audiodev={SOUND}"]
        case "hda":
            controller = ["-device", f"intel-hda,id=sound,addr={slot(AUDIO)}"]
            return [*backend, *controller, "-device", f"hda-duplex,id=codec,bus=sound.0,cad=0,audiodev={SOUND}"]
        case "sb16":
            return [*backend, "-device", f"sb16,id=sound,audiodev={SOUND}"]
