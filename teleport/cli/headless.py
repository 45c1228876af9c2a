"""`teleport-headless --startvm NAME`: the runner in the foreground, as VBoxHeadless (and, before, VBoxVRDP) was."""

import shlex
import subprocess
import sys

import click

from teleport import __version__
from teleport.cli import run
from teleport.cli.grammar import Verb
from teleport.cli.home import store
from teleport.cli.life import lock_is_free
from teleport.cli.running import forget_startup_error, runner_command, startup_error
from teleport.errors import BusyError


@click.command("teleport-headless", cls=Verb)
@click.option("--startvm", "-s", "vm", required=True, metavar="NAME|UUID", help="The VM to run.")
@click.option(
    "--vrde",
    "-v",
    "--vrdp",
    "vrde",
    default="on",
    type=click.Choice(("on", "off", "config"), case_sensitive=False),
    help="The remote display: on (default), off, or as modifyvm --vrde says.",
)
@click.option("--take-over", is_flag=True, help="Run the guest here although another VM owns it (after a crash of its host).")
@click.option("--insecure", is_flag=True, help="Let the teleporter listen off loopback, in plain text.")
def headless(*, vm: str, vrde: str, take_over: bool, insecure: bool) -> int:
    """Run a VM in the foreground; Ctrl-C powers it off. Its log goes to the terminal."""
    click.echo(f"Teleport Headless Interface {__version__}\n(C) the Teleport authors, Apache-2.0\n")
    home = store()
    found = home.find(vm)
    if not lock_is_free(found.paths):
        raise BusyError(
            "teleport-headless", f"VM {found.name!r} runs already", f"teleport controlvm {shlex.quote(found.name)} poweroff"
        )
    forget_startup_error(found.paths)
    command = runner_command(found, home.home, insecure=insecure, take_over=take_over, foreground=True, vrde=vrde.lower())
    runner = subprocess.Popen(command)
    while True:
        try:
            code = runner.wait()
            break
        except KeyboardInterrupt:
            click.echo("powering off …")  # the terminal's Ctrl-C reached the runner too
    if (found.paths.folder / "startup-error.json").exists():
        raise startup_error(found.paths, found.name, code=code)
    return code


def main() -> None:
    """The program `teleport-headless`."""
    run(headless, sys.argv[1:], name="teleport-headless")
