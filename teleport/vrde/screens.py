"""The relays of all of a guest's screens: what every extension of ours puts its viewers on, and what a teleport switches."""

import contextlib
from collections.abc import Sequence

from teleport.errors import TeleportError, UnreachableError
from teleport.machines.vrde import VrdeSettings
from teleport.vrde.endpoint import Endpoint
from teleport.vrde.gates import Gates
from teleport.vrde.relay import Relay


class Screens:
    """One relay a screen; screens count from 1."""

    def __init__(self, *, endpoints: Sequence[Endpoint], name: str, settings: VrdeSettings) -> None:
        self._relays = tuple(Relay(endpoint=each, name=name, gates=Gates.of(settings)) for each in endpoints)

    def __len__(self) -> int:
        return len(self._relays)

    def relay(self, screen: int) -> Relay:
        """The relay of one screen, from 1. Raises IndexError."""
        if not 1 <= screen <= len(self._relays):
            raise IndexError(screen)
        return self._relays[screen - 1]

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where the guest's VNC servers are now."""
        return tuple(relay.endpoint for relay in self._relays)

    async def retarget(self, endpoints: Sequence[Endpoint]) -> int:
        """Puts other servers behind all viewers and returns how many were switched.

        Raises UnreachableError, and then every screen is as before.
        """
        if len(endpoints) != len(self._relays):
            raise UnreachableError("the guest's display", f"it has {len(self._relays)} screens here and {len(endpoints)} there")
        before = self.endpoints
        switched = 0
        try:
            for relay, endpoint in zip(self._relays, endpoints, strict=True):
                switched += await relay.retarget(endpoint)
        except TeleportError:
            for relay, endpoint in zip(self._relays, before, strict=True):
                if relay.endpoint is not endpoint:
                    with contextlib.suppress(TeleportError):
                        await relay.retarget(endpoint)
            raise
        return switched

    def update(self, settings: VrdeSettings) -> None:
        """Changes what viewers may see and do, at once."""
        for relay in self._relays:
            relay.set_gates(Gates.of(settings))

    def drop_all(self) -> None:
        """Ends all viewers' connections to the relays."""
        for relay in self._relays:
            relay.drop_all()
