"""One viewer's microphone: the dynamic channel AUDIO_INPUT, open while the guest listens to this viewer."""

from collections.abc import Callable
from enum import Enum

from teleport.vrde.microphone import Microphone
from teleport.vrde.rdp import audio_input, side_door
from teleport.vrde.rdp.audio_input import AudioInput
from teleport.vrde.rdp.side_door import Closed, Dynamic, DynamicAssembly, Opened

NUMBER = 1  # ours for the channel, the only dynamic one that we open
TRANSPORT = "drdynvc"  # the static channel of viewers that know dynamic ones


class _State(Enum):
    CLOSED = "closed"
    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"


class MicrophoneChannel:
    """One viewer's; a `microphone.Speaker`. `send` takes blocks for xrdp."""

    def __init__(self, microphone: Microphone, send: Callable[[bytes], None]) -> None:
        self._microphone = microphone
        self._send = send
        self._state = _State.CLOSED
        self._is_wanted = False
        self._input = AudioInput()
        self._assembly = DynamicAssembly()

    def begin(self) -> None:
        """The viewer is there."""
        self._microphone.joined(self)

    def end(self) -> None:
        """The viewer has gone, or has no microphone."""
        self._microphone.left(self)

    def listen(self, *, wanted: bool) -> None:
        """See microphone.Speaker."""
        self._is_wanted = wanted
        self._move()

    def take(self, message: Dynamic) -> None:
        """Takes what xrdp says of a dynamic channel. Raises RdpError."""
        if message.channel != NUMBER:
            return
        if isinstance(message, Opened):
            self._opened(is_open=message.is_open)
        elif isinstance(message, Closed):
            before, self._state = self._state, _State.CLOSED
            if before is not _State.CLOSING:  # the viewer wants no more
                self.end()
            self._move()
        elif self._state is _State.OPEN and (pdu := self._assembly.feed(message)) is not None:
            self._send_all(self._input.received(pdu))
            if said := self._input.taken():
                self._microphone.spoke(self, said)
            if self._input.is_refused:
                self.end()

    def _opened(self, *, is_open: bool) -> None:
        if self._state is not _State.OPENING:
            return
        if not is_open:
            self._state = _State.CLOSED
            self.end()
            return
        self._state = _State.OPEN
        self._input, self._assembly = AudioInput(), DynamicAssembly()
        if self._is_wanted:
            self._send_all(self._input.begin())
        self._move()

    def _move(self) -> None:
        """Opens or closes the channel, when the last such wish has been answered."""
        if self._is_wanted and self._state is _State.CLOSED:
            self._state = _State.OPENING
            self._send(side_door.open_dynamic(NUMBER, audio_input.CHANNEL))
        elif not self._is_wanted and self._state is _State.OPEN:
            self._state = _State.CLOSING
            self._send(side_door.close_dynamic(NUMBER))

    def _send_all(self, pdus: list[bytes]) -> None:
        for each in pdus:
            self._send(side_door.pack_dynamic(NUMBER, each))
