"""`registervm`: adds the VM of a settings file to the list."""

import click

from teleport.cli.grammar import Verb, file_path
from teleport.cli.home import store


@click.command("registervm", cls=Verb)
@click.argument("file", metavar="FILE")
def command(file: str) -> None:
    """Add the VM of a settings file (or of its folder) to the list of VMs."""
    store().register(file_path("registervm", file))
