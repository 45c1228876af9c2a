"""Slows down who guesses passwords at the display."""

import asyncio
from collections.abc import Awaitable, Callable

from teleport.vrde.login import Authenticator, Login, Verdict

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 4.0  # FreeRDP gives up after 9 s, also where the password is right this time
FORGET_SECONDS = 600.0
MOST_REMEMBERED = 4096


class Throttle:
    """Slows down who guesses: each refusal of a client's address doubles the delay of its next answer.

    `clock` gives seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._refused: dict[str, tuple[int, float]] = {}
        self._turns: dict[str, tuple[asyncio.Lock, int]] = {}

    async def decide(self, authenticator: Authenticator, login: Login) -> bool:
        """Whether this login is let in, after its delay and in its turn."""

        async def check() -> bool:
            return await authenticator.check(login) is Verdict.ALLOW

        return await self.judged(login.client, check)

    async def judged(self, client: str, check: Callable[[], Awaitable[bool]]) -> bool:
        """What `check` says, after the client's delay. Those of one client take turns: guesses side by side gain no time."""
        turn, count = self._turns.get(client, (asyncio.Lock(), 0))
        self._turns[client] = turn, count + 1
        try:
            async with turn:
                await asyncio.sleep(self.delay_seconds(client))
                right = await check()
                (self.allowed if right else self.refused)(client)
                return right
        finally:
            turn, count = self._turns.pop(client)
            if count > 1:
                self._turns[client] = turn, count - 1

    def delay_seconds(self, client: str) -> float:
        """How long the answer to this client's login has to wait."""
        count, when = self._refused.get(client, (0, 0.0))
        if not count or self._clock() - when > FORGET_SECONDS:
            return 0.0
        return float(min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** (count - 1)))

    def refused(self, client: str) -> None:
        """Notes a refusal."""
        count, when = self._refused.pop(client, (0, 0.0))
        if self._clock() - when > FORGET_SECONDS:
            count = 0
        while len(self._refused) >= MOST_REMEMBERED:
            del self._refused[next(iter(self._refused))]
        self._refused[client] = count + 1, self._clock()

    def allowed(self, client: str) -> None:
        """Forgets a client's refusals."""
        self._refused.pop(client, None)
