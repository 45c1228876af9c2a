"""All viewers of one screen of one guest, and the guest's VNC, which may be exchanged under them (`retarget`).

Each viewer has a connection of its own to QEMU. QEMU throttles each by itself, so a viewer that stops reading stalls neither the guest
nor the others; what the relay holds for it is bounded by its buffers and one message.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator

from teleport.errors import TeleportError
from teleport.vrde import rfb
from teleport.vrde.clipboard import Clipboard
from teleport.vrde.endpoint import BUFFER_BYTES, Endpoint
from teleport.vrde.gates import Gates
from teleport.vrde.relay_viewer import Viewer
from teleport.vrde.upstream import Upstream

MOST_VIEWERS = 64
WRONG = "wrong password"

log = logging.getLogger("teleport.vrde.relay")


async def _by_password(right: bool) -> str:  # one answer to one question, as `admit` has it
    return "" if right else WRONG


class Relay:
    """One screen's; `gates` say what its viewers may see and do."""

    def __init__(self, *, endpoint: Endpoint, name: str, gates: Gates) -> None:
        self._endpoint = endpoint
        self.name = name
        self.gates = gates
        self._viewers: set[Viewer] = set()
        self._watchers: set[Callable[[], None]] = set()

    @property
    def endpoint(self) -> Endpoint:
        """Where the guest's VNC is."""
        return self._endpoint

    @endpoint.setter
    def endpoint(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._tell_watchers()

    @contextlib.contextmanager
    def watched(self, watcher: Callable[[], None]) -> Iterator[None]:
        """Calls `watcher` whenever the endpoint or the gates were exchanged."""
        self._watchers.add(watcher)
        try:
            yield
        finally:
            self._watchers.discard(watcher)

    def _tell_watchers(self) -> None:
        for each in tuple(self._watchers):
            each()

    @property
    def viewers(self) -> tuple[Viewer, ...]:
        """The viewers of now."""
        return tuple(self._viewers)

    async def serve(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        label: str,
        password: Callable[[], rfb.Password] | None = None,
        admit: Callable[[bool], Awaitable[str]] | None = None,
        clipboard: Clipboard | None = None,
        grants_sizes: bool = False,
    ) -> None:
        """Serves one viewer to its end and closes it.

        `admit` is told once whether the password was right, and says why the viewer may not go on ("": it may). `clipboard` is the
        guest's, for viewers whose own comes by RFB. `grants_sizes`: it may ask for sizes, gets them, and then the guest's again (xrdp,
        which sticks in a refusal).
        """
        viewer = Viewer(self, (reader, writer), label=label, clipboard=clipboard, grants_sizes=grants_sizes)
        writer.transport.set_write_buffer_limits(high=BUFFER_BYTES)
        with self._among(viewer), contextlib.closing(writer):
            if len(self._viewers) > MOST_VIEWERS:
                log.warning("viewer %s refused: %d viewers are enough", label, MOST_VIEWERS)
                return
            await viewer.serve(password() if password else None, admit or _by_password)

    @contextlib.contextmanager
    def _among(self, viewer: Viewer) -> Iterator[None]:
        self._viewers.add(viewer)
        try:
            yield
        finally:
            self._viewers.discard(viewer)

    async def size(self) -> tuple[int, int]:
        """The guest's screen now, in pixels. Raises UnreachableError."""
        probe = await Upstream.open(self.endpoint)
        probe.writer.close()
        return probe.init.width, probe.init.height

    async def retarget(self, endpoint: Endpoint) -> int:
        """Switches all viewers to another server and returns how many are there now.

        A viewer whose switch fails keeps trying by itself, for 30 s. Raises UnreachableError when none could be switched (and nothing
        answers there), and then everything is as before.
        """
        if not self._viewers:
            probe = await Upstream.open(endpoint)
            probe.writer.close()
            self.endpoint = endpoint
            return 0
        before, self.endpoint = self.endpoint, endpoint
        viewers = self.viewers
        ends = await asyncio.gather(*(each.switch(endpoint) for each in viewers), return_exceptions=True)
        failures = [end for end in ends if isinstance(end, BaseException)]
        for failure in failures:
            if not isinstance(failure, TeleportError | OSError):
                raise failure
        if failures and len(failures) == len(viewers):
            self.endpoint = before
            raise failures[0]
        for each in viewers:
            each.wake()
        return len(viewers) - len(failures)

    def set_gates(self, gates: Gates) -> None:
        """Changes what all viewers may see and do, at once."""
        self.gates = gates
        for each in self._viewers:
            each.apply_gates()
        self._tell_watchers()

    def drop_all(self) -> None:
        """Ends all viewers' connections."""
        for each in self.viewers:
            each.drop()
