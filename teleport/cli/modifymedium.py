"""`modifymedium`: resizes or converts a disk image."""

from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import click

from teleport.cli.grammar import Verb, whole_number
from teleport.cli.home import store
from teleport.cli.live import require_at_rest
from teleport.cli.mediums import format_of, is_same_file, named_medium, users_of, warn_of_format
from teleport.errors import UsageError
from teleport.machines import media
from teleport.machines.definition import Definition
from teleport.machines.options.option import checked, draft_of


class ModifyMedium(Verb):
    """`modifymedium`, with the reasons for what it doesn't take."""

    refused: ClassVar = MappingProxyType(
        {
            "compact": "an image is not made smaller in its place: clonemedium makes a copy without what is empty",
            **dict.fromkeys(("type", "autoreset"), "every disk is a normal one here: its writes stay"),
            **dict.fromkeys(("property", "description", "setlocation"), "an image is its file, and nothing is kept beside it"),
            "move": "an image is its file: move that, and storageattach it from where it is then",
        }
    )


@click.command("modifymedium", cls=ModifyMedium)
@click.argument("words", metavar="[disk] FILE", nargs=-1)
@click.option("--resize", metavar="MB", help="Make the disk that big, in megabytes.")
@click.option("--resizebyte", metavar="BYTES", help="Make the disk that big, in bytes.")
@click.option("--format", "word", metavar="|".join(media.FORMATS), help="Convert the image in its place.")
def command(*, words: tuple[str, ...], word: str | None, **given: Any) -> None:
    """Resize or convert a disk image that no running VM uses."""
    path = named_medium(words, "modifymedium")
    if word is None and given["resize"] is None and given["resizebyte"] is None:
        raise UsageError("modifymedium", "nothing to do", "give --resize or --format")
    users = users_of(path)
    for vm in users:
        require_at_rest(vm.paths, vm.name, f"modifymedium {path}")
    if word is not None:

        def note(image_format: str) -> None:  # the definitions name the format, so that it is never guessed
            for vm in users:
                store().edit(vm, lambda definition: _with_format(definition, path, image_format))

        info = media.convert(path, image_format=format_of(word), note=note)
        click.echo(f"Medium '{path}' is {media.format_word(info.format)} now.")
        warn_of_format(path, info.format)
    if given["resize"] is not None or given["resizebyte"] is not None:
        if given["resize"] is not None:
            size_bytes = whole_number("--resize", given["resize"], 1, media.MOST_BYTES >> 20, unit="MB") << 20
        else:
            size_bytes = whole_number("--resizebyte", given["resizebyte"], media.LEAST_BYTES, media.MOST_BYTES, unit="bytes")
        info = media.resize(path, size_bytes=size_bytes)
        click.echo(f"Medium '{path}' has {info.virtual_bytes >> 20} MB now.")


def _with_format(definition: Definition, path: Path, image_format: str) -> Definition:
    draft = draft_of(definition)
    for controller in draft["controllers"]:
        for each in controller["attachments"]:
            if each["type"] == "hdd" and is_same_file(each["medium"], path):
                each["format"] = image_format
    return checked(draft, "modifymedium")
