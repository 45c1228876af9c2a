"""How an agent begins: it takes up what its predecessor left, starts the machine, goes on from its saved state, or waits for a guest."""

import asyncio
import shlex
import uuid

from teleport.errors import StateError, TeleportError
from teleport.host.guest import QmpGuest
from teleport.machines import saved_state
from teleport.machines.arguments.storage import ide_switches
from teleport.machines.saved_state import SavedFacts
from teleport.machines.snapshots import require_settled
from teleport.model import VmState
from teleport.runner.agent import MAIN, Agent
from teleport.runner.entrance import wait_for_guest
from teleport.runner.facts import require_media
from teleport.runner.forwards import open_forwarded_ports
from teleport.runner.launch import Launched
from teleport.runner.ownership import set_free, take_for_start
from teleport.runner.saving import check_fits, claim, go_on, load
from teleport.runner.successor import Successor


async def begin(agent: Agent) -> None:
    """The agent's first work; it returns when the guest runs, the port is open, or the VM is over. Raises what kept it from that."""
    if not await Successor(agent).take_up():
        await _start(agent)


async def _start(agent: Agent) -> None:
    await asyncio.to_thread(require_settled, agent.options.paths)
    saved = await asyncio.to_thread(saved_state.read, agent.options.paths)
    if agent.definition.teleporter.enabled:
        if saved:
            raise StateError(
                "startvm",
                f"VM {agent.definition.name!r} has a saved state and cannot take in another guest",
                f"teleport discardstate {shlex.quote(agent.definition.name)} drops it, "
                f"modifyvm {shlex.quote(agent.definition.name)} --teleporter off goes on from it",
            )
        await wait_for_guest(agent)
        return
    if saved:
        agent.state.set(VmState.STARTING)
        await _restore(agent, saved)
        return
    await asyncio.to_thread(require_media, agent.definition)
    await asyncio.to_thread(agent.launcher.require_tpm)
    epoch = uuid.uuid4().hex
    me = agent.launcher.owner(epoch)
    generation = await take_for_start(agent.record, me, take_over=agent.options.take_over)
    agent.state.set(VmState.STARTING)  # not before: a start that is refused leaves the VM as it was
    launched: Launched | None = None
    guest: QmpGuest | None = None
    try:
        launched = await agent.launcher.start(label=MAIN)
        guest = await agent.launcher.connect(launched)
        for line in ide_switches(agent.definition):
            await guest.hmp(line)
        agent.runs(launched, guest, generation=generation, identity=agent.launcher.own_identity)
        agent.remember(doing="starting")
        await guest.cont()
        agent.remember()
        await agent.display.begin(agent.launcher.screens(launched))
    except TeleportError:
        await agent.drop(launched, guest)
        await set_free(agent.record, generation)
        agent.state.set(VmState.POWEROFF)
        raise
    agent.set_state(VmState.RUNNING)
    await _sweep_saved(agent)


async def _sweep_saved(agent: Agent) -> None:
    """What is left of a saved state whose guest went on. The guest runs: an error only leaves it there for the next sweep."""
    try:
        await asyncio.to_thread(saved_state.drop_unfinished, agent.options.paths)
    except TeleportError as error:
        agent.say(f"{error}")


async def _restore(agent: Agent, saved: SavedFacts) -> None:
    """Goes on from the saved state. Raises TeleportError; the state is kept then."""
    me = agent.launcher.owner(saved.epoch)
    paths = agent.options.paths
    launched: Launched | None = None
    guest: QmpGuest | None = None
    try:
        await check_fits(agent.record, saved, me, take_over=agent.options.take_over)
        launched = await agent.launcher.start(label=MAIN, identity=saved.identity, incoming=True)
        guest = await agent.launcher.connect(launched)
        await load(guest, paths)
        generation = await claim(agent.record, saved, me)
        await asyncio.to_thread(agent.launcher.adopt_tpm, launched)
        agent.runs(launched, guest, generation=generation, identity=saved.identity)
        agent.spawn(open_forwarded_ports(guest, lambda: agent.definition, agent.say))
        agent.remember(doing="restoring", runs=not saved.was_paused)
        await go_on(guest, paths, saved)
        await agent.display.begin(agent.launcher.screens(launched))
    except TeleportError:
        await agent.drop(launched, guest)
        agent.state.set(VmState.SAVED if paths.saved.is_dir() else VmState.ABORTED)
        raise
    agent.remember()
    agent.set_state(VmState.PAUSED if saved.was_paused else VmState.RUNNING, "from its saved state")
    await _sweep_saved(agent)
