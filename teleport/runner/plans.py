"""The data paths at work: what each asks of both QEMUs, and how it starts, measures and rolls back.

Every plan carries QEMU's stream through the peer's channel 0; they differ in what is *in* it, and in what must hold before:

- raw: everything, by precopy rounds while the guest runs.
- shared: the device state only. The target's QEMU maps the source's RAM, so the guest is stopped before `migrate` and the target's
  QEMU must be dead before the source resumes (`stops_first`; the handover tables see to it).
"""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from teleport.host.pipe import migration_pair
from teleport.host.priority import hurry_streams, streams_take_turns
from teleport.model import PlanName
from teleport.ports import Guest

# Far above any link: the link and the peer's credits are the limit. QEMU's default would be 128 MiB/s.
_UNLIMITED_BYTES_PER_SECOND = 1 << 40

_FD_NAME = "teleport-stream"

# Both sides hear events; the return path makes the source's `completed` mean that the target has loaded everything.
_COMMON = {"events": True, "return-path": True}


class Carrier(Protocol):
    """A channel of QEMU's stream on its way through the peer."""

    @property
    def sent_bytes(self) -> int:
        """Bytes handed to the wire."""

    async def wait(self) -> None:
        """Returns when the stream ended, or raises what broke it."""

    def close(self) -> None:
        """Breaks both ends: QEMU notices at once."""


class Carries(Protocol):
    """Whoever carries channels (the peer's client)."""

    def carry(self, epoch: str, channel: int, sock: socket.socket) -> Carrier:
        """Carries a connected stream socket of QEMU."""


@dataclass(frozen=True)
class Plan:
    """One data path."""

    name: PlanName
    stops_first: bool
    extra: Mapping[str, bool]

    def source_capabilities(self) -> dict[str, bool]:
        """QEMU's migration capabilities at the source."""
        return {**_COMMON, "pause-before-switchover": True, "late-block-activate": False, **self.extra}

    def target_capabilities(self) -> dict[str, bool]:
        """QEMU's migration capabilities at the target."""
        return {**_COMMON, "pause-before-switchover": False, "late-block-activate": True, **self.extra}

    def source_parameters(self, *, downtime_limit_ms: int, max_bandwidth_bytes_per_second: int) -> dict[str, str | int]:
        """QEMU's migration parameters at the source."""
        return {
            "downtime-limit": downtime_limit_ms,
            "max-bandwidth": max_bandwidth_bytes_per_second or _UNLIMITED_BYTES_PER_SECOND,
            "announce-rounds": 0,
        }


PLANS = {
    PlanName.RAW: Plan(name=PlanName.RAW, stops_first=False, extra={"x-ignore-shared": False}),
    PlanName.SHARED: Plan(name=PlanName.SHARED, stops_first=True, extra={"x-ignore-shared": True}),
}


class Outgoing:
    """One attempt to send: the listening socket for QEMU, and the carrier of its stream."""

    def __init__(self, plan: Plan, guest: Guest, peer: Carries, *, epoch: str, socket_path: str) -> None:
        self.plan = plan
        self._guest = guest
        self._peer = peer
        self._epoch = epoch
        self._path = socket_path
        self._carrier: Carrier | None = None

    @property
    def sent_bytes(self) -> int:
        """Bytes that went to the wire so far."""
        return self._carrier.sent_bytes if self._carrier else 0

    async def start(self) -> None:
        """`migrate`, with the stream carried to the target. Raises HypervisorError when QEMU refuses."""
        sock, theirs = migration_pair()
        with theirs:
            await self._guest.give_fd(_FD_NAME, theirs.fileno())
        try:
            await self._guest.migrate(f"fd:{_FD_NAME}")
        except BaseException:
            sock.close()
            raise
        self._carrier = self._peer.carry(self._epoch, 0, sock)
        hurry_streams()

    async def broken(self) -> None:
        """Waits for the stream's end; its error, if it has one, is the carrier's."""
        if self._carrier:
            await self._carrier.wait()

    def close(self) -> None:
        """Ends the stream whatever state it is in."""
        if self._carrier:
            self._carrier.close()
            streams_take_turns()
