"""The verbs that are one word: pause, resume, reset, poweroff, acpipowerbutton."""

import click

from teleport.cli.running import connect, wait_over
from teleport.machines.store import StoredVm

_VERBS = {
    "pause": "Stop the virtual CPUs.",
    "resume": "Let them run on.",
    "reset": "Push the reset button.",
    "poweroff": "Pull the plug.",
    "acpipowerbutton": "Push the power button; the guest decides.",
}


def _verb(action: str, about: str) -> click.Command:
    @click.command(action, help=about)
    @click.pass_obj
    def verb(vm: StoredVm) -> None:
        with connect(vm) as control:
            control.power(action)
        if action == "poweroff":
            wait_over(vm)

    return verb


POWER = tuple(_verb(action, about) for action, about in _VERBS.items())
