"""Where a guest leaves: what the agent does with its VM before, during and behind a teleport (`teleport.runner.source`)."""

import asyncio
import contextlib
import uuid
from collections.abc import Coroutine
from typing import Any

from teleport.errors import BusyError, GuestLostError, HypervisorError, StateError, TeleportError
from teleport.model import Outcome, OutcomeKind, VmState
from teleport.runner.agent import Agent
from teleport.runner.source import SourceTeleport
from teleport.runner.vm import TeleportOrder


def begin_teleport(agent: Agent, order: TeleportOrder) -> SourceTeleport:
    """Starts one. Raises StateError when nothing runs, BusyError when one is under way."""
    vm = agent.running("teleport")
    if agent.teleport:
        raise BusyError(
            "teleport", f"VM {agent.definition.name!r} is already teleporting", "controlvm NAME teleport-cancel ends it"
        )
    agent.require_idle("teleport")
    before = agent.state.read()[0]
    if before not in (VmState.RUNNING, VmState.PAUSED):
        raise StateError("teleport", f"VM {agent.definition.name!r} must be Running or Paused", f"it is {before.value}")
    teleport = SourceTeleport(vm, order, epoch=uuid.uuid4().hex, emit=agent.say)
    agent.state.set(VmState.TELEPORTING, f"to {order.host}:{order.port}")
    follow(agent, teleport, teleport.run())
    return teleport


def follow(agent: Agent, teleport: SourceTeleport, work: Coroutine[Any, Any, Outcome]) -> None:
    """In the background, until nothing of it is left to decide: also beyond the moment when a person was told that it is in doubt."""
    agent.teleport = teleport
    agent.departing = agent.spawn(_follow(agent, teleport, work))


async def _follow(agent: Agent, teleport: SourceTeleport, work: Coroutine[Any, Any, Outcome]) -> None:
    early = asyncio.ensure_future(_show_early_word(agent, teleport))
    try:
        outcome = await work
    except GuestLostError as error:
        agent.say(str(error))
        agent.memory.forget()
        if agent.clean_shutdown:
            await agent.set_free()
            agent.end(VmState.POWEROFF, "the guest was shut down while it teleported")
        else:
            agent.end(VmState.ABORTED, str(error), code=error.exit_code)
        return
    except TeleportError as error:
        agent.say(f"not teleported: {error}")
        await _back(agent, error)
        return
    finally:
        early.cancel()
        agent.teleport = None
    if outcome.kind is OutcomeKind.MOVED:
        agent.memory.forget()
        agent.end(VmState.TELEPORTED, f"to {outcome.target_vm} at {outcome.target}")
    else:
        await _back(agent, None)


async def _back(agent: Agent, error: TeleportError | None) -> None:
    if agent.vm is None:
        return
    with contextlib.suppress(HypervisorError):
        agent.state.set(await agent.state_of(agent.vm.guest), f"not teleported: {error}" if error else "")
    agent.remember()


async def _show_early_word(agent: Agent, teleport: SourceTeleport) -> None:
    """What a person is told of a teleport that does not come to its end."""
    try:
        outcome = await asyncio.shield(teleport.outcome)
    except TeleportError as error:
        agent.state.set(VmState.TELEPORTING, str(error))  # overwritten at once where it is the end
        return
    if outcome.kind is OutcomeKind.IN_DOUBT:
        agent.state.set(VmState.IN_DOUBT, outcome.message)
        agent.say(f"in doubt: {outcome.message}")
