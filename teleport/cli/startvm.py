"""`startvm`: the guest runs, or (with the teleporter on) waits for one, when the command returns."""

import click

from teleport.cli.display import say_where
from teleport.cli.grammar import Verb, one_of, vm_argument
from teleport.cli.home import store
from teleport.cli.live import require_at_rest
from teleport.cli.running import connect, start_in_background
from teleport.errors import UsageError
from teleport.machines import tpm_state

_TYPES = ("headless", "vrdp")  # the same in VirtualBox, too
_WINDOWS = ("gui", "sdl", "separate")


@click.command("startvm", cls=Verb)
@vm_argument()
@click.option("--type", "kind", default="headless", metavar="headless", help="There is one type here: in the background.")
@click.option("--take-over", is_flag=True, help="Run the guest here although another VM owns it (after a crash of its host).")
@click.option(
    "--new-tpm", is_flag=True, help="Give the VM a new, empty TPM: its own went with its guest, and is not waited for."
)
@click.option("--insecure", is_flag=True, help="Let the teleporter listen off loopback, in plain text.")
def command(*, vm: str, kind: str, take_over: bool, new_tpm: bool, insecure: bool) -> None:
    """Start a VM, or let it wait for a teleport."""
    if kind.lower() in _WINDOWS:
        raise UsageError(f"--type {kind}", "VMs have no window here", "leave --type out; `teleport console` shows the screen")
    one_of("--type", kind, _TYPES)
    home = store()
    found = home.find(vm)
    if new_tpm:
        require_at_rest(found.paths, found.name, "startvm --new-tpm")
        tpm_state.renew(found.paths.folder, name=found.name)
    is_new = start_in_background(found, home.home, insecure=insecure, take_over=take_over)
    with connect(found) as control:
        status = control.status()
    if status.state == "teleportingin":
        click.echo(f"VM {found.name!r} waits for a teleport at port {status.teleporter_port}.")
    else:
        done = "has been successfully started" if is_new else "went on without its runner, and has a new one"
        click.echo(f"VM {found.name!r} {done}.")
        say_where(status.properties)
