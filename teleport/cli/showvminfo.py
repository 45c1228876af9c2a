"""`showvminfo`: a VM's settings and state."""

import json

import click

from teleport.cli.grammar import Verb, vm_argument
from teleport.cli.home import store
from teleport.cli.live import live_state
from teleport.cli.vminfo import rows


@click.command("showvminfo", cls=Verb)
@vm_argument()
@click.option("--details", is_flag=True, expose_value=False, help="Everything (always shown).")
@click.option("--machinereadable", is_flag=True, help="One KEY=VALUE a line, with VirtualBox's key names.")
@click.option("--json", "as_json", is_flag=True, help="The same as one JSON object.")
def command(*, vm: str, machinereadable: bool, as_json: bool) -> None:
    """Show a VM's settings and state."""
    found = store().find(vm)
    shown = list(rows(found, live_state(found.paths)))
    if as_json:
        click.echo(json.dumps({each.key: each.value for each in shown if each.key}, ensure_ascii=False))
        return
    for each in shown:
        if machinereadable and each.key:
            click.echo(each.machine())
        elif not machinereadable and each.label and each.value:
            click.echo(each.human())
