"""`setvideomodehint WIDTH HEIGHT DEPTH [SCREEN]`: asks the guest for another size of its screen."""

import click

from teleport.cli.grammar import whole_number
from teleport.cli.running import connect
from teleport.errors import UsageError
from teleport.machines.store import StoredVm
from teleport.machines.vrde import MOST_MONITORS

_MOST_PIXELS = 16384
_DEPTHS = ("0", "32")  # 0: as it is


@click.command("setvideomodehint", help="Ask the guest for another size of its screen (--graphicscontroller virtio).")
@click.argument("width")
@click.argument("height")
@click.argument("depth", default="32")
@click.argument("screen", default="0")
@click.pass_obj
def setvideomodehint(vm: StoredVm, *, width: str, height: str, depth: str, screen: str) -> None:
    """The guest's driver decides whether it follows. `screen` is counted from 0, as VirtualBox does."""
    size = [
        whole_number(f"setvideomodehint {what}", value, 64, _MOST_PIXELS, unit="pixels")
        for what, value in (("WIDTH", width), ("HEIGHT", height))
    ]
    if depth not in _DEPTHS:
        raise UsageError("setvideomodehint", f"a guest's screen has 32 bits a pixel, not {depth}", "use 32")
    number = whole_number("setvideomodehint SCREEN", screen, 0, MOST_MONITORS - 1)
    with connect(vm) as control:
        control.execute("setvideomodehint", *map(str, size), str(number))
