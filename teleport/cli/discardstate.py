"""`discardstate`: drops a saved state; the guest's disk stays as it is, as after a power cut."""

import subprocess
import sys

import click

from teleport.cli.grammar import Verb, vm_argument
from teleport.cli.home import store
from teleport.cli.live import live_state
from teleport.cli.running import forget_startup_error, startup_error
from teleport.errors import StateError


@click.command("discardstate", cls=Verb)
@vm_argument()
def command(*, vm: str) -> None:
    """Drop a VM's saved state."""
    home = store()
    found = home.find(vm)
    now = live_state(found.paths, found.name)
    if not now.at_rest:
        raise StateError("discardstate", f"the VM {found.name!r} is {now.state.value}")
    forget_startup_error(found.paths)
    words = [sys.executable, "-m", "teleport.runner.discard", "--home", str(home.home), "--folder", str(found.paths.folder)]
    if code := subprocess.run(words, stdin=subprocess.DEVNULL, check=False).returncode:
        raise startup_error(found.paths, found.name, code=code)
