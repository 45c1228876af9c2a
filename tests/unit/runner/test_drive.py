"""The driver: effects in order, an answer ends the list and comes before news from outside, news of no concern changes nothing."""

import asyncio
from enum import Enum

from teleport.handover.machine import Row, Table
from teleport.runner.drive import Driver


class Phase(Enum):
    A = "a"
    B = "b"
    END = "end"


class Event(Enum):
    GO = "go"
    ANSWER = "answer"
    NEWS = "news"


class Effect(Enum):
    ONE = "one"
    ASK = "ask"
    NEVER = "never"
    LAST = "last"


TABLE = Table[Phase, Event, Effect](
    rows={
        (Phase.A, Event.GO): Row(Phase.B, (Effect.ONE, Effect.ASK, Effect.NEVER)),
        (Phase.B, Event.ANSWER): Row(Phase.END, (Effect.LAST,)),
    },
    final=frozenset({Phase.END}),
    shared_only=frozenset(),
)


def test_an_answer_ends_the_list_and_is_taken_before_what_waits() -> None:
    done: list[tuple[Effect, Phase]] = []

    async def scene() -> Phase:
        async def perform(effect: Effect) -> Event | None:
            done.append((effect, driver.phase))
            if effect is Effect.ONE:
                driver.tell(Event.NEWS)
            return Event.ANSWER if effect is Effect.ASK else None

        driver = Driver(TABLE, Phase.A, side="test", shared=False, perform=perform)
        driver.tell(Event.NEWS)  # of no concern to A
        driver.tell(Event.GO)
        return await driver.run()

    assert asyncio.run(scene()) is Phase.END
    assert done == [(Effect.ONE, Phase.B), (Effect.ASK, Phase.B), (Effect.LAST, Phase.END)]


def test_it_is_settled_only_when_the_last_effect_is_done() -> None:
    async def scene() -> list[bool]:
        seen = []

        async def perform(effect: Effect) -> Event | None:
            seen.append(driver.settled)
            return Event.ANSWER if effect is Effect.ASK else None

        driver = Driver(TABLE, Phase.A, side="test", shared=False, perform=perform)
        driver.tell(Event.GO)
        await driver.run()
        seen.append(driver.settled)
        return seen

    assert asyncio.run(scene()) == [False, False, False, True]
