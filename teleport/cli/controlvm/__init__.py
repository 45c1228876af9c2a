"""`controlvm NAME VERB …`: what can be asked of a running VM. One file a verb that is more than a word."""

from teleport.cli.controlvm.group import VmGroup
from teleport.cli.controlvm.network import NETWORK
from teleport.cli.controlvm.power import POWER
from teleport.cli.controlvm.savestate import savestate
from teleport.cli.controlvm.screenshot import screenshot
from teleport.cli.controlvm.teleport import cancel, teleport
from teleport.cli.controlvm.vrde import VRDE

# Verbs of VirtualBox that we know and don't take, with the reason.
_REFUSED = {
    "setvideomodehint": "QEMU has no command that passes a size to its guest: choose the mode in the guest",
    "setscreenlayout": "QEMU has no command that passes a layout to its guest: choose it in the guest",
    "guestmemoryballoon": "memory is what the definition says: modifyvm --memory, while the VM is off",
    **dict.fromkeys(("plugcpu", "unplugcpu"), "the number of CPUs stays while the VM runs: modifyvm --cpus, while it is off"),
}

command = VmGroup(
    "controlvm",
    commands=(*POWER, savestate, screenshot, *NETWORK, *VRDE, teleport, cancel),
    refused=_REFUSED,
    help="Pause, resume, stop, change or teleport a running VM.",
)
