"""`snapshot NAME take|restore|restorecurrent|delete|list`: while the VM is off."""

import shlex

import click

from teleport.cli.controlvm.group import VmGroup
from teleport.cli.grammar import Verb
from teleport.cli.home import store
from teleport.cli.live import live_state, require_at_rest
from teleport.cli.vminfo import snapshot_lines, snapshot_rows
from teleport.errors import StateError
from teleport.machines.snapshots import Snapshots, read_tree
from teleport.machines.store import StoredVm


def _opened(vm: StoredVm, what: str) -> Snapshots:
    """The VM's snapshots, to be changed. Raises StateError while it runs or is saved."""
    now = live_state(vm.paths, vm.name)
    if now.runs:
        raise StateError(
            f"snapshot {what}",
            f"the VM {vm.name!r} is {now.state.value}, and a snapshot is made of a VM that is off",
            f"`teleport controlvm {shlex.quote(vm.name)} poweroff`, or shut it down, first",
        )
    require_at_rest(vm.paths, vm.name, f"snapshot {what}")
    return Snapshots(store(), vm)


@click.command("take", cls=Verb, help="Give the VM as it is now a name.")
@click.argument("name")
@click.option("--description", default="", metavar="TEXT", help="A word about it.")
@click.pass_obj
def take(vm: StoredVm, *, name: str, description: str) -> None:
    """Settings and disks."""
    made = _opened(vm, "take").take(name, description)
    click.echo(f"Snapshot taken. UUID: {made.uuid}")


@click.command("restore", cls=Verb, help="Make the VM what it was; what it has become since is gone.")
@click.argument("name")
@click.pass_obj
def restore(vm: StoredVm, *, name: str) -> None:
    """Settings and disks."""
    done = _opened(vm, "restore").restore(name)
    click.echo(f"Restored snapshot {done.name!r} ({done.uuid})")


@click.command("restorecurrent", cls=Verb, help="... what it was at the snapshot that it goes on from.")
@click.pass_obj
def restorecurrent(vm: StoredVm) -> None:
    """Settings and disks."""
    snapshots = _opened(vm, "restorecurrent")
    done = snapshots.restore(snapshots.tree.current)
    click.echo(f"Restored snapshot {done.name!r} ({done.uuid})")


@click.command("delete", cls=Verb, help="Forget a snapshot; the VM stays as it is.")
@click.argument("name")
@click.pass_obj
def delete(vm: StoredVm, *, name: str) -> None:
    """What its disks hold goes into those that are based on it."""
    done = _opened(vm, "delete").delete(name)
    click.echo(f"Deleted snapshot {done.name!r} ({done.uuid})")


@click.command("list", cls=Verb, help="Show the snapshots; the VM goes on from the one with the star.")
@click.option("--machinereadable", is_flag=True, help="One KEY=VALUE a line, with VirtualBox's key names.")
@click.option("--details", is_flag=True, expose_value=False, help="Everything (always shown).")
@click.pass_obj
def show(vm: StoredVm, *, machinereadable: bool) -> None:
    """Finishes a command that was cut off first, if the VM is off."""
    tree = Snapshots(store(), vm).tree if live_state(vm.paths, vm.name).at_rest else read_tree(vm.paths)
    if not tree.snapshots:
        click.echo("This machine does not have any snapshots")
        return
    for line in (each.machine() for each in snapshot_rows(tree)) if machinereadable else snapshot_lines(tree):
        click.echo(line)


command = VmGroup(
    "snapshot", commands=(take, restore, restorecurrent, delete, show), help="Take, restore, delete and list snapshots of a VM."
)
