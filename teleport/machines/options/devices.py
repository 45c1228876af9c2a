"""Sound and USB."""

from typing import Any

from teleport.machines.definition import Definition
from teleport.machines.options.kinds import SWITCH, Kind, choice
from teleport.machines.options.option import Option, field

AUDIO, USB = "Audio", "USB"
_BACKENDS = "the guest's sound would stay with this host when the guest moves"


def _row(name: str, kind: Kind, where: str, *, label: str, about: str, group: str, **more: Any) -> Option:
    section, _, attribute = where.rpartition(".")
    get, put = field(section, attribute)
    return Option(name=name, where=where, kind=kind, label=label, about=about, get=get, set=put, group=group, **more)


def _has_sound(definition: Definition, _: int) -> bool:
    return definition.audio.driver != "none"


OPTIONS = (
    _row(
        "audio",
        choice("none", "null", refused=dict.fromkeys(("oss", "alsa", "pulse", "default", "was", "dsound"), _BACKENDS)),
        "audio.driver",
        label="Audio",
        about="none: no sound card; null: one that this host plays nothing of, but viewers may (--audioout)",
        group=AUDIO,
        also=("audio-driver",),
    ),
    _row(
        "audiocontroller",
        choice("ac97", "hda", "sb16"),
        "audio.controller",
        label="Audio Controller",
        about="the sound card's model",
        group=AUDIO,
        relevant=_has_sound,
        also=("audio-controller",),
    ),
    _row(
        "audioout",
        SWITCH,
        "audio.output",
        label="Audio playback",
        about="viewers of the remote display hear the guest",
        group=AUDIO,
        relevant=_has_sound,
        hardware=False,
        also=("audio-out",),
        key="audio_out",
    ),
    _row(
        "audioin",
        SWITCH,
        "audio.input",
        label="Audio capture",
        about="the guest records what an RDP viewer says into its microphone (sb16 plays only)",
        group=AUDIO,
        relevant=_has_sound,
        hardware=False,
        also=("audio-in",),
        key="audio_in",
    ),
    _row("usb", SWITCH, "usb.ohci", label="OHCI USB", about="a USB 1.1 controller", group=USB, also=("usbohci", "usb-ohci")),
    _row(
        "usbehci", SWITCH, "usb.ehci", label="EHCI USB", about="a USB 2.0 controller", group=USB, also=("usb-ehci",), key="ehci"
    ),
    _row(
        "usbxhci", SWITCH, "usb.xhci", label="xHCI USB", about="a USB 3.0 controller", group=USB, also=("usb-xhci",), key="xhci"
    ),
    _row(
        "mouse",
        choice("ps2", "usb", "usbtablet", refused={"usbmultitouch": "QEMU's multi-touch devices are not USB"}),
        "usb.mouse",
        label="Pointing Device",
        about="usbtablet follows a viewer's pointer exactly",
        group=USB,
        key="hidpointing",
        machine_words={"ps2": "ps2mouse", "usb": "usbmouse"},
    ),
    _row(
        "keyboard",
        choice("ps2", "usb"),
        "usb.keyboard",
        label="Keyboard Device",
        about="the keyboard",
        group=USB,
        key="hidkeyboard",
        machine_words={"ps2": "ps2kbd", "usb": "usbkbd"},
    ),
)
