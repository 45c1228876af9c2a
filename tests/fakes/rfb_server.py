"""What a VNC server says, whole message by whole message: to make streams with, and to read what the relay made of them."""

import struct
from dataclasses import dataclass

from teleport.vrde import rfb
from teleport.vrde.rfb import Rectangle, ServerKind


@dataclass(frozen=True)
class ServerMessage:
    """An update's rectangles, or the bytes of any other message."""

    kind: ServerKind
    data: bytes = b""
    rectangles: tuple[Rectangle, ...] = ()

    def pack(self) -> bytes:
        if self.kind is not ServerKind.UPDATE:
            return self.data
        head = struct.pack(">BxH", ServerKind.UPDATE, len(self.rectangles))
        return head + b"".join(each.pack() + each.data for each in self.rectangles)


def server_message(pixel_format: bytes):
    """A parser for rfb.MessageReader."""

    def parse():
        head = yield 1
        kind = ServerKind(head[0])
        if kind is not ServerKind.UPDATE:
            while (length := rfb.server_message_bytes(kind, head)) is None:
                head += yield 1
            return ServerMessage(kind, head + ((yield length - len(head)) if length > len(head) else b""))
        (count,) = struct.unpack(">xH", (yield 3))
        rectangles = []
        for _ in range(count):
            x, y, width, height, encoding = struct.unpack(">4Hi", (yield 12))
            size = rfb.payload_bytes(width, height, encoding, pixel_format)
            rectangles.append(Rectangle(x, y, width, height, encoding, (yield size) if size else b""))
        return ServerMessage(kind, rectangles=tuple(rectangles))

    return parse
