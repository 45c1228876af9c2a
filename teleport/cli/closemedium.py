"""`closemedium`: deletes an image."""

import click

from teleport.cli.grammar import Verb
from teleport.cli.mediums import named_medium, users_of
from teleport.errors import BusyError, UsageError
from teleport.machines import media


@click.command("closemedium", cls=Verb)
@click.argument("words", metavar="[disk|dvd|floppy] FILE", nargs=-1)
@click.option("--delete", is_flag=True, help="Delete the file, with the owner record beside it.")
def command(*, words: tuple[str, ...], delete: bool) -> None:
    """Delete an image that no VM has attached. (There is no list of known images from which it could merely be closed.)"""
    path = named_medium(words, "closemedium")
    media.inspect(path)
    if users := users_of(path):
        names = ", ".join(repr(each.name) for each in users)
        raise BusyError(f"medium {path}", f"is attached to {names}", "detach it by `storageattach … --medium none` first")
    if not delete:
        raise UsageError(
            "closemedium", "there is no list of known images here, so there is nothing to close", "--delete deletes it"
        )
    media.delete(path)
