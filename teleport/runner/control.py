"""The control API's verbs, on the agent (`teleport.wire.control_server.ControlHandler`)."""

from collections.abc import AsyncIterator

from teleport.errors import TeleportError
from teleport.runner.agent import Agent
from teleport.runner.vm import TeleportOrder
from teleport.wire._generated.teleport.v1 import control_pb2 as control
from teleport.wire.control_server import Event, Status


class ControlHandlers:
    """One agent's."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def status(self) -> Status:
        """How the VM is."""
        return self._agent.status()

    async def power(self, action: str) -> str:
        """Pause, resume, reset, poweroff, acpipowerbutton; the state after it."""
        return await self._agent.power(action)

    async def execute(self, command: str, arguments: tuple[str, ...]) -> str:
        """A command of free form; what it prints."""
        return await self._agent.execute(command, arguments)

    async def teleport(self, request: control.TeleportRequest) -> AsyncIterator[Event]:
        """Teleports, telling everything on the way; the last event is an Outcome or an error."""
        order = TeleportOrder(
            host=request.host,
            port=request.port,
            plan=request.plan or "auto",
            max_downtime_ms=request.max_downtime_ms or 250,
            timeout_seconds=request.timeout_seconds or 10.0,
            max_bandwidth_bytes_per_second=request.max_bandwidth_bytes_per_second,
            insecure=request.insecure,
            dry_run=request.dry_run,
            verify_ram=request.verify_ram,
        )
        async with self._agent.listen() as news:
            teleport = await self._agent.begin_teleport(order)
            teleport.outcome.add_done_callback(lambda _: news.put_nowait(None))
            while (event := await news.get()) is not None:
                yield event
            try:
                yield teleport.outcome.result()
            except TeleportError as error:
                yield error

    async def cancel(self) -> str:
        """Cancels a teleport; says what comes of it."""
        return self._agent.cancel_teleport()

    async def watch(self) -> AsyncIterator[Event]:
        """All that happens from now on, until the VM is over."""
        async with self._agent.listen() as news:
            while (event := await news.get()) is not None:
                yield event

    async def resolve(self, *, run_here: bool, moved: bool, confirmed: bool) -> str:
        """Decides a guest in doubt."""
        return await self._agent.resolve(run_here=run_here, moved=moved, confirmed=confirmed)
