"""How an agent leaves whose guardian is gone: QEMU stays, for the guardian that the next command on this VM brings.

What is half done must not wait for that command, which may come in a year: a guest that is paused because it teleports or is saved,
and a QEMU that keeps the disks of somebody else's guest open. So a teleport under way is brought to its end first:

- at the source it is called off, and the guest runs on here; behind COMMIT the target and the record decide, as always;
- at the target a guest that was not claimed yet goes back to the source; one that was claimed runs here, without a runner.

A new guardian that comes meanwhile ends this agent, and its own takes up the same journal: as after any kill -9.
"""

import asyncio
import logging

from teleport.errors import StateError
from teleport.runner.agent import Agent

log = logging.getLogger(__name__)

_LEAVING_SECONDS = 45.0  # longer than it takes to call a teleport doubtful, and to say so
_WORD_SECONDS = 1.5  # the other side, which asks twice a second, hears what became of the guest
_WHY = "the runner's guardian was killed"


async def leave(agent: Agent) -> None:
    """Returns when this agent may exit: at once, or when what it has begun is done, within a bounded time."""
    log.error("the guardian is gone; this agent leaves, QEMU runs on")
    ends: list[asyncio.Future[None]] = []
    if agent.waiting and agent.waiting.busy:
        ends.append(asyncio.ensure_future(agent.waiting.leave(_WHY)))
    if agent.teleport and agent.departing:
        agent.teleport.stop(
            StateError("teleport", _WHY, "the guest runs on here; the next command on this VM brings it a new runner")
        )
        ends.append(agent.departing)
    if agent.saving and not agent.saving.done():
        ends.append(agent.saving)
    if ends:
        await asyncio.wait(ends, timeout=_LEAVING_SECONDS)
        await asyncio.sleep(_WORD_SECONDS)
