"""`closemedium`: forgets an image, or deletes it."""

import click

from teleport.cli.grammar import Verb
from teleport.cli.mediums import named_medium, users_of
from teleport.errors import BusyError
from teleport.machines import media


@click.command("closemedium", cls=Verb)
@click.argument("words", metavar="[disk|dvd|floppy] FILE", nargs=-1)
@click.option("--delete", is_flag=True, help="Delete the file, with the owner record beside it.")
def command(*, words: tuple[str, ...], delete: bool) -> None:
    """Have done with an image that no VM has attached: without --delete the file stays as it is."""
    path = named_medium(words, "closemedium")
    media.inspect(path)
    if users := users_of(path):
        names = ", ".join(repr(each.name) for each in users)
        raise BusyError(f"medium {path}", f"is attached to {names}", "detach it by `storageattach … --medium none` first")
    if delete:
        media.delete(path)
    else:  # an image is known here by the VMs that have it attached, and there is none
        click.echo(f"Medium closed; its file stays: '{path}'.")
