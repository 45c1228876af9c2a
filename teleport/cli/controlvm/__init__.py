"""`controlvm NAME VERB …`: what can be asked of a running VM. One file a verb that is more than a word."""

from teleport.cli.controlvm.group import VmGroup
from teleport.cli.controlvm.power import POWER
from teleport.cli.controlvm.savestate import savestate
from teleport.cli.controlvm.screenshot import screenshot
from teleport.cli.controlvm.teleport import cancel, teleport
from teleport.cli.controlvm.vrde import VRDE

command = VmGroup(
    "controlvm",
    commands=(*POWER, savestate, screenshot, *VRDE, teleport, cancel),
    help="Pause, resume, stop or teleport a running VM.",
)
