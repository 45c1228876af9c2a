"""`unregistervm`: takes a VM off the list, and deletes it on demand."""

import click

from teleport.cli.grammar import Verb, vm_argument
from teleport.cli.home import store
from teleport.cli.live import require_at_rest


@click.command("unregistervm", cls=Verb)
@vm_argument()
@click.option("--delete", is_flag=True, help="Delete its settings, logs and journals too (never a medium).")
def command(*, vm: str, delete: bool) -> None:
    """Take a VM off the list of VMs."""
    home = store()
    found = home.find_entry(vm)
    require_at_rest(found.paths, found.name, "unregistervm")
    home.unregister(found, delete=delete)
