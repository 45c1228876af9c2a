"""`clonemedium`: copies a disk image, also into another format."""

import click

from teleport.cli.grammar import Verb, file_path, one_of
from teleport.cli.mediums import KINDS, VARIANTS, format_of, variant_of, warn_of_format
from teleport.errors import UsageError
from teleport.machines import media


@click.command("clonemedium", cls=Verb)
@click.argument("words", metavar="[disk] SOURCE TARGET", nargs=-1)
@click.option(
    "--format", "word", metavar="|".join(media.FORMATS), default="QCOW2", help="The copy's format: QCOW2 if not given."
)
@click.option("--variant", metavar="|".join(VARIANTS), default="Standard", help="Fixed takes all its space at once.")
def command(*, words: tuple[str, ...], word: str, variant: str) -> None:
    """Copy a disk image into a new file. A VM that runs must not use it."""
    if len(words) == 3:
        one_of("clonemedium", words[0], KINDS)
        words = words[1:]
    if len(words) != 2:
        raise UsageError("clonemedium", "name the image and the new file", "`teleport clonemedium disk SOURCE TARGET`")
    copy("clonemedium", *words, word=word, variant=variant)


def copy(verb: str, source: str, target: str, *, word: str, variant: str, source_format: str = "") -> None:
    """Copies an image into a new file and says so. Raises UsageError, StorageError."""
    old, new = (file_path(verb, each) for each in (source, target))
    info = media.clone(old, new, image_format=format_of(word), variant=variant_of(variant), source_format=source_format)
    click.echo("0%...10%...20%...30%...40%...50%...60%...70%...80%...90%...100%")
    click.echo(f"Clone medium created in format '{media.format_word(info.format)}': '{new}'.")
    warn_of_format(new, info.format)
