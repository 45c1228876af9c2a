"""The relays of all of a guest's screens: what every extension of ours puts its viewers on, and what a teleport switches."""

import contextlib
from collections.abc import Sequence

from teleport.errors import TeleportError, UnreachableError
from teleport.machines.vrde import VrdeSettings
from teleport.vrde.endpoint import Endpoint
from teleport.vrde.pace import Quality
from teleport.vrde.relay import Gates, Relay


def gates_of(settings: VrdeSettings) -> Gates:
    """`Client/Disable…` and the video channel as gates of the relay."""
    return Gates(
        display=not settings.is_disabled("Display"),
        input=not settings.is_disabled("Input"),
        clipboard=not settings.is_disabled("Clipboard"),
        audio=not settings.is_disabled("Audio"),
        quality=Quality.of(settings.video_quality) if settings.video_channel else None,
    )


class Screens:
    """One relay a screen; screens count from 1."""

    def __init__(self, *, endpoints: Sequence[Endpoint], name: str, settings: VrdeSettings) -> None:
        self._relays = tuple(Relay(endpoint=each, name=name, gates=gates_of(settings)) for each in endpoints)

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
            relay.set_gates(gates_of(settings))

    def drop_all(self) -> None:
        """Ends all viewers' connections to the relays."""
        for relay in self._relays:
            relay.drop_all()
