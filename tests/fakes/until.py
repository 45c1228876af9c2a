"""Waiting for a thing to become true, where nothing tells."""

import asyncio
from collections.abc import Callable

_STEP_SECONDS = 0.01
_STEPS = 3000


async def until(check: Callable[[], object]) -> None:
    """Returns once `check` is true; fails after 30 s."""
    for _ in range(_STEPS):
        if check():
            return
        await asyncio.sleep(_STEP_SECONDS)
    raise AssertionError("it never came true")
