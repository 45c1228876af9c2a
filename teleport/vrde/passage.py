"""A server's RFB stream on its way through the relay, without I/O: passed on as it comes, and able to end at any moment.

Waiting for a whole update before passing it on would add its length to every frame's time, so pixels go through in the pieces in
which they arrive. When the server is exchanged in the middle of an update, `completion` says which bytes end it: black for the rest
of the rectangle (the full update that is asked for next paints over it) and rectangles that change nothing for the others.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from teleport.vrde import rfb
from teleport.vrde.rfb import Encoding, Rectangle, RfbError, ServerKind

_UPDATE_HEAD_BYTES, _RECTANGLE_HEAD_BYTES = 4, 12


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes for the viewer. `ends`: they are the last of their message; `size`: the desktop's new one in pixels, if it says so;
    `begins_update`: they are the first of an update."""

    data: bytes
    ends: bool = False
    begins_update: bool = False
    size: tuple[int, int] | None = None


class Passage:
    """Follows one server's stream.

    `pixel_format` must be what the server uses; `transform` (None: pass on) gets each whole rectangle and returns its data, as long;
    `allows` says which kinds of other messages may pass. All three may change at any time.
    """

    def __init__(self, pixel_format: bytes) -> None:
        self.pixel_format = pixel_format
        self.transform: Callable[[Rectangle], bytes] | None = None
        self.allows: Callable[[ServerKind], bool] = lambda _: True
        self._buffer = bytearray()
        self._rectangles_left = 0
        self._payload_left = 0
        self._held: Rectangle | None = None

    def feed(self, data: bytes) -> Iterator[Piece]:
        """The pieces that can go on now. What was yielded counts as passed on: each must be, before the next is asked for.

        Raises RfbError.
        """
        if self._payload_left and self._held is None and not self._buffer:
            taken, data = data[: self._payload_left], data[self._payload_left :]
            yield self._passed(taken)
        self._buffer += data
        while before := len(self._buffer):
            if piece := self._step():
                yield piece
            elif len(self._buffer) == before:
                return

    @property
    def is_between_messages(self) -> bool:
        """Whether what was passed on ends with a whole message."""
        return not (self._rectangles_left or self._payload_left)

    def completion(self) -> bytes:
        """What ends the message under way; the passage must not be fed any more. Empty between two messages."""
        # A held rectangle has been announced by its head only when its payload went with it.
        rest = bytes(self._payload_left) if self._held is None else b""
        left, self._rectangles_left, self._payload_left, self._held = self._rectangles_left, 0, 0, None
        return rest + left * Rectangle(0, 0, 0, 0, Encoding.RAW).pack()

    def _passed(self, data: bytes) -> Piece:
        self._payload_left -= len(data)
        return Piece(data, ends=self._payload_left == 0 and self._rectangles_left == 0)

    def _take(self, count: int) -> bytes:
        taken = bytes(memoryview(self._buffer)[:count])
        del self._buffer[:count]
        return taken

    def _step(self) -> Piece | None:
        """The next piece out of the buffer; None when it holds too little for one, or what it took is not for the viewer (yet)."""
        if self._held is not None:
            return self._held_rectangle()
        if self._payload_left:
            return self._passed(self._take(min(self._payload_left, len(self._buffer))))
        if self._rectangles_left:
            return self._rectangle_head()
        return self._update_head() if self._buffer[0] == ServerKind.UPDATE else self._other_message()

    def _update_head(self) -> Piece | None:
        if len(self._buffer) < _UPDATE_HEAD_BYTES:
            return None
        head = self._take(_UPDATE_HEAD_BYTES)
        (self._rectangles_left,) = struct.unpack_from(">H", head, 2)
        return Piece(head, ends=self._rectangles_left == 0, begins_update=True)

    def _rectangle_head(self) -> Piece | None:
        if len(self._buffer) < _RECTANGLE_HEAD_BYTES:
            return None
        head = self._take(_RECTANGLE_HEAD_BYTES)
        x, y, width, height, encoding = struct.unpack(">4Hi", head)
        payload = rfb.payload_bytes(width, height, encoding, self.pixel_format)
        if self.transform and payload:
            self._held, self._payload_left = Rectangle(x, y, width, height, encoding), payload
            return None
        self._rectangles_left -= 1
        self._payload_left = payload
        size = (width, height) if encoding == Encoding.DESKTOP_SIZE else None
        return Piece(head, ends=payload == 0 and self._rectangles_left == 0, size=size)

    def _held_rectangle(self) -> Piece | None:
        held = self._held
        if held is None or len(self._buffer) < self._payload_left:
            return None
        whole = Rectangle(held.x, held.y, held.width, held.height, held.encoding, self._take(self._payload_left))
        self._held, self._payload_left = None, 0
        self._rectangles_left -= 1
        data = self.transform(whole) if self.transform else whole.data
        return Piece(whole.pack() + data, ends=self._rectangles_left == 0)

    def _other_message(self) -> Piece | None:
        try:
            kind = ServerKind(self._buffer[0])
        except ValueError as error:
            raise RfbError(f"a server's message of unknown kind {self._buffer[0]}") from error
        length = rfb.server_message_bytes(kind, bytes(self._buffer[:8]))
        if length is None or len(self._buffer) < length:
            return None
        message = self._take(length)
        return Piece(message, ends=True) if self.allows(kind) else None
