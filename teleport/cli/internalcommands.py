"""`internalcommands passwordhash`: the hash that VBoxAuthSimple compares with."""

import click

from teleport.cli.grammar import Verb
from teleport.vrde.auth import password_hash


@click.group("internalcommands")
def command() -> None:
    """Hash a password for VBoxAuthSimple."""


@command.command("passwordhash", cls=Verb)
@click.argument("password", required=False)
def passwordhash(*, password: str | None) -> None:
    """Print a password's hash for `setextradata NAME VBoxAuthSimple/users/USER HASH`.

    Without PASSWORD it is asked for, so that it is in no list of processes.
    """
    if password is None:
        password = click.prompt("Password", hide_input=True, err=True)
    click.echo(f"Password hash: {password_hash(password)}")
