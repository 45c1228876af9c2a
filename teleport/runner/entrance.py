"""Where a guest comes in: the teleporter's port of a VM that waits, and what the agent does with the guest that arrived."""

import asyncio
import contextlib

from teleport.errors import BusyError
from teleport.machines.text import parse_definition
from teleport.model import Outcome, OutcomeKind, VmState
from teleport.runner.agent import Agent
from teleport.runner.arrival import Arrived
from teleport.runner.forwards import open_forwarded_ports
from teleport.runner.ownership import Record, record_at
from teleport.runner.target import WaitingTarget
from teleport.wire.transfer_server import TransferServer

_LINGER_SECONDS = 60.0  # how long a port stays open for a source that has not closed the session


async def wait_for_guest(agent: Agent) -> None:
    """Opens the teleporter's port. Raises BusyError, UsageError."""
    agent.waiting = WaitingTarget(
        agent.launcher,
        agent.display,
        renew=lambda: _renew(agent),
        arrived=lambda arrived: _on_arrival(agent, arrived),
        changed=agent.say,
        addresses=lambda: agent.server.addresses if agent.server else (),
    )
    agent.server = await _open_port(agent, agent.waiting)
    agent.spawn(agent.waiting.watch_silence())
    agent.state.set(VmState.TELEPORTING_IN, f"waits at port {agent.server.port}", teleporterport=agent.server.port)
    agent.say(f"waiting for a teleport at port {agent.server.port}")


def _renew(agent: Agent) -> Record:
    """The definition as it is now (a waiting VM's may change), and the owner record that follows from it."""
    path = agent.options.paths.definition
    agent.definition = agent.launcher.definition = parse_definition(path.read_bytes(), path)
    agent.record = record_at(agent.launcher.record_folder, agent.launcher.owner(""))
    agent.display.renew(agent.definition)
    agent.usb.renew(agent.definition)
    return agent.record


async def _open_port(agent: Agent, waiting: WaitingTarget) -> TransferServer:
    """The definition's port; for 0 the one that a predecessor had, where its source still looks for it, else a free one."""
    teleporter = agent.definition.teleporter
    known = agent.runtime / "teleporter.port"
    predecessors = int(known.read_text()) if not teleporter.port and known.exists() else 0
    for port in dict.fromkeys((predecessors or teleporter.port, teleporter.port)):
        server = TransferServer(waiting, address=teleporter.address, port=port, insecure=agent.options.insecure)
        try:
            await server.start()
        except BusyError:
            if port == teleporter.port:
                raise
            continue
        known.write_text(str(server.port))
        return server
    raise AssertionError("the last port is the definition's, and it raises")


async def _on_arrival(agent: Agent, arrived: Arrived) -> None:
    agent.runs(arrived.launched, arrived.guest, generation=arrived.generation, identity=arrived.identity)
    await agent.display.arrived(agent.launcher.screens(arrived.launched), arrived.display)  # viewers are waiting
    agent.spawn(open_forwarded_ports(arrived.guest, lambda: agent.definition, agent.say))
    agent.set_state(VmState.PAUSED if arrived.paused else VmState.RUNNING, "teleported here")
    agent.say("the guest arrived")
    agent.tell(Outcome(kind=OutcomeKind.MOVED, message="the guest arrived", target_qemu_pid=arrived.launched.process.pid))
    agent.spawn(_close_port_later(agent))


async def _close_port_later(agent: Agent) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            if agent.waiting:
                await agent.waiting.closed.wait()
    if agent.server:
        await agent.server.stop()
        agent.server = None
    agent.waiting = None
