"""`convertfromraw`: a disk image of a file that holds a disk's bytes and nothing else."""

import click

from teleport.cli.clonemedium import copy
from teleport.cli.grammar import Verb
from teleport.cli.mediums import VARIANTS
from teleport.machines import media


@click.command("convertfromraw", cls=Verb)
@click.argument("source", metavar="FILE")
@click.argument("target", metavar="NEW")
@click.option(
    "--format", "word", metavar="|".join(media.FORMATS), default="QCOW2", help="The new image's format: QCOW2 if not given."
)
@click.option("--variant", metavar="|".join(VARIANTS), default="Standard", help="Fixed takes all its space at once.")
def command(*, source: str, target: str, word: str, variant: str) -> None:
    """Make a disk image of a raw one, which is taken as raw whatever it looks like."""
    copy("convertfromraw", source, target, word=word, variant=variant, source_format="raw")
