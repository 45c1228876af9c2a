"""`resolve`: a person decides where a guest runs when a teleport ended in doubt."""

import click

from teleport.cli.grammar import Verb, vm_argument
from teleport.cli.home import store
from teleport.cli.running import connect, wait_over
from teleport.errors import UsageError


@click.command("resolve", cls=Verb)
@vm_argument()
@click.option("--run-here", is_flag=True, help="The target does not run it: the paused copy here goes on.")
@click.option("--moved", is_flag=True, help="The target runs it: the paused copy here is let go.")
@click.option("--confirm", default="", metavar="NAME", help="The VM's name, again: --run-here would run it twice if you err.")
def command(*, vm: str, run_here: bool, moved: bool, confirm: str) -> None:
    """Decide where a guest runs; without an option: show what is known."""
    if run_here and moved:
        raise UsageError("resolve", "--run-here and --moved exclude each other")
    found = store().find(vm)
    if confirm and confirm != found.name:
        raise UsageError("--confirm", f"{confirm!r} is not the VM's name", f"--confirm {found.name!r}")
    with connect(found) as control:
        click.echo(control.resolve(run_here=run_here, moved=moved, confirmed=confirm == found.name))
    if moved:
        wait_over(found)
