"""The USB devices that viewers share, as their VM's front keeps them: plugged in where the guest is, for as long as they are shared.

::

    sharer ═ frames ═▶ front ─ unix socket, usbredir ─▶ QEMU's usb-redir      the guest is on this host: its agent plugs the device in
                         └──── tunnel, frames ════════▶ the target's front    the guest is on another: that front does the same

The front lists what is shared (`waited`), the VM's agent decides by its filters, has QEMU dial the device's socket, and tells the sharer
(`told`). An agent that prepares a teleport unplugs; the sharer's connection stays, and the device is plugged in again where the guest runs
next. A guest's end that breaks is a device unplugged.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from teleport.errors import ProtocolError, TeleportError
from teleport.machines.usb_filters import UsbDevice
from teleport.vrde.endpoint import BUFFER_BYTES, TunnelEndpoint
from teleport.vrde.streams import first_to_end
from teleport.vrde.usb_frames import READ_BYTES, Claim, FrameKind, answer, frame, read_frame, read_line, refusal_in
from teleport.vrde.usbredir import Redirection

MOST_DEVICES = 8
WAIT_SECONDS = 10.0
REDIAL_SECONDS = 1.0
USB = 255  # in a tunnel, instead of a screen's number
SWITCHED_OFF = "remote USB is switched off (Client/DisableUSB)"

log = logging.getLogger("teleport.vrde.usb")
Writer = asyncio.StreamWriter


@dataclass(frozen=True)
class _Guest:
    """The guest's end of one device: a QEMU, or (framed) another front."""

    writer: Writer
    framed: bool = False

    def write(self, data: bytes) -> None:
        if data:
            self.writer.write(frame(FrameKind.USBREDIR, data) if self.framed else data)


@dataclass
class _Device:
    name: str
    claim: Claim
    writer: Writer
    socket: Path
    redirection: Redirection = field(default_factory=Redirection)
    guest: _Guest | None = None
    said: str = ""

    @property
    def device(self) -> UsbDevice | None:
        connected = self.redirection.device
        texts = {name: getattr(self.claim, name) for name in ("manufacturer", "product", "serial_number")}
        return replace(connected.device, **texts) if connected else None

    def to_sharer(self, data: bytes) -> None:
        if data:
            self.writer.write(frame(FrameKind.USBREDIR, data))

    def notice(self, text: str) -> None:
        if text != self.said:
            self.said = text
            self.writer.write(frame(FrameKind.NOTICE, text.encode()))


def _shown(each: _Device) -> dict[str, object] | None:
    """As the agent gets it; None for one that was pulled out just now."""
    connected, device = each.redirection.device, each.device
    if connected is None or device is None:
        return None
    return vars(device) | {
        "name": each.name,
        "speed": connected.speed.name.lower(),
        "client": each.claim.client,
        "socket": str(each.socket),
        "connected": each.guest is not None,
    }


class UsbDevices:
    """One front's. `note` writes one line to the VM's log."""

    def __init__(self, folder: Path, note: Callable[[str], None], *, allowed: bool) -> None:
        self._folder = folder
        self._note = note
        self._allowed = allowed
        self._there: TunnelEndpoint | None = None  # the front of the host that the guest is on; None: this one
        self._devices: dict[str, _Device] = {}
        self._generation = 1
        self._changed = asyncio.Condition()

    # ------------------------------------------------------------------ what the VM's agent asks
    async def waited(self, seen: int) -> tuple[int, list[dict[str, object]]]:
        """The devices that may be plugged in here, with the generation of that list; answers once it is another than `seen`, or after
        a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_SECONDS), self._changed:
                await self._changed.wait_for(lambda: self._generation != seen)
        return self._generation, list(filter(None, map(_shown, self._devices.values()))) if self._is_here else []

    @property
    def _is_here(self) -> bool:
        return self._allowed and self._there is None

    def told(self, name: str, text: str) -> None:
        """The agent's word on one device, for who shares it."""
        if each := self._devices.get(name):
            each.notice(text)

    async def _change(self) -> None:
        async with self._changed:
            self._generation += 1
            self._changed.notify_all()

    async def allow(self, *, allowed: bool) -> None:
        """`Client/DisableUSB` as it is now."""
        if allowed == self._allowed:
            return
        self._allowed = allowed
        self._end_guests()
        for each in self._devices.values():
            each.notice("remote USB is switched on again" if allowed else SWITCHED_OFF)
        await self._change()

    async def retarget(self, there: TunnelEndpoint | None) -> None:
        """The guest runs on this host (None), or on the one of that tunnel."""
        self._there = replace(there, screen=USB) if there else None
        self._end_guests()
        await self._change()

    def _end_guests(self) -> None:
        for each in self._devices.values():
            if each.guest:
                each.guest.writer.transport.abort()

    # ------------------------------------------------------------------ a device
    async def serve_front(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        """A device from another host's front, which has shown the tunnel's ticket."""
        await self.serve(reader, writer, Claim.parse(await read_line(reader)))

    async def serve(self, reader: asyncio.StreamReader, writer: Writer, claim: Claim) -> None:
        """One shared device whose sharer was let in, to its end."""
        why = SWITCHED_OFF if not self._allowed else ""
        if len(self._devices) >= MOST_DEVICES:
            why = f"{MOST_DEVICES} devices are shared with this VM already"
        writer.write(answer(why))
        await writer.drain()
        if why:
            self._note(f"USB device of client {claim.client} refused: {why}")
            return
        name = secrets.token_hex(4)
        each = _Device(name, claim, writer, self._folder / f"usb-{name}.sock")
        each.to_sharer(Redirection.begin())
        try:
            await self._until_connected(each, reader)
            self._devices[name] = each
            device = each.device
            self._note(f"USB device {device.shown if device else ''} of client {claim.client} is shared")
            server = await asyncio.start_unix_server(
                lambda r, w: self._serve_guest(each, r, w), each.socket, limit=BUFFER_BYTES
            )
            try:
                await self._change()
                await first_to_end(self._from_sharer(each, reader), self._dial(each))
            finally:
                server.close()
                self._note(f"USB device {device.shown if device else ''} of client {claim.client} is shared no more")
        except TeleportError as error:
            self._note(f"USB device of client {claim.client} dropped: {error}")
            each.notice(str(error))
            with contextlib.suppress(OSError):
                await writer.drain()
        finally:
            if self._devices.pop(name, None):
                each.socket.unlink(missing_ok=True)
                if each.guest:
                    each.guest.writer.transport.abort()
                await self._change()

    async def _until_connected(self, each: _Device, reader: asyncio.StreamReader) -> None:
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while each.redirection.device is None:
                    await self._one_frame(each, reader)
        except TimeoutError as error:
            raise ProtocolError("remote USB", f"no device within {WAIT_SECONDS:g} s") from error

    async def _one_frame(self, each: _Device, reader: asyncio.StreamReader) -> None:
        kind, data = await read_frame(reader)
        if kind is not FrameKind.USBREDIR:
            return
        out = each.redirection.from_host(data)
        each.to_sharer(out.to_host)
        if each.guest and out.to_guest:
            with contextlib.suppress(OSError):  # the end of that connection is seen by whoever reads it
                each.guest.write(out.to_guest)
                await each.guest.writer.drain()

    async def _from_sharer(self, each: _Device, reader: asyncio.StreamReader) -> None:
        while each.redirection.device is not None:
            await self._one_frame(each, reader)

    # ------------------------------------------------------------------ the guest's end
    async def _serve_guest(self, each: _Device, reader: asyncio.StreamReader, writer: Writer) -> None:
        """This host's QEMU."""

        async def chunks() -> AsyncIterator[bytes]:
            while data := await reader.read(READ_BYTES):
                yield data

        with contextlib.closing(writer), contextlib.suppress(OSError, EOFError):
            if each.guest is None and self._is_here:
                try:
                    await self._with_guest(each, _Guest(writer), chunks())
                except TeleportError as error:
                    self._note(f"USB device {each.name}: {error}")
                    each.notice(str(error))
                    each.writer.close()

    async def _dial(self, each: _Device) -> None:
        """The front of another host, while the guest is there."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._there is not None and self._allowed)
            there = self._there
            assert there is not None
            try:
                reader, writer = await there.dial()
                with contextlib.closing(writer):
                    await self._through(each, there, reader, writer)
            except (OSError, EOFError, TeleportError) as error:
                log.debug("USB device %s through %s: %s", each.name, there, error)
            await asyncio.sleep(REDIAL_SECONDS)

    async def _through(self, each: _Device, there: TunnelEndpoint, reader: asyncio.StreamReader, writer: Writer) -> None:
        writer.write(replace(each.claim, user="", password="", domain="").line())
        refusal = refusal_in(await read_line(reader))
        if refusal:
            each.notice(refusal)
        elif there is self._there and self._allowed:

            async def chunks() -> AsyncIterator[bytes]:
                while True:
                    kind, data = await read_frame(reader)
                    if kind is FrameKind.USBREDIR:
                        yield data
                    else:
                        each.notice(data.decode(errors="replace"))

            await self._with_guest(each, _Guest(writer, framed=True), chunks())

    async def _with_guest(self, each: _Device, guest: _Guest, chunks: AsyncIterator[bytes]) -> None:
        guest.write(each.redirection.attach())
        each.guest = guest
        try:
            async for data in chunks:
                out = each.redirection.from_guest(data)
                guest.write(out.to_guest)
                each.to_sharer(out.to_host)
                await each.writer.drain()
        finally:
            each.guest = None
            each.to_sharer(each.redirection.detach())
