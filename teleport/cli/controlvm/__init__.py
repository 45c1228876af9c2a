"""`controlvm NAME VERB …`: what can be asked of a running VM. One file a verb that is more than a word."""

from teleport.cli.controlvm.group import VmGroup
from teleport.cli.controlvm.mode_hint import setvideomodehint
from teleport.cli.controlvm.network import NETWORK
from teleport.cli.controlvm.power import POWER
from teleport.cli.controlvm.savestate import savestate
from teleport.cli.controlvm.screenshot import screenshot
from teleport.cli.controlvm.teleport import cancel, teleport
from teleport.cli.controlvm.vrde import VRDE

_ADDITIONS = "it needs VirtualBox's Guest Additions in the guest, and QEMU's guests have none"
_KEYS = "type at the screen: `teleport console` shows it, or an RDP viewer"
# Verbs of VirtualBox that we know and don't take, with the reason.
_REFUSED = {
    "setscreenlayout": "QEMU has no command that passes a layout to its guest: choose it in the guest",
    "guestmemoryballoon": "memory is what the definition says: modifyvm --memory, while the VM is off",
    **dict.fromkeys(("plugcpu", "unplugcpu"), "the number of CPUs stays while the VM runs: modifyvm --cpus, while it is off"),
    **dict.fromkeys(("setcredentials", "draganddrop", "updateadditions"), _ADDITIONS),
    **dict.fromkeys(("keyboardputscancode", "keyboardputstring", "keyboardputfile"), _KEYS),
    **dict.fromkeys(("recording", "videocap"), "screenshotpng writes one picture, and a viewer can record what it shows"),
    **dict.fromkeys(("usbattach", "usbdetach"), "usbfilter says what the VM takes, `teleport usb share` brings it"),
    "webcam": "neither this host nor a viewer has a camera for the guest",
    "audioin": "modifyvm --audioin, while the VM is off; then modifyvm --vrdeproperty Client/DisableUpstreamAudio=1 closes it at once",
    "acpisleepbutton": "QEMU's machines have no sleep button: savestate keeps the guest without using anything",
    "reboot": "reset pushes the button; a guest that reboots by itself does so from within",
    "shutdown": "acpipowerbutton asks the guest to",
    "cpuexecutioncap": "the host limits a process: systemd's CPUQuota",
}

command = VmGroup(
    "controlvm",
    commands=(*POWER, savestate, screenshot, setvideomodehint, *NETWORK, *VRDE, teleport, cancel),
    refused=_REFUSED,
    help="Pause, resume, stop, change or teleport a running VM.",
)
