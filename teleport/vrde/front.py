"""The front: the process that owns a VM's display port, and outlives the VM's QEMU and runner.

::

    python -m teleport.vrde.front --config FILE [--starter-fd N] [--detach]

`FILE` (mode 0600) is `FrontConfig` as JSON. When the port is bound, or cannot be, one JSON line goes to the socket N:
``{"ok": true, …status}`` or ``{"ok": false, "what": …, "why": …, "hint": …, "kind": …}``. A front that serves is answered `GO_ON`, and
ends if it is not: nobody would know of it. From then on it is talked to over ``control.sock`` in its folder, one JSON object a line both
ways (`teleport.vrde.control` is the other end, of the socket N too):

    {"do": "status"}                         → {"ok": true, "pid": …, "port": …, "addresses": […], "screens": […], "agent": …, …}
    {"do": "sessions"}                       → {"ok": true, "sessions": […]}
    {"do": "retarget", "screens": […], "agent": "unix:/…"|""}  → {"ok": true, "switched": N}
    {"do": "update", "settings": {…}}        → {"ok": true}
    {"do": "disconnect", "session": N}       → {"ok": true, "ended": true|false}
    {"do": "console", "address": …, "port": N, "screen": N}  → {"ok": true, "url": "https://…/#TICKET", "fingerprint": …}
    {"do": "tunnel", "address": …, "port": N}  → {"ok": true, "port": N, "fingerprint": …, "ticket": …, "screens": N, "agent": true|false}
    {"do": "usb", "seen": N}                 → {"ok": true, "generation": N, "devices": […]}, once that differs from what was seen
    {"do": "usb-told", "name": …, "text": …} → {"ok": true}
    {"do": "stop", "reason": …}              → {"ok": true}, and the process ends

Beside each "agent" stand "clipboard" and "microphone", likewise.

A front whose guest's VNC answers nobody for `ORPHAN_SECONDS`, and whom nobody retargets, ends by itself.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path

from teleport.errors import TeleportError, UsageError
from teleport.machines.vrde import from_dict
from teleport.vrde import auth, extension
from teleport.vrde.clipboard_link import ClipboardLink
from teleport.vrde.endpoint import Endpoint, TunnelEndpoint, from_text
from teleport.vrde.front_config import CONTROL_SOCKET, GO_ON, LOG_FILE, MOST_LINE_BYTES, FrontConfig, Json
from teleport.vrde.gates import Gates
from teleport.vrde.guest_agent import GuestAgent
from teleport.vrde.microphone import Microphone
from teleport.vrde.screens import Screens
from teleport.vrde.sessions import Sessions
from teleport.vrde.streams import first_to_end
from teleport.vrde.throttle import Throttle
from teleport.vrde.tunnel import Tunnel
from teleport.vrde.usb import UsbDevices
from teleport.vrde.web_console import Console

ORPHAN_SECONDS = 180.0
LOOK_SECONDS = 15.0

log = logging.getLogger("teleport.vrde.front")


class Front:
    """One VM's display server with its control socket."""

    def __init__(self, config: FrontConfig) -> None:
        self._config = config
        self._settings = config.settings
        self._screens = Screens(endpoints=tuple(map(from_text, config.screens)), name=config.vm_name, settings=config.settings)
        self._sessions = Sessions(config.settings, _note)
        self._guest = GuestAgent(from_text(config.agent) if config.agent else None)
        self._authenticator = auth.Exchangeable(auth.build(config.settings, self._guest))
        self._done = asyncio.Event()
        self._bound: extension.Bound | None = None
        self._control: asyncio.Server | None = None
        found = extension.find(config.settings.extension)
        if problem := found.problem():
            raise UsageError("the remote display", problem)
        folder = Path(config.folder)
        self._clipboard = ClipboardLink(from_text(config.clipboard) if config.clipboard else None, Gates.of(config.settings))
        self._microphone = Microphone(
            from_text(config.microphone) if config.microphone else None, allowed=Gates.of(config.settings).microphone
        )
        self._usb = UsbDevices(folder, _note, allowed=not config.settings.is_disabled("USB"))
        self._context = extension.Context(
            vm_name=config.vm_name,
            folder=folder,
            keys=Path(config.keys or config.folder),
            settings=config.settings,
            screens=self._screens,
            sessions=self._sessions,
            authenticator=self._authenticator,
            throttle=Throttle(time.monotonic),
            note=_note,
            usb=self._usb,
            clipboard=self._clipboard,
            microphone=self._microphone,
            details=config.details,
        )
        self._server = found.serve(self._context)
        self._console = Console(self._context)
        self._tunnel = Tunnel(self._context, self._guest)
        self._socket_path = folder / CONTROL_SOCKET

    async def start(self) -> Json:
        """Binds the port and the control socket; returns the status. Raises TeleportError."""
        self._bound = await self._server.start()
        self._socket_path.unlink(missing_ok=True)
        self._control = await asyncio.start_unix_server(self._talk, self._socket_path, limit=MOST_LINE_BYTES)
        self._socket_path.chmod(0o600)
        log.info("VRDE: listening on port %d of %s", self._bound.port, ", ".join(self._bound.addresses))
        for name, value in self._server.details().items():
            log.info("VRDE: %s %s", name, value)
        return self.status()

    async def serve(self) -> None:
        """Returns when it is told to stop, or nobody is left to serve."""
        await first_to_end(self._done.wait(), self._watch(), self._clipboard.run(), self._microphone.run())

    async def stop(self) -> None:
        """Frees everything."""
        if self._control:
            self._control.close()
        self._socket_path.unlink(missing_ok=True)
        self._sessions.end_all()
        await self._console.stop()
        await self._tunnel.stop()
        await self._server.stop()
        self._screens.drop_all()

    def end(self) -> None:
        """Makes `serve` return."""
        self._done.set()

    def status(self) -> Json:
        """What `status` answers."""
        bound = self._bound
        return {
            "pid": os.getpid(),
            "vm": self._config.vm_name,
            "extension": self._settings.extension,
            "port": bound.port if bound else 0,
            "addresses": list(bound.addresses) if bound else [],
            "screens": [str(each) for each in self._screens.endpoints],
            "agent": str(self._guest.endpoint or ""),
            "clipboard": str(self._clipboard.endpoint or ""),
            "microphone": str(self._microphone.endpoint or ""),
            "sessions": [asdict(each) for each in self._sessions.all()],
            "details": {**self._server.details(), **({"limit": limit} if (limit := auth.limit(self._settings)) else {})},
        }

    async def _watch(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                _, writer = await self._screens.endpoints[0].dial()
                writer.close()
                last = time.monotonic()
            except TeleportError:
                if time.monotonic() - last > ORPHAN_SECONDS:
                    log.warning("VRDE: the guest's display has been gone for %d s: ending", ORPHAN_SECONDS)
                    self.end()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, ValueError):
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
                await writer.drain()

    async def _answer(self, line: bytes) -> Json:
        actions: dict[object, Callable[[Json], Awaitable[Json]]] = {
            "status": self._do_status,
            "sessions": self._do_sessions,
            "retarget": self._do_retarget,
            "update": self._do_update,
            "disconnect": self._do_disconnect,
            "console": self._do_console,
            "tunnel": self._do_tunnel,
            "usb": self._do_usb,
            "usb-told": self._do_usb_told,
            "stop": self._do_stop,
        }
        try:
            request = json.loads(line)
            if not isinstance(request, dict) or request.get("do") not in actions:
                raise UsageError("the display's front", "does not know this command")
            return {"ok": True} | await actions[request["do"]](request)
        except TeleportError as error:
            return failure(error)
        except (ValueError, TypeError, KeyError) as error:
            return failure(UsageError("the display's front", f"the command makes no sense: {error}"))

    async def _do_status(self, _: Json) -> Json:
        return self.status()

    async def _do_sessions(self, _: Json) -> Json:
        return {"sessions": self.status()["sessions"]}

    async def _do_retarget(self, request: Json) -> Json:
        texts = request["screens"]
        if not isinstance(texts, list) or not texts:
            raise UsageError("the display's front", "retarget needs the guest's screens")
        screens: tuple[Endpoint, ...] = tuple(from_text(str(each)) for each in texts)
        agent, clipboard, microphone = (str(request.get(name, "")) for name in ("agent", "clipboard", "microphone"))
        began = time.monotonic()
        switched = await self._screens.retarget(screens)
        self._open_log()
        self._tunnel.break_off()
        await self._usb.retarget(screens[0] if isinstance(screens[0], TunnelEndpoint) else None)
        self._guest.endpoint = from_text(agent) if agent else None
        self._clipboard.retarget(from_text(clipboard) if clipboard else None)
        self._microphone.retarget(from_text(microphone) if microphone else None)
        log.info(
            "VRDE: the guest is at %s now; %d viewers switched in %.0f ms",
            screens[0],
            switched,
            1000 * (time.monotonic() - began),
        )
        return {"switched": switched}

    def _open_log(self) -> None:
        """Another VM's log may stand behind the name by now."""
        with contextlib.suppress(OSError):
            log_file = os.open(Path(self._config.folder) / LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(log_file, sys.stderr.fileno())
            os.close(log_file)

    async def _do_update(self, request: Json) -> Json:
        raw = request["settings"]
        if not isinstance(raw, dict):
            raise UsageError("the display's front", "update needs the settings")
        settings = from_dict(raw)
        if settings.extension != self._settings.extension:
            raise UsageError(
                "--vrdeextpack", "cannot change while the display is on", "switch it off and on: controlvm NAME vrde off"
            )
        authenticator = auth.build(settings, self._guest)
        await self._server.update(settings)
        self._screens.update(settings)
        self._clipboard.allow(Gates.of(settings))
        self._microphone.allow(allowed=Gates.of(settings).microphone)
        self._sessions.settings = settings
        self._authenticator.current = authenticator
        self._settings = settings
        await self._usb.allow(allowed=not settings.is_disabled("USB"))
        return {}

    async def _do_disconnect(self, request: Json) -> Json:
        number = request["session"]
        return {"ended": isinstance(number, int) and self._sessions.end(number)}

    async def _do_console(self, request: Json) -> Json:
        return await self._console.open(
            address=str(request.get("address") or "localhost"),
            port=int(str(request.get("port") or 0)),
            screen=int(str(request.get("screen") or 1)),
        )

    async def _do_tunnel(self, request: Json) -> Json:
        return await self._tunnel.open(address=str(request["address"]), port=int(str(request.get("port") or 0)))

    async def _do_usb(self, request: Json) -> Json:
        generation, devices = await self._usb.waited(int(str(request["seen"])))
        return {"generation": generation, "devices": devices}

    async def _do_usb_told(self, request: Json) -> Json:
        self._usb.told(str(request["name"]), str(request["text"]))
        return {}

    async def _do_stop(self, request: Json) -> Json:
        log.info("VRDE: ending%s", f": {request['reason']}" if request.get("reason") else "")
        # The answer goes out first: the socket is closed on the way down.
        asyncio.get_running_loop().call_later(0.05, self.end)
        return {}


def _note(line: str) -> None:
    log.info("VRDE: %s", line)


def failure(error: TeleportError) -> Json:
    """An error as it travels over the control socket."""
    return {"ok": False, "kind": error.kind, "what": error.what, "why": error.why, "hint": error.hint}


class Starter:
    """Who has started this front and waits for it to serve or to fail, at the other end of a socket; -1: nobody waits."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor) if descriptor >= 0 else None

    def _tell(self, answer: Json) -> None:
        if self._socket:
            self._socket.sendall(json.dumps(answer).encode() + b"\n")

    async def wants(self, status: Json) -> bool:
        """Tells that the front serves. False: nobody waits for it any more."""
        if self._socket is None:
            return True
        with contextlib.suppress(OSError), self._socket:
            self._tell({"ok": True} | status)
            self._socket.setblocking(False)
            return await asyncio.get_running_loop().sock_recv(self._socket, 1) == GO_ON
        return False

    def hears(self, error: TeleportError) -> None:
        """Tells what keeps the front from serving. The socket stays open: its end is that of this process."""
        if self._socket:
            with contextlib.suppress(OSError):
                self._tell(failure(error))
            self._socket.detach()


async def run(config: FrontConfig, starter: Starter) -> int:
    """Serves one VM's display; returns the exit status."""
    try:
        front = Front(config)
    except TeleportError as error:
        starter.hears(error)
        return 1
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, front.end)
    try:
        if not await starter.wants(await front.start()):
            log.warning("VRDE: ending: nobody waits for it any more")
            return 1
        await front.serve()
    except TeleportError as error:
        log.error("%s", error)
        starter.hears(error)
        return 1
    finally:
        await front.stop()
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The process."""
    parser = argparse.ArgumentParser(prog="teleport.vrde.front", description="The process that owns a VM's display port")
    parser.add_argument("--config", required=True, type=Path)
    parser.add_argument("--starter-fd", type=int, default=-1)
    parser.add_argument("--detach", action="store_true", help="fork away: be nobody's child")
    options = parser.parse_args(arguments)
    if options.detach and os.fork():
        os._exit(0)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    starter = Starter(options.starter_fd)
    try:
        config = FrontConfig.from_json(options.config.read_text())
    except (OSError, UnicodeDecodeError) as error:
        starter.hears(UsageError("the display's configuration", str(error)))
        return 2
    except TeleportError as error:
        starter.hears(error)
        return 2
    return asyncio.run(run(config, starter))


if __name__ == "__main__":
    sys.exit(main())
