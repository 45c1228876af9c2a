"""`screenshotpng FILE`: the guest's screen as a picture."""

from pathlib import Path

import click

from teleport.cli.running import connect
from teleport.machines.store import StoredVm


@click.command("screenshotpng", help="Write the guest's screen to a PNG file.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.pass_obj
def screenshot(vm: StoredVm, file: Path) -> None:
    """The guest's screen; `file` is made or replaced."""
    with connect(vm) as control:
        control.execute("screenshotpng", str(file.absolute()))
