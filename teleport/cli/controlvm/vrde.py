"""`vrde on|off`, `vrdeport PORTS` and the like: the remote display of a VM that runs, changed and kept."""

import click

from teleport.cli.display import end_left_display, tell_display
from teleport.cli.home import store
from teleport.cli.life import Life
from teleport.cli.live import live_state
from teleport.cli.running import connect
from teleport.errors import UsageError
from teleport.machines.options import option
from teleport.machines.options.option import Use, applied
from teleport.machines.store import StoredVm

_VERBS = {
    "vrde": "Switch the remote display on or off.",
    "vrdeport": "Move it to another port; its viewers connect again.",
    "vrdeproperty": "Set one of its properties; without a value it is removed.",
    "vrdevideochannelquality": "Set the quality of moving pictures, in percent.",
}


def _verb(name: str, about: str) -> click.Command:
    @click.command(name, help=about)
    @click.argument("value", metavar=option(name).kind.metavar)
    @click.pass_obj
    def verb(vm: StoredVm, value: str) -> None:
        _set(vm, name, value)

    return verb


def _set(vm: StoredVm, name: str, value: str) -> None:
    use = Use(option=option(name), number=0, words=(value,))
    wanted = applied(vm.definition, (use,))
    if name == "vrde" and not wanted.vrde.enabled and _has_left(vm) and end_left_display(vm.paths, vm.name):
        return
    with connect(vm) as control:
        control.status()  # it runs: `modifyvm` is for VMs that don't
    tell_display(vm, wanted, again=True)
    store().edit(vm, lambda definition: applied(definition, (use,)))


@click.command("clipboard", help="Choose which way copied text may go.")
@click.argument("words", metavar="[mode] disabled|hosttoguest|guesttohost|bidirectional", nargs=-1)
@click.pass_obj
def _clipboard(vm: StoredVm, words: tuple[str, ...]) -> None:
    """With and without the word `mode`, as VirtualBox 6.1 and 5 have it."""
    value = words[1:] if words[:1] == ("mode",) else words
    if len(value) != 1:
        raise UsageError("controlvm clipboard", "it takes one mode", f"use {', '.join(option('clipboard').kind.choices)}")
    _set(vm, "clipboard", value[0])


def _has_left(vm: StoredVm) -> bool:
    return live_state(vm.paths, vm.name).life is Life.NOTHING


VRDE = (*(_verb(name, about) for name, about in _VERBS.items()), _clipboard)
