"""Tells a guest which size its screen should have: `controlvm NAME setvideomodehint`.

QMP has no command for it; QEMU takes it from a VNC client (RFB's SetDesktopSize, as the community's rfbproto says, and
ui/vnc.c: `VNC_MSG_CLIENT_SET_DESKTOP_SIZE`) and hands it to the graphics card. Only virtio's can tell its guest, whose driver decides.
"""

import asyncio
import contextlib
import struct
from typing import Any

from teleport.errors import HypervisorError, StateError
from teleport.host.guest import QmpGuest

_VERSION = b"RFB 003.008\n"
_NO_LOGIN = 1
_EXTENDED_DESKTOP_SIZE = -308  # also 0xFFFFFECC: a rectangle that tells sizes, and answers requests for one
_UPDATE, _RAW = 0, 0
_SET_ENCODINGS, _ASK_FOR_UPDATE, _SET_SIZE = 2, 3, 251
_OUR_REQUEST = 1  # a rectangle's x: why it comes
_PROHIBITED = 1
_DONE = (0, 4)  # a rectangle's y: it is so now; it was passed on to the guest
_SECONDS = 5.0


async def hint_size(guest: QmpGuest, *, screen: int, width: int, height: int) -> None:
    """Asks the guest to make its screen (counted from 0) that large. Raises StateError when there is no such screen, or when its card
    cannot tell the guest, and HypervisorError when QEMU does not answer as a VNC server does.
    """
    servers: list[dict[str, Any]] = sorted(await guest.execute("query-vnc-servers"), key=_place)
    if screen >= len(servers):
        raise StateError("setvideomodehint", f"the guest has no screen {screen}", "screens are counted from 0")
    path = servers[screen]["server"][0]["service"]
    try:
        async with asyncio.timeout(_SECONDS):
            answer = await _asked(path, width, height)
    except (OSError, EOFError, TimeoutError, struct.error, UnicodeError) as error:
        raise HypervisorError(
            "setvideomodehint", f"QEMU's VNC server did not answer: {error or type(error).__name__}"
        ) from error
    if answer not in _DONE:
        raise StateError(
            "setvideomodehint",
            "this graphics card has no way to tell its guest",
            "modifyvm --graphicscontroller virtio has one (while the VM is off); else choose the mode in the guest",
        )


def _place(server: dict[str, Any]) -> tuple[bool, int, str]:
    """QEMU tells them in no order that it promises, and calls them default, vnc2, vnc3, …"""
    name = str(server["id"])
    return name != "default", len(name), name


async def _asked(path: str, width: int, height: int) -> int:
    """The server's answer to SetDesktopSize: a status."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        await reader.readexactly(len(_VERSION))
        writer.write(_VERSION)
        (count,) = await reader.readexactly(1)
        if _NO_LOGIN not in await reader.readexactly(count):
            return _PROHIBITED
        writer.write(bytes([_NO_LOGIN]))
        await reader.readexactly(4)
        writer.write(b"\1")  # others may stay
        name_bytes = struct.unpack(">20xI", await reader.readexactly(24))[0]
        await reader.readexactly(name_bytes)
        writer.write(struct.pack(">BxHi", _SET_ENCODINGS, 1, _EXTENDED_DESKTOP_SIZE))
        writer.write(struct.pack(">BBHHHH", _ASK_FOR_UPDATE, 1, 0, 0, 1, 1))
        writer.write(struct.pack(">BxHHBx", _SET_SIZE, width, height, 1) + struct.pack(">IHHHHI", 0, 0, 0, width, height, 0))
        return await _answer(reader)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _answer(reader: asyncio.StreamReader) -> int:
    while True:
        kind, rectangles = struct.unpack(">BxH", await reader.readexactly(4))
        if kind != _UPDATE:
            return _PROHIBITED
        for _ in range(rectangles):
            x, y, width, height, encoding = struct.unpack(">4Hi", await reader.readexactly(12))
            if encoding == _EXTENDED_DESKTOP_SIZE:
                (screens,) = await reader.readexactly(1)
                await reader.readexactly(3 + 16 * screens)
                if x == _OUR_REQUEST:
                    return int(y)
            elif encoding == _RAW:
                await reader.readexactly(4 * width * height)
            else:
                return _PROHIBITED
