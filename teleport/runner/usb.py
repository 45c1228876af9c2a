"""Remote USB devices in the running guest: plugged in and out through QMP, by the VM's filters.

The display's front keeps what viewers share (`teleport.vrde.usb`); QEMU alone knows what is plugged in, so that an agent that is started
anew finds it. For each device: a chardev that dials the front, and a `usb-redir` on the newest controller that knows its speed, at a port
of its own (QEMU adds a hub of its own when it has to choose the last free one, and that hub would keep the guest from teleporting).

QEMU takes no devices in or out while it migrates: they leave before the migration begins, when everything else has agreed, and come back
where the guest runs then.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from teleport.errors import HypervisorError, TeleportError
from teleport.host.guest import QmpGuest
from teleport.machines.arguments.usb import bus_for, free_port, needed_for
from teleport.machines.definition import Definition
from teleport.machines.usb_filters import UsbDevice, UsbFilter, first_fit
from teleport.model import REMOTE_USB, SharedUsb
from teleport.ports import DisplayFront

IDLE_SECONDS = 1.0
_PERIPHERAL = "/machine/peripheral"

log = logging.getLogger(__name__)


class Shown(Protocol):
    """What is needed of the display."""

    @property
    def front(self) -> DisplayFront | None:
        """The one that serves."""

    @property
    def takes_usb(self) -> bool:
        """Whether the VM's own settings let remote USB in."""


def _device(shared: SharedUsb) -> UsbDevice:
    return UsbDevice(
        shared.vendor_id, shared.product_id, shared.revision, shared.manufacturer, shared.product, shared.serial_number
    )


class RemoteUsb:
    """One VM's. `may_change` says whether QEMU may be changed now; `say` writes to the VM's log."""

    def __init__(
        self, definition: Definition, display: Shown, *, say: Callable[[str], None], may_change: Callable[[], bool]
    ) -> None:
        self._definition = definition
        self._filters: Sequence[UsbFilter] = definition.usb_filters
        self._display = display
        self._say = say
        self._may_change = may_change
        self._lock = asyncio.Lock()
        self._refused: dict[str, str] = {}
        self._shared: dict[str, SharedUsb] = {}
        self._plugged: frozenset[str] = frozenset()
        self._loose: set[str] = set()  # plugged in, but without a connection when they were last looked at
        self._again = asyncio.Event()

    def renew(self, definition: Definition) -> None:
        """The definition was changed while nothing runs."""
        self._definition = definition
        self.change(definition.usb_filters)

    def change(self, filters: Sequence[UsbFilter]) -> None:
        """Other filters: they count for what is not plugged in yet."""
        self._filters = filters
        self._refused.clear()
        self._again.set()

    def properties(self) -> dict[str, str]:
        """What `showvminfo` shows: VirtualBox's keys for remote devices, and whether the guest has each."""
        shown: dict[str, str] = {}
        for number, (name, each) in enumerate(sorted(self._shared.items()), 1):
            fields: Mapping[str, str] = {
                "VendorId": f"{each.vendor_id:04x}",
                "ProductId": f"{each.product_id:04x}",
                "Revision": f"{each.revision:04x}",
                "Manufacturer": each.manufacturer,
                "Product": each.product,
                "SerialNumber": each.serial_number,
                "Address": each.client,
                "State": "Captured" if name in self._plugged else self._refused.get(name, "Available"),
            }
            shown |= {f"USBRemote{field}{number}": value for field, value in fields.items()}
        return shown

    # ------------------------------------------------------------------ as long as the VM runs
    async def watch(self, guest: QmpGuest) -> None:
        """Plugs in what is shared and fits, and out what is shared no more."""
        asked: DisplayFront | None = None
        seen = -1
        while True:
            front = self._display.front
            try:
                if front and self._may_change():
                    seen, shared = await self._next(front, seen if front is asked else -1)
                    if front is self._display.front:
                        await self._settle(guest, front, {each.name: each for each in shared if self._display.takes_usb})
                        asked = front
                        continue
                elif front is None and self._shared:
                    await self._unshare(guest, {})
            except TeleportError as error:  # the front is being replaced, or QEMU is going: their own watchers see to it
                log.debug("remote USB: %s", error)
            asked = None
            await asyncio.sleep(IDLE_SECONDS)

    async def _next(self, front: DisplayFront, seen: int) -> tuple[int, tuple[SharedUsb, ...]]:
        """What is shared, once that or the filters have changed, or after a while."""
        news = asyncio.ensure_future(front.usb(seen))
        again = asyncio.ensure_future(self._again.wait())
        try:
            await asyncio.wait({news, again}, return_when=asyncio.FIRST_COMPLETED)
            if self._again.is_set():
                self._again.clear()
                return await front.usb(-1)
            return await news
        finally:
            news.cancel()
            again.cancel()
            await asyncio.gather(news, again, return_exceptions=True)

    async def _settle(self, guest: QmpGuest, front: DisplayFront, shared: Mapping[str, SharedUsb]) -> None:
        await self._unshare(guest, shared)
        self._refused = {name: why for name, why in self._refused.items() if name in shared}
        for name, each in shared.items():
            async with self._lock:
                if not self._may_change() or name in self._refused or name in await self._present(guest):
                    continue
                why = await self._plug(guest, each)
                if why:
                    self._refused[name] = why
                text = f"not plugged in: {why}" if why else "plugged into the guest"
                self._say(f"USB device {_device(each).shown} of client {each.client} {text}")
                await front.usb_told(name, text)

    async def _unshare(self, guest: QmpGuest, shared: Mapping[str, SharedUsb]) -> None:
        """Takes out what is not among these, and knows these from now on."""
        async with self._lock:
            for name in await self._present(guest):
                if not self._may_change():
                    break
                if name not in shared:
                    await self._unplug(guest, name)
                    self._say(f"USB device {self._named(name)} unplugged from the guest: it is shared no more")
                elif shared[name].connected:
                    self._loose.discard(name)
                elif name not in self._loose:
                    self._loose.add(name)  # it may be on its way
                else:
                    await self._unplug(guest, name)
                    self._say(f"USB device {self._named(name)} unplugged from the guest: its connection broke")
            self._loose &= self._plugged
            self._shared = dict(shared)

    def _named(self, name: str) -> str:
        each = self._shared.get(name)
        return f"{_device(each).shown} of client {each.client}" if each else name

    # ------------------------------------------------------------------ before the guest leaves
    async def unplug_all(self, guest: QmpGuest, reason: str) -> None:
        """Takes all out, and says so. Raises HypervisorError. `may_change` is false by now: none comes back meanwhile."""
        async with self._lock:
            for name in await self._present(guest):
                await self._unplug(guest, name)
                self._say(f"USB device {self._named(name)} unplugged from the guest: {reason}")
                if front := self._display.front:
                    with contextlib.suppress(TeleportError):
                        await front.usb_told(name, f"unplugged: {reason}")

    # ------------------------------------------------------------------ QEMU
    async def _present(self, guest: QmpGuest) -> tuple[str, ...]:
        found = await guest.execute("qom-list", path=_PERIPHERAL)
        names = tuple(str(each["name"]).removeprefix(REMOTE_USB) for each in found if str(each["name"]).startswith(REMOTE_USB))
        self._plugged = frozenset(names)
        return names

    async def _plug(self, guest: QmpGuest, shared: SharedUsb) -> str:
        """Why not; "" when it is in."""
        if first_fit(self._filters, _device(shared)) is None:
            return "no USB filter of the VM fits it (teleport usbfilter add 0 --target NAME --name TEXT --remote yes)"
        bus = bus_for(self._definition.usb, shared.speed)
        if not bus:
            return needed_for(shared.speed)
        used = [
            await guest.execute("qom-get", path=f"{_PERIPHERAL}/{REMOTE_USB}{name}", property="port") for name in self._plugged
        ]
        port = free_port(self._definition, [int(each) for each in used])
        if port is None:
            return "the VM's USB controller has no free port"
        chardev = f"{REMOTE_USB}{shared.name}"
        address = {"type": "unix", "data": {"path": shared.socket}}
        backend = {"type": "socket", "data": {"addr": address, "server": False}}
        try:
            await guest.execute("chardev-add", id=chardev, backend=backend)
        except HypervisorError as error:
            return error.why
        try:
            await guest.execute("device_add", driver="usb-redir", id=chardev, chardev=chardev, bus=bus, port=str(port))
        except HypervisorError as error:
            with contextlib.suppress(HypervisorError):
                await guest.execute("chardev-remove", id=chardev)
            return error.why
        self._plugged |= {shared.name}
        return ""

    async def _unplug(self, guest: QmpGuest, name: str) -> None:
        """The chardev goes with the device (hw/usb/redirect.c, usbredir_unrealize)."""
        await guest.execute("device_del", id=f"{REMOTE_USB}{name}")
        self._plugged -= {name}
