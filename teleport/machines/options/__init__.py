"""The one table of a VM's options.

From it come `modifyvm`'s parser, help and completion, `showvminfo` in both forms, the comparison of the two ends of a teleport
(`teleport.machines.settings`) and the command reference. A new option is one row here and its field in the definition.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType

from teleport.machines.options import board, devices, network, remote, serial
from teleport.machines.options.option import Option

OPTIONS: tuple[Option, ...] = (*board.OPTIONS, *devices.OPTIONS, *network.OPTIONS, *serial.OPTIONS, *remote.OPTIONS)
_BY_NAME = {name: option for option in OPTIONS for name in (option.name, *option.also)}

_HOST = "QEMU decides this by itself on every host"
_LPT = "a parallel port is hardware of one host and could not move with the guest: --uart1 is a serial port that can"
_LATER = "Teleport does not have it yet"
# Options of VirtualBox that we know and don't take, with the reason: nothing is accepted and ignored.
REFUSED: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("hwvirtex", "nestedpaging", "vtxvpid", "vtxux", "largepages", "hwvirtexexcl"), _HOST),
        **dict.fromkeys(("paravirtprovider", "nested-hw-virt", "biosapic", "triplefaultreset", "x2apic"), _LATER),
        **dict.fromkeys(("accelerate3d", "accelerate2dvideo", "pagefusion", "guestmemoryballoon"), _LATER),
        **dict.fromkeys(("clipboard", "draganddrop", "groups", "iconfile", "snapshotfolder", "defaultfrontend"), _LATER),
        **dict.fromkeys(("audiocodec", "usbcardreader", "usbrename"), _LATER),
        **dict.fromkeys(("nictrace", "nictracefile", "nicspeed", "nicbootprio", "nicpromisc", "nicbandwidthgroup"), _LATER),
        **dict.fromkeys(("hostonlyadapter", "hostonlynet"), network.NOT_HERE["hostonly"]),
        **dict.fromkeys(("nat-network", "natnetwork"), network.NOT_HERE["natnetwork"]),
        **dict.fromkeys(("nicgenericdrv", "nicproperty"), network.NOT_HERE["generic"]),
        **dict.fromkeys(("natnet", "natsettings", "natdnspassdomain", "natdnsproxy"), _LATER),
        **dict.fromkeys(
            ("natdnshostresolver", "nataliasmode", "nattftpprefix", "nattftpfile", "nattftpserver", "natbindip"), _LATER
        ),
        **dict.fromkeys(("lptmode", "lpt"), _LPT),
        **dict.fromkeys(("cpuhotplug", "cpuexecutioncap", "plugcpu", "unplugcpu"), _LATER),
        **dict.fromkeys(("audioin", "audio-in"), "neither this host nor a viewer has a microphone for the guest"),
        "synthcpu": "use --cpu-profile to name a model",
    }
)


def option(name: str) -> Option:
    """The row of that name. Raises KeyError."""
    return _BY_NAME[name]


def find(word: str) -> tuple[Option, int] | None:
    """``nic1`` → (the row "nic", 1); None for a word that is no option, or a number that it doesn't have."""
    if word in _BY_NAME and not _BY_NAME[word].most:
        return _BY_NAME[word], 0
    match = re.fullmatch(r"(.*[^0-9])([1-9][0-9]?)", word)
    if match and match[1] in _BY_NAME and int(match[2]) in _BY_NAME[match[1]].numbers and _BY_NAME[match[1]].most:
        return _BY_NAME[match[1]], int(match[2])
    return None
