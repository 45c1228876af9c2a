"""The browser console as the front's control socket asks for it: made when it is first wanted, so that nobody else pays for it."""

from typing import TYPE_CHECKING

from teleport.errors import BusyError, NotFoundError
from teleport.vrde.extension import Context

if TYPE_CHECKING:
    from teleport.vrde.browser import BrowserConsole


class Console:
    """At most one `BrowserConsole`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._browser: BrowserConsole | None = None

    async def open(self, *, address: str, port: int, screen: int) -> dict[str, object]:
        """`url` with a fresh ticket, `fingerprint`. Raises NotFoundError, BusyError."""
        try:
            # websockets and TLS
            from teleport.vrde import browser, certificate  # noqa: PLC0415 - 10 MB that a display without a browser does not need
        except ImportError as error:
            raise NotFoundError("the browser console", f"{error.name} is not installed", "install teleport[vrde]") from error

        if not 1 <= screen <= len(self._context.screens):
            raise NotFoundError("the browser console", f"the guest has no screen {screen}")
        shown = certificate.load(self._context.settings, self._context.keys)
        if self._browser is None:
            made = browser.BrowserConsole(self._context, shown.context)
            try:
                await made.start(address, port)
            except OSError as error:
                raise BusyError(
                    "the browser console", f"{address} port {port} cannot be bound: {error.strerror}", "choose another --port"
                ) from error
            self._browser = made
            self._context.note(f"browser console on port {made.port} of {address}")
        name = f"[{address}]" if ":" in address else address
        return {
            "url": f"https://{name}:{self._browser.port}/#{self._browser.ticket(screen)}",
            "fingerprint": shown.fingerprint,
        }

    async def stop(self) -> None:
        """Ends it, if it was ever opened."""
        if self._browser:
            await self._browser.stop()
