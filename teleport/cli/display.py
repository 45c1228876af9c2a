"""The remote display from the command line's side: telling a running VM's about other settings, and where viewers find it."""

import json
import socket
from collections.abc import Mapping

import click

from teleport.cli.life import Life
from teleport.cli.live import LiveState, live_state
from teleport.cli.running import connect
from teleport.errors import StateError
from teleport.machines.definition import Definition
from teleport.machines.store import StoredVm
from teleport.machines.vrde import to_dict

_EVERYWHERE = ("", "::", "0.0.0.0")


def tell_display(vm: StoredVm, wanted: Definition, *, again: bool = False) -> None:
    """Gives the display's settings of `wanted` to the VM's runner, if one lives; with `again` also those that it has (the port may be
    free by now). Raises what keeps the display from them; then everything is as it was."""
    if (wanted.vrde == vm.definition.vrde and not again) or live_state(vm.paths, vm.name).life is Life.NOTHING:
        return
    with connect(vm) as control:
        answer = control.execute("vrde", json.dumps(to_dict(wanted.vrde)))
    say_where(json.loads(answer))


def say_where(details: Mapping[str, str | int]) -> None:
    """VirtualBox's line about the port, or why there is none."""
    port = int(details.get("vrdeport", 0))
    if port > 0:
        click.echo(f"VRDE server is listening on port {port}.")
    elif problem := details.get("vrdeproblem"):
        click.echo(f"teleport: warning: no remote display: {problem}", err=True)


def viewers_address(vm: StoredVm, live: LiveState) -> tuple[str, int]:
    """Host and port for a viewer. Raises StateError when the display is off."""
    port = int(live.details.get("vrdeport", 0))
    if port <= 0:
        why = str(live.details.get("vrdeproblem", "")) or f"the remote display of VM {vm.name!r} is off"
        raise StateError("console", why, f"teleport controlvm {vm.name!r} vrde on")
    address = str(live.details.get("vrdeaddress", ""))
    return (socket.gethostname() if address in _EVERYWHERE else address), port
