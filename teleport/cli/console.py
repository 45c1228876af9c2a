"""`console NAME`: the guest's screen in a browser, or a file for mstsc."""

import json
import webbrowser
from pathlib import Path

import click

from teleport.cli.display import viewers_address
from teleport.cli.grammar import Verb, number, vm_argument
from teleport.cli.home import store
from teleport.cli.live import live_state
from teleport.cli.running import connect
from teleport.errors import StorageError
from teleport.machines.vrde import MOST_MONITORS


@click.command("console", cls=Verb)
@vm_argument()
@click.option("--open", "opened", is_flag=True, help="Open the page in this host's browser.")
@click.option("--rdp", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write a .rdp file instead.")
@click.option("--user", default="", metavar="NAME", help="The user name in that file.")
@click.option(
    "--screen", default="1", type=number("--screen", 1, MOST_MONITORS), metavar="N", help="Which of the guest's screens (1)."
)
@click.option("--address", default="localhost", metavar="ADDRESS", help="Where the page is served (localhost).")
@click.option("--port", default="0", type=number("--port", 0, 65535), metavar="PORT", help="At which port (0: a free one).")
def command(*, vm: str, opened: bool, rdp: Path | None, user: str, screen: int, address: str, port: int) -> None:
    """Show a VM's screen: prints a page's address, good for one browser."""
    found = store().find(vm)
    if rdp:
        from teleport.vrde.rdp.file import rdp_file  # noqa: PLC0415 - only for a file, and every start of the program counts

        host, viewers_port = viewers_address(found, live_state(found.paths, found.name))
        text = rdp_file(host=host, port=viewers_port, user=user, screen=screen)
        try:
            rdp.write_text(text, newline="")
        except OSError as error:
            raise StorageError(f"--rdp {rdp}", f"cannot be written: {error.strerror}") from error
        click.echo(f"{rdp} opens VM {found.name!r} at {host}:{viewers_port}.")
        return
    with connect(found) as control:
        answer = json.loads(control.execute("console", address, str(port), str(screen)))
    click.echo(answer["url"])
    click.echo(f"Its certificate's SHA-256 fingerprint: {answer['fingerprint']}", err=True)
    if opened and not webbrowser.open(answer["url"]):
        click.echo("teleport: warning: no browser was found here; open the page yourself", err=True)
