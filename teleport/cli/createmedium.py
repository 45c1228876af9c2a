"""`createmedium disk`, `createhd`: a new disk image."""

from types import MappingProxyType
from typing import Any, ClassVar

import click

from teleport.cli.grammar import Verb, file_path, whole_number
from teleport.cli.mediums import VARIANTS, format_of, variant_of, warn_of_format
from teleport.errors import UsageError
from teleport.machines import media

_MOST_MB = media.MOST_BYTES >> 20


class CreateMedium(Verb):
    """`createmedium`, with the reasons for what it doesn't take."""

    refused: ClassVar = MappingProxyType(
        {
            "diffparent": "a disk on top of another one cannot teleport",
            "property": "images have no properties here",
        }
    )


@click.command("createmedium", cls=CreateMedium)
@click.argument("kind", metavar="[disk]", default="disk")
@click.option("--filename", metavar="FILE", required=True, help="The image's file; its suffix says nothing about the format.")
@click.option("--size", metavar="MB", help="The disk's size in megabytes.")
@click.option("--sizebyte", metavar="BYTES", help="The disk's size in bytes.")
@click.option(
    "--format", "word", metavar="|".join(media.FORMATS), default="QCOW2", help="The image's format: QCOW2 if not given."
)
@click.option("--variant", metavar="|".join(VARIANTS), default="Standard", help="Fixed takes all its space at once.")
def command(*, kind: str, word: str, **given: Any) -> None:
    """Make a disk image. It is QCOW2 whatever its suffix, because QEMU cannot teleport VDI and VMDK."""
    if kind.lower() != "disk":
        raise UsageError("createmedium", f"{kind!r} images are not made here", "use disk")
    if (given["size"] is None) == (given["sizebyte"] is None):
        raise UsageError("createmedium", "give the disk's size, once", "e.g. --size 10000 for 10 GB")
    if given["size"] is not None:
        size_bytes = whole_number("--size", given["size"], 1, _MOST_MB, unit="MB") << 20
    else:
        size_bytes = whole_number("--sizebyte", given["sizebyte"], media.LEAST_BYTES, media.MOST_BYTES, unit="bytes")
    path = file_path("--filename", given["filename"])
    info = media.create_disk(path, size_bytes=size_bytes, image_format=format_of(word), variant=variant_of(given["variant"]))
    click.echo("0%...10%...20%...30%...40%...50%...60%...70%...80%...90%...100%")
    suffix = path.suffix.removeprefix(".").lower()
    aside = (
        f", not {suffix.upper()}, whatever its name"
        if suffix in ("vdi", "vmdk", "vhd", "vhdx") and info.format == "qcow2"
        else ""
    )
    click.echo(f"Medium created: '{path}', {info.virtual_bytes >> 20} MB, format {media.format_word(info.format)}{aside}.")
    warn_of_format(path, info.format)
