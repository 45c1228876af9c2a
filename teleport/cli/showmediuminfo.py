"""`showmediuminfo`: what an image is."""

import json

import click

from teleport.cli.grammar import Verb
from teleport.cli.mediums import named_medium, users_of
from teleport.machines import media


@click.command("showmediuminfo", cls=Verb)
@click.argument("words", metavar="[disk|dvd|floppy] FILE", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def command(*, words: tuple[str, ...], as_json: bool) -> None:
    """Show what an image is, and who uses it."""
    path = named_medium(words, "showmediuminfo")
    info = media.inspect(path)
    users = users_of(path)
    if as_json:
        fact = {
            "location": str(path),
            "format": media.format_word(info.format),
            "capacity_bytes": info.virtual_bytes,
            "size_on_disk_bytes": info.actual_bytes,
            "backing": info.backing,
            "snapshots": list(info.snapshots),
            "can_teleport": info.can_teleport,
            "used_by": [{"name": each.name, "uuid": each.uuid} for each in users],
        }
        click.echo(json.dumps(fact, ensure_ascii=False))
        return
    rows = [
        ("State", "created"),
        ("Type", f"normal ({'differencing' if info.backing else 'base'})"),
        ("Location", str(path)),
        ("Storage format", media.format_word(info.format)),
        ("Capacity", f"{info.virtual_bytes >> 20} MBytes"),
        ("Size on disk", f"{info.actual_bytes >> 20} MBytes"),
        ("Encryption", "enabled" if info.encrypted else "disabled"),
        ("Can teleport", "yes" if info.can_teleport else "no (QEMU cannot migrate this format)"),
    ]
    rows += [("Backing file", info.backing)] if info.backing else []
    rows += [("Snapshots", ", ".join(info.snapshots))] if info.snapshots else []
    rows += [("In use by VMs", f"{each.name} (UUID: {each.uuid})") for each in users]
    for label, value in rows:
        click.echo(f"{label + ':':<16}{value}")
