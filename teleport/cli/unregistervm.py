"""`unregistervm`: takes a VM off the list, and deletes it on demand."""

import shlex

import click

from teleport.cli.display import end_left_display
from teleport.cli.grammar import Verb, vm_argument
from teleport.cli.home import store
from teleport.cli.live import require_at_rest
from teleport.errors import StateError
from teleport.machines.snapshots import snapshot_names


@click.command("unregistervm", cls=Verb)
@vm_argument()
@click.option("--delete", is_flag=True, help="Delete its settings, logs and journals too (never a medium).")
def command(*, vm: str, delete: bool) -> None:
    """Take a VM off the list of VMs."""
    home = store()
    found = home.find_entry(vm)
    require_at_rest(found.paths, found.name, "unregistervm")
    if delete and (names := snapshot_names(found.paths)):
        raise StateError(
            f"unregistervm --delete {found.name!r}",
            f"it has snapshots, whose disks would be left without their tree: {', '.join(names)}",
            f"`teleport snapshot {shlex.quote(found.name)} delete` them first",
        )
    end_left_display(found.paths, found.name)
    home.unregister(found, delete=delete)
