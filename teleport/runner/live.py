"""Changes to a VM that runs: the machine and its definition go together.

The command line sends the definition that it saw and the one that it wants. Under the definition's lock the machine is changed, then
the file is written; whatever fails, the machine is made again what the file says. A note in the runtime folder names what is being
changed, for a successor of an agent that dies in the middle: it makes the machine what the file says, too.
"""

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from teleport.errors import BusyError, HypervisorError, StateError, TeleportError
from teleport.host.faults import async_fault_point
from teleport.host.live_changes import has_medium, insert, node_in, on_hub, plug, set_forwards, set_link
from teleport.machines.definition import Definition
from teleport.machines.live import DrivePlace, LiveChange, live_change
from teleport.machines.store import Edit, Store, StoredVm
from teleport.machines.text import parse_definition
from teleport.model import VmState
from teleport.runner.agent import Agent
from teleport.runner.vm import RunningVm

_ONLY_THEN = (VmState.RUNNING, VmState.PAUSED)


SENT = ("verb", "definition as seen", "definition wanted", "force or nothing")


@dataclass(frozen=True)
class Request:
    """One change: the verb, the definition that was seen, the one that is wanted; `force` takes a medium that the guest uses."""

    what: str
    before: Definition
    after: Definition
    force: bool


class LiveChanges:
    """One agent's."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._note = agent.runtime / "live-change.json"

    async def change(self, wanted: Request) -> None:
        """Makes machine and definition what is wanted, if the definition is still `before`; when it fails, both are as they were.

        Raises StateError for what cannot change in a VM that runs, BusyError during a teleport, HypervisorError, StorageError.
        """
        agent, what = self._agent, wanted.what
        vm = agent.running(what)
        agent.require_idle(what)
        state = agent.state.read()[0]
        if state not in _ONLY_THEN:
            raise StateError(what, f"VM {vm.definition.name!r} must be Running or Paused", f"it is {state.value}")
        agent.changing = what
        try:
            store = Store(agent.options.home)
            with contextlib.ExitStack() as held:
                # in a thread: another command may hold the lock for a while
                edit = await asyncio.to_thread(
                    held.enter_context, store.editing(StoredVm(definition=vm.definition, paths=vm.paths))
                )
                if edit.definition != wanted.before:
                    raise BusyError(what, "another command has just changed the VM's definition", "try again")
                await self._apply(vm, edit, wanted.after, force=wanted.force)
        finally:
            agent.changing = ""

    async def _apply(self, vm: RunningVm, edit: Edit, after: Definition, *, force: bool) -> None:
        before = edit.definition
        wanted = live_change(before, after)
        for number in wanted.plugs:
            if not await on_hub(vm.guest, number):
                raise StateError(
                    f"nic{number}",
                    "a virtio adapter that was started on a bridge stays there: "
                    "it agreed with the guest on what the bridge's tap does for it",
                    "change it while the VM is off: `teleport controlvm NAME poweroff` first",
                )
        nodes = {place: await node_in(vm.guest, before, place) for place in wanted.drives}
        self._note.write_text(json.dumps({"qemu": _identity(vm), "change": asdict(wanted)}))
        try:
            await self._make(vm, wanted, old=before, new=after, force=force)
            await async_fault_point("live.save")
            edit.save(after)
        except BaseException as error:
            await self._undo(vm, wanted, after, nodes, error)
            raise
        self._note.unlink()
        self._agent.changed(after)

    @staticmethod
    async def _make(vm: RunningVm, change: LiveChange, *, old: Definition, new: Definition, force: bool) -> None:
        """The machine's drives and adapters that `change` names become those of `new`, from those of `old`."""
        for place in change.drives:
            await insert(vm.guest, new, place, force=force)
        for number in change.plugs:
            await plug(vm.guest, new, number)
        for number in change.cables:
            await set_forwards(vm.guest, old.nic(number), new.nic(number))
            await set_link(vm.guest, new.nic(number))

    async def _undo(
        self, vm: RunningVm, wanted: LiveChange, tried: Definition, nodes: Mapping[DrivePlace, str], error: BaseException
    ) -> None:
        """The machine as the file says: as before, or as wanted when only the folder of a file that is there could not be synced."""
        try:
            definition = self._on_disk(vm)
            if definition != tried:
                changed = [place for place in wanted.drives if await node_in(vm.guest, definition, place) != nodes[place]]
                await self._make(vm, replace(wanted, drives=tuple(changed)), old=tried, new=definition, force=True)
        except TeleportError as second:
            self._agent.say(f"not undone: {second}")
            raise HypervisorError(
                str(error),
                f"and the machine could not be made what it was: {second}",
                "the same change, tried again, or a new start makes it what the definition says",
            ) from error
        self._note.unlink(missing_ok=True)
        self._agent.changed(definition)

    def _on_disk(self, vm: RunningVm) -> Definition:
        path = vm.paths.definition
        return parse_definition(path.read_bytes(), path)

    async def settle(self, vm: RunningVm) -> None:
        """Finishes, or undoes, what a predecessor was at. The guest runs: what cannot be done is said."""
        try:
            note = json.loads(self._note.read_text())
        except (OSError, ValueError):
            return  # none, or one that was cut off before anything was changed
        if note["qemu"] != _identity(vm):
            return  # of a machine that ended meanwhile
        wanted = _change(note["change"])
        try:
            definition = self._on_disk(vm)
            for place in wanted.drives:
                if not await has_medium(vm.guest, definition, place):
                    await insert(vm.guest, definition, place, force=True)
            for number in (*wanted.plugs, *wanted.cables):
                if await on_hub(vm.guest, number):
                    await plug(vm.guest, definition, number)
                else:
                    await set_link(vm.guest, definition.nic(number))
            self._agent.say("a change that was cut off was settled: the machine is what its definition says")
            self._note.unlink()
        except TeleportError as error:
            self._agent.say(f"a change that was cut off is not settled: {error}")


def _identity(vm: RunningVm) -> list[int]:
    return [vm.guest.process.pid, vm.guest.process.start_ticks]


def _change(known: Mapping[str, Any]) -> LiveChange:
    return LiveChange(
        plugs=tuple(known["plugs"]),
        cables=tuple(known["cables"]),
        drives=tuple(DrivePlace(**each) for each in known["drives"]),
    )


def parsed(arguments: Sequence[str], path: Path) -> Request:
    """What the command line sent, in the order of `SENT`."""
    what, before, after, force = arguments
    return Request(what, parse_definition(before.encode(), path), parse_definition(after.encode(), path), force == "force")
