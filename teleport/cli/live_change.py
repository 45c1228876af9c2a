"""A running VM gets another definition, and its machine with it, from the command line's side (`teleport.runner.live`)."""

from collections.abc import Callable

from teleport.cli.running import connect
from teleport.machines.definition import Definition
from teleport.machines.store import StoredVm
from teleport.machines.text import render_definition


def change_live(vm: StoredVm, verb: str, change: Callable[[Definition], Definition], *, force: bool = False) -> None:
    """Machine and definition become what `change` makes of the definition, or both stay as they are and what kept them is raised."""
    wanted = change(vm.definition)
    with connect(vm) as control:
        control.execute(
            "change",
            verb,
            render_definition(vm.definition).decode(),
            render_definition(wanted).decode(),
            "force" if force else "",
        )
