"""The remote display from the command line's side: telling a running VM's about other settings, and where viewers find it."""

import contextlib
import json
import shlex
import shutil
import socket
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TypeVar

import click

from teleport.cli.home import store
from teleport.cli.life import Life
from teleport.cli.live import LiveState, live_state
from teleport.cli.running import connect
from teleport.errors import StateError, UnreachableError
from teleport.machines import display_note
from teleport.machines.definition import Definition
from teleport.machines.preferences import with_defaults
from teleport.machines.store import StoredVm, VmPaths
from teleport.machines.vrde import VrdeSettings, to_dict
from teleport.ports import DisplayFront

T = TypeVar("T")
_EVERYWHERE = ("", "::", "0.0.0.0")


def tell_display(vm: StoredVm, wanted: Definition, *, again: bool = False) -> None:
    """Gives the display's settings of `wanted` to the VM's runner, if one lives, or to the front that stayed when the guest left; with
    `again` also those that the runner has (the port may be free by now). Raises what keeps the display from them; then everything is as
    it was."""
    if wanted.vrde == vm.definition.vrde and not again:
        return
    if live_state(vm.paths, vm.name).life is Life.NOTHING:
        if not wanted.vrde.enabled:
            end_left_display(vm.paths, vm.name)
        else:
            _change_left_display(vm.paths, wanted.vrde)
        return
    with connect(vm) as control:
        answer = json.loads(control.execute("vrde", json.dumps(to_dict(wanted.vrde))))
    say_where(answer, port_too=again or _place(wanted.vrde) != _place(vm.definition.vrde))


def _place(settings: VrdeSettings) -> tuple[bool, str, str]:
    return settings.enabled, settings.ports, settings.address


def end_left_display(paths: VmPaths, name: str) -> bool:
    """Ends the front that stayed for the viewers of a guest that has left this VM, and says so; False when there is none."""
    folder = display_note.read(paths)
    if folder is None:
        return False

    async def end(front: DisplayFront) -> int:
        viewers = (await front.status()).viewers
        await front.stop("it was switched off after its guest had left; viewers connect where the guest is")
        return viewers

    try:
        viewers = _with_front(folder, end)
    except UnreachableError:
        return False
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        display_note.forget(paths)
    click.echo(f"The display of the guest that left VM {name!r} has ended here; viewers that were connected: {viewers}.")
    return True


def _change_left_display(paths: VmPaths, settings: VrdeSettings) -> None:
    """Gives other settings to the front that stayed for the viewers of a guest that has left, if there is one. Raises what it refuses."""
    folder = display_note.read(paths)
    if folder is None:
        return
    with contextlib.suppress(UnreachableError):
        _with_front(folder, lambda front: front.update(to_dict(with_defaults(settings, store().home))))


def _with_front(folder: Path, work: Callable[[DisplayFront], Coroutine[object, object, T]]) -> T:
    import asyncio  # noqa: PLC0415 - both cost time that other commands need not spend

    from teleport.vrde.fronts import FRONTS  # noqa: PLC0415 - asyncio and more, for these verbs only

    return asyncio.run(work(FRONTS.at(str(folder))))


def say_where(details: Mapping[str, str | int], *, port_too: bool = True) -> None:
    """VirtualBox's line about the port, or why there is none; and what the display cannot do."""
    port = int(details.get("vrdeport", 0))
    if port > 0:
        if port_too:
            click.echo(f"VRDE server is listening on port {port}.")
        if limit := details.get("vrdelimit"):
            click.echo(f"teleport: warning: the remote display: {limit}", err=True)
    elif problem := details.get("vrdeproblem"):
        click.echo(f"teleport: warning: no remote display: {problem}", err=True)


def viewers_address(vm: StoredVm, live: LiveState) -> tuple[str, int]:
    """Host and port for a viewer. Raises StateError when the display is off."""
    port = int(live.details.get("vrdeport", 0))
    if port <= 0:
        why = str(live.details.get("vrdeproblem", "")) or f"the remote display of VM {vm.name!r} is off"
        raise StateError("console", why, f"teleport controlvm {shlex.quote(vm.name)} vrde on")
    address = str(live.details.get("vrdeaddress", ""))
    return (socket.gethostname() if address in _EVERYWHERE else address), port
