"""Drives a handover table: events in, effects performed, one at a time and in order (see `teleport.handover.machine`)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Generic, TypeVar

from teleport.handover.machine import Table
from teleport.host.faults import async_fault_point

Phase = TypeVar("Phase", bound=Enum)
Event = TypeVar("Event", bound=Enum)
Effect = TypeVar("Effect", bound=Enum)

log = logging.getLogger(__name__)


class Driver(Generic[Phase, Event, Effect]):
    """One machine at work.

    `perform` does one effect and returns its answer, or None. Fault points: `<side>.<effect>` before each effect, so that a test can
    stop or kill this process at exactly that step.
    """

    def __init__(
        self,
        table: Table[Phase, Event, Effect],
        phase: Phase,
        *,
        side: str,
        shared: bool,
        perform: Callable[[Effect], Awaitable[Event | None]],
    ) -> None:
        self.phase = phase
        self.pending: tuple[Effect, ...] = ()
        self.changed = asyncio.Condition()
        self._table = table
        self._side = side
        self._shared = shared
        self._perform = perform
        self._inbox: asyncio.Queue[Event] = asyncio.Queue()

    @property
    def settled(self) -> bool:
        """Nothing will change any more by itself."""
        return self.phase in self._table.final and not self.pending

    def tell(self, event: Event) -> None:
        """An event from outside; it waits for the effects that are being performed."""
        self._inbox.put_nowait(event)

    @property
    def idle(self) -> bool:
        """No event waits and no effect is being performed."""
        return self._inbox.empty() and not self.pending

    async def step(self) -> None:
        """Takes one event and performs all that follows from it."""
        await self._take(await self._inbox.get())

    async def run(self) -> Phase:
        """Steps until the machine is settled, and returns the final phase."""
        while not self.settled:
            await self.step()
        return self.phase

    async def _take(self, event: Event) -> None:
        answer: Event | None = event
        while answer is not None:
            if (self.phase, answer) not in self._table.rows:
                # late news from a QEMU or a peer that this phase has no use for; final phases take anything
                log.info("%s: %s does not concern %s", self._side, answer.value, self.phase.value)
                return
            row = self._table.step(self.phase, answer, shared=self._shared)
            if row.phase is not self.phase:
                log.info("%s: %s → %s (%s)", self._side, self.phase.value, row.phase.value, answer.value)
            async with self.changed:
                self.phase, self.pending = row.phase, row.effects
                self.changed.notify_all()
            answer = await self._perform_all()

    async def _perform_all(self) -> Event | None:
        while self.pending:
            effect = self.pending[0]
            await async_fault_point(f"{self._side}.{effect.value}")
            answer = await self._perform(effect)
            async with self.changed:
                self.pending = () if answer is not None else self.pending[1:]
                self.changed.notify_all()
            if answer is not None:
                return answer
        return None
