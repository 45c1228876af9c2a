"""JSON messages with descriptors beside them, over unix sockets of type SOCK_SEQPACKET: one packet, one message.

Used between a guardian and its agent, and between the two agents of one host. Standard library only.
"""

import asyncio
import json
import os
import socket
from array import array
from collections.abc import Sequence
from typing import Any

from teleport.errors import ProtocolError

MAX_BYTES = 160 * 1024  # below the kernel's default send buffer (208 KiB); a QEMU's argument list has some 10 KiB
MAX_FDS = 32

_FD = array("i")

Message = dict[str, Any]


def send(connection: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Sends one message; the descriptors stay open here. Raises OSError when the other end is gone or does not read."""
    data = json.dumps(message).encode()
    if len(data) > MAX_BYTES or len(fds) > MAX_FDS:
        raise ProtocolError("a message to a process of this host", f"too large: {len(data)} bytes, {len(fds)} descriptors")
    if fds:
        socket.send_fds(connection, [data], list(fds))
    else:
        connection.send(data)


def receive(connection: socket.socket) -> tuple[Message, list[int]] | None:
    """The next message with its descriptors (the caller's, close-on-exec), or None at the end.

    Raises BlockingIOError on a non-blocking socket without one, OSError, and ProtocolError for what is no such message.
    """
    try:
        # Not socket.recv_fds: it drops the flags that it is given (3.11), and the descriptors would leak into children.
        data, ancillary, flags, _ = connection.recvmsg(
            MAX_BYTES + 1, socket.CMSG_LEN(MAX_FDS * _FD.itemsize), socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionResetError:
        return None
    fds = [
        fd
        for level, kind, rights in ancillary
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        for fd in _fds(rights)
    ]
    if not data:
        close_all(fds)
        return None
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise ValueError("cut short")
        message = json.loads(data)
        if not isinstance(message, dict):
            raise ValueError("not an object")
    except ValueError as error:
        close_all(fds)
        raise ProtocolError("a message from a process of this host", str(error)) from error
    return message, fds


def _fds(rights: bytes) -> list[int]:
    return array("i", rights[: len(rights) - len(rights) % _FD.itemsize]).tolist()


async def receive_async(connection: socket.socket) -> tuple[Message, list[int]] | None:
    """`receive` on a non-blocking socket, waiting."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            return receive(connection)
        except BlockingIOError:
            readable = asyncio.Event()
            loop.add_reader(connection, readable.set)
            try:
                await readable.wait()
            finally:
                loop.remove_reader(connection)


def close_all(fds: Sequence[int]) -> None:
    """Closes descriptors that nobody wants."""
    for fd in fds:
        os.close(fd)
