"""`setextradata` and `getextradata`: texts kept with a VM, or with this home (`global`).

`VBoxAuthSimple/users/NAME` and `VRDP/Feature/Client/…` are the remote display's: they are kept in its own settings, count for a VM that
runs at once, and are shown here by these names too.
"""

from collections.abc import Mapping

import click

from teleport.cli.display import tell_display
from teleport.cli.grammar import Verb, vm_argument
from teleport.cli.home import store
from teleport.machines import preferences, vrde
from teleport.machines.definition import Definition
from teleport.machines.options.option import checked, draft_of

GLOBAL = "global"
ENUMERATE = "enumerate"


def _with(definition: Definition, key: str, value: str) -> Definition:
    draft = draft_of(definition)
    display = vrde.set_extradata(definition.vrde, key, value)
    if display is None:
        draft["extradata"] = preferences.with_extradata(definition.extradata, key, value)
    else:
        draft["vrde"] = display
    return checked(draft, "setextradata")


@click.command("setextradata", cls=Verb)
@vm_argument()
@click.argument("key")
@click.argument("value", default="")
def setextradata(*, vm: str, key: str, value: str) -> None:
    """Keep a text with a VM, or with all of this home (global); without a VALUE it is removed.

    A teleport does not take it along: the target's own applies there.
    """
    home = store()
    if vm.lower() == GLOBAL:
        preferences.change(home.home, lambda old: preferences.set_global_extradata(old, key, value))
        return
    found = home.find(vm)
    tell_display(found, _with(found.definition, key, value))
    home.edit(found, lambda definition: _with(definition, key, value))


@click.command("getextradata", cls=Verb)
@vm_argument()
@click.argument("key", metavar=f"KEY|{ENUMERATE}")
def getextradata(*, vm: str, key: str) -> None:
    """Show a text that is kept with a VM, or with all of this home (global); enumerate shows them all."""
    home = store()
    kept: Mapping[str, str]
    if vm.lower() == GLOBAL:
        kept = preferences.read(home.home).extradata
    else:
        definition = home.find(vm).definition
        kept = {**definition.extradata, **vrde.extradata(definition.vrde)}
    if key == ENUMERATE:
        for name, value in sorted(kept.items()):
            click.echo(f"Key: {name}, Value: {value}")
        return
    click.echo(f"Value: {kept[key]}" if key in kept else "No value set!")
