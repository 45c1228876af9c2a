"""The fronts, as a runner sees them (`teleport.ports.DisplayFronts`): what the entry point ``teleport.display: front`` names.

A runner and the display do not import each other; this is the only place where they meet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from teleport.machines.vrde import from_dict
from teleport.model import AGENT_MARK, CLIPBOARD_MARK, MICROPHONE_MARK, DisplayOrder, DisplayStatus, SharedUsb
from teleport.ports import DisplayFront
from teleport.vrde import control, endpoint
from teleport.vrde.front_config import FrontConfig, Json

_MARKS = {"agent": AGENT_MARK, "clipboard": CLIPBOARD_MARK, "microphone": MICROPHONE_MARK}  # by `endpoint.CHANNELS`' names


def _status(answer: Json) -> DisplayStatus:
    addresses, screens, sessions, details = (answer.get(name) for name in ("addresses", "screens", "sessions", "details"))
    channels = _marked({name: str(answer.get(name) or "") for name in _MARKS})
    return DisplayStatus(
        port=int(str(answer["port"])),
        addresses=tuple(map(str, addresses)) if isinstance(addresses, list) else (),
        screens=(*map(str, screens), *channels) if isinstance(screens, list) else (),
        viewers=len(sessions) if isinstance(sessions, list) else 0,
        extension=str(answer["extension"]),
        details={str(name): str(value) for name, value in details.items()} if isinstance(details, dict) else {},
    )


def _marked(channels: Mapping[str, str]) -> list[str]:
    return [f"{mark}{channels[name]}" for name, mark in _MARKS.items() if channels.get(name)]


def _apart(endpoints: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The screens, and the guest's channels by their names, as far as there are any."""
    channels = {name: each.removeprefix(mark) for name, mark in _MARKS.items() for each in endpoints if each.startswith(mark)}
    return [each for each in endpoints if not each.startswith(tuple(_MARKS.values()))], channels


def reachable_at(host: str, text: str) -> str:
    """An endpoint that another host named, with the name under which that host is known here."""
    known = endpoint.from_text(text)
    return endpoint.to_text(replace(known, host=host) if host and isinstance(known, endpoint.TunnelEndpoint) else known)


class Front:
    """One front by its folder."""

    def __init__(self, folder: str) -> None:
        self._client = control.FrontClient(Path(folder))

    @property
    def folder(self) -> str:
        """See teleport.ports.DisplayFront."""
        return str(self._client.folder)

    async def status(self) -> DisplayStatus:
        """See teleport.ports.DisplayFront."""
        return _status(await self._client.status())

    async def retarget(self, screens: Sequence[str], *, host: str = "") -> int:
        """See teleport.ports.DisplayFront."""
        shown, channels = _apart(screens)
        return await self._client.retarget(
            [reachable_at(host, each) for each in shown], {name: reachable_at(host, each) for name, each in channels.items()}
        )

    async def update(self, settings: Mapping[str, object]) -> None:
        """See teleport.ports.DisplayFront."""
        await self._client.update(from_dict(settings))

    async def tunnel(self, address: str) -> tuple[str, ...]:
        """See teleport.ports.DisplayFront."""
        screens, channels = await self._client.tunnel(address=address)
        return (*screens, *_marked(channels))

    async def console(self, *, address: str, port: int, screen: int) -> Mapping[str, str]:
        """See teleport.ports.DisplayFront."""
        return {
            name: str(value) for name, value in (await self._client.console(address=address, port=port, screen=screen)).items()
        }

    async def usb(self, seen: int) -> tuple[int, tuple[SharedUsb, ...]]:
        """See teleport.ports.DisplayFront."""
        answer = await self._client.usb(seen)
        devices = answer["devices"]
        return int(str(answer["generation"])), tuple(SharedUsb(**each) for each in devices) if isinstance(devices, list) else ()

    async def usb_told(self, name: str, text: str) -> None:
        """See teleport.ports.DisplayFront."""
        await self._client.usb_told(name, text)

    async def stop(self, reason: str = "") -> None:
        """See teleport.ports.DisplayFront."""
        await self._client.stop(reason)


class Fronts:
    """Starts fronts and finds them again."""

    async def start(self, order: DisplayOrder) -> DisplayFront:
        """See teleport.ports.DisplayFronts."""
        screens, channels = _apart(order.screens)
        await control.start(
            FrontConfig(
                vm_name=order.vm_name,
                folder=order.folder,
                settings=from_dict(order.settings),
                screens=tuple(screens),
                keys=order.keys,
                agent=channels.get("agent", ""),
                clipboard=channels.get("clipboard", ""),
                microphone=channels.get("microphone", ""),
            )
        )
        return Front(order.folder)

    def at(self, folder: str) -> DisplayFront:
        """See teleport.ports.DisplayFronts."""
        return Front(folder)


FRONTS = Fronts()
