"""`discardstate`: drops a saved state; the guest's disk stays as it is, as after a power cut."""

import click

from teleport.cli.grammar import Verb, vm_argument
from teleport.cli.home import store
from teleport.cli.live import live_state
from teleport.errors import StateError
from teleport.machines import saved_state


@click.command("discardstate", cls=Verb)
@vm_argument()
def command(*, vm: str) -> None:
    """Drop a VM's saved state."""
    found = store().find(vm)
    now = live_state(found.paths, found.name)
    if not now.at_rest:
        raise StateError("discardstate", f"the VM {found.name!r} is {now.state.value}")
    saved_state.discard(found.paths)
