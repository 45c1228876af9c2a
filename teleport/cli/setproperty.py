"""`setproperty`: what holds for all VMs of this home."""

import json

import click

from teleport.cli.grammar import Verb
from teleport.cli.home import store
from teleport.cli.life import Life
from teleport.cli.live import live_state
from teleport.cli.running import connect
from teleport.errors import TeleportError, UsageError
from teleport.machines import auth_libraries, preferences
from teleport.machines.store import Store, StoredVm
from teleport.machines.vrde import DEFAULT_AUTH_LIBRARY, AuthType, to_dict

NAME = "vrdeauthlibrary"
_ALSO = "vrdpauthlibrary"  # VirtualBox before 4.0
_REFUSED = {
    "machinefolder": "VMs are kept where TELEPORT_HOME says",
    **dict.fromkeys(("hwvirtexclusive", "autostartdbpath", "websrvauthlibrary"), "there is nothing here that it could set"),
    **dict.fromkeys(("proxymode", "proxyurl", "language"), "there is nothing here that it could set"),
    "vrdeextpack": "each VM has its own: modifyvm NAME --vrdeextpack",
    **dict.fromkeys(("loghistorycount", "logginglevel"), "each start of a VM goes on with its one log"),
    "defaultfrontend": "VMs have no window here",
}


@click.command("setproperty", cls=Verb)
@click.argument("name", metavar=NAME)
@click.argument("value", metavar="|".join((*auth_libraries.BUILT_IN, "FILE", "default")))
def command(*, name: str, value: str) -> None:
    """Set what holds for all VMs of this home.

    vrdeauthlibrary: what checks logins at --vrdeauthtype external, for VMs without a --vrdeauthlibrary of their own; for those that
    run at once.
    """
    if name.lower() not in (NAME, _ALSO):
        reason = _REFUSED.get(name.lower(), "there is no such property")
        raise UsageError(f"setproperty {name}", reason, f"it takes {NAME}")
    home = store()
    chosen = DEFAULT_AUTH_LIBRARY if value.lower() == "default" else auth_libraries.named(f"setproperty {NAME}", value)
    preferences.change(home.home, lambda old: old.model_copy(update={"vrde_auth_library": chosen}))
    _tell_running(home)


def _tell_running(home: Store) -> None:
    for vm in home.all():
        if (
            not isinstance(vm, StoredVm)
            or vm.definition.vrde.auth_type is not AuthType.EXTERNAL
            or vm.definition.vrde.auth_library
        ):
            continue
        if live_state(vm.paths, vm.name).life is Life.NOTHING:
            continue
        try:
            with connect(vm) as control:
                control.execute("vrde", json.dumps(to_dict(vm.definition.vrde)))
        except TeleportError as error:
            click.echo(f"teleport: warning: the display of VM {vm.name!r} stays as it is: {error}", err=True)
