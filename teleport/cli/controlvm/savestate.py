"""`controlvm NAME savestate`: the guest goes into a file of the VM's folder, and its QEMU ends."""

import click

from teleport.cli.live import live_state
from teleport.cli.running import connect, wait_over
from teleport.errors import StateError
from teleport.machines.store import StoredVm
from teleport.model import VmState

_GOES_ON = "saving"


@click.command("savestate", help="Save the guest into a file and end it; startvm goes on from there.")
@click.pass_obj
def savestate(vm: StoredVm) -> None:
    """Asks again and again: a large guest on a slow disk takes minutes."""
    with connect(vm) as control:
        try:
            answer = control.execute("savestate")
            while answer == _GOES_ON:
                answer = control.execute("savestate", "wait")
        except StateError:
            # The runner may leave before its last answer is read; what it left is the truth.
            if not vm.paths.saved.is_dir():
                raise
    wait_over(vm)
    if live_state(vm.paths, vm.name).state is not VmState.SAVED:
        raise StateError("savestate", f"VM {vm.name!r} ended without a saved state", f"see {vm.paths.log}")
