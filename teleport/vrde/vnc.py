"""The second extension: plain VNC, the relay alone. It needs nothing installed, and proves that the interface is one.

VNC's own password has no user and eight bytes, and nothing is encrypted: for a trusted network, or a tunnel. One port has one screen,
so further screens of the guest are not to be had with it.
"""

import asyncio
import contextlib
from collections.abc import Mapping

from teleport.errors import UsageError
from teleport.machines.vrde import AuthType, VrdeSettings
from teleport.machines.vrde_properties import VNC_PROPERTIES, Property
from teleport.vrde import vnc_password
from teleport.vrde.endpoint import BUFFER_BYTES
from teleport.vrde.extension import Bound, Context, DisplayServer
from teleport.vrde.listen import listen
from teleport.vrde.relay import WRONG
from teleport.vrde.sessions import Session
from teleport.vrde.streams import Connections, peer_of

SCREEN = 1


class VncServer:
    """The DisplayServer of the extension `vnc`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._settings = context.settings
        self._servers: list[asyncio.Server] = []
        self._connections = Connections()

    async def start(self) -> Bound:
        """See DisplayServer."""
        _check(self._settings)
        bound, sockets = listen(self._settings.ports, self._settings.address)
        for each in sockets:
            self._servers.append(await asyncio.start_server(self._accept, sock=each, limit=BUFFER_BYTES))
        return bound

    async def stop(self) -> None:
        """See DisplayServer."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        await self._connections.end()

    async def update(self, settings: VrdeSettings) -> None:
        """See DisplayServer."""
        _check(settings)
        self._settings = settings

    def details(self) -> Mapping[str, str]:
        """See DisplayServer."""
        return {"security": "VNC password" if self._password else "none"}

    @property
    def _password(self) -> str:
        return self._settings.properties.get("VNCPassword", "")

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address, client = peer_of(writer)
        session: Session | None = None

        async def admit(right: bool) -> str:  # the relay's callback: one answer to one question
            nonlocal session

            async def check() -> bool:
                return right

            if not await self._context.throttle.judged(address, check):
                self._context.note(f"client {client} refused: wrong VNC password")
                return WRONG
            session = self._context.sessions.admit(
                client=client,
                user="",
                screen=SCREEN,
                protection=self.details()["security"],
                close=lambda _: writer.transport.abort(),
            )
            return "" if session else "another viewer is connected"

        password, clipboard = self._password, self._context.clipboard
        with contextlib.closing(writer), self._connections.one():
            try:
                await self._context.screens.relay(SCREEN).serve(
                    reader, writer, label=client, password=(lambda: vnc_password.fresh(password)) if password else None,
                    admit=admit, clipboard=clipboard.clipboard if clipboard else None,
                )  # fmt: skip
            finally:
                if session:
                    self._context.sessions.left(session)


def _check(settings: VrdeSettings) -> None:
    if settings.auth_type is not AuthType.NULL:
        raise UsageError(
            f"--vrdeauthtype {settings.auth_type.value}",
            "VNC knows passwords but no users",
            "use --vrdeauthtype null with --vrdeproperty VNCPassword=…, or the rdp extension",
        )


class VncExtension:
    """Plain VNC."""

    name = "vnc"

    @property
    def properties(self) -> Mapping[str, Property]:
        """See teleport.vrde.extension.Extension."""
        return VNC_PROPERTIES

    def problem(self) -> str:
        """See teleport.vrde.extension.Extension."""
        return ""

    def serve(self, context: Context) -> DisplayServer:
        """See teleport.vrde.extension.Extension."""
        return VncServer(context)


EXTENSION = VncExtension()
