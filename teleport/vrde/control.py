"""How a runner starts a VM's front, finds a running one again, and talks to it.

The front belongs to nobody: whoever can enter its folder (mode 0700) may command it. A runner that starts it, one that is restarted and
adopts it, and the one that runs the guest after a teleport on the same host all do the same: `Front(folder)`.
"""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from teleport import errors
from teleport.errors import HypervisorError, StorageError, TeleportError, UnreachableError
from teleport.machines.vrde import VrdeSettings, to_dict
from teleport.vrde.endpoint import CHANNELS
from teleport.vrde.front_config import CONTROL_SOCKET, GO_ON, LOG_FILE, MOST_LINE_BYTES, FrontConfig, Json

START_SECONDS = 30
ANSWER_SECONDS = 20
CONFIG_FILE = "vrde.json"


def _raise(answer: Json) -> None:
    kinds = {each.kind: each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, TeleportError)}
    kind = kinds.get(str(answer.get("kind")), TeleportError)
    raise kind(str(answer.get("what")), str(answer.get("why")), str(answer.get("hint", "")))


class FrontClient:
    """The other end of a front's control socket, by the front's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def ask(self, command: str, **arguments: object) -> Json:
        """One command. Raises UnreachableError when no front is there, and whatever the front answers."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self.folder / CONTROL_SOCKET, limit=MOST_LINE_BYTES)
                with contextlib.closing(writer):
                    writer.write(json.dumps({"do": command} | arguments).encode() + b"\n")
                    line = await reader.readline()
            answer: object = json.loads(line)
        except (OSError, ValueError) as error:
            raise UnreachableError("the remote display", f"its front does not answer ({error or 'time-out'})") from error
        if not isinstance(answer, dict):
            raise UnreachableError("the remote display", "what answers is no front")
        if not answer.pop("ok", False):
            _raise(answer)
        return answer

    async def status(self) -> Json:
        """pid, port, addresses, screens, sessions, details."""
        return await self.ask("status")

    async def retarget(self, screens: Sequence[str], channels: Mapping[str, str] | None = None) -> int:
        """The guest runs elsewhere, its channels (by the names of `endpoint.CHANNELS`, as far as there are any) too: call it once it runs
        there, never before. Returns how many viewers were switched."""
        answer = await self.ask("retarget", screens=list(screens), **(channels or {}))
        return int(str(answer["switched"]))

    async def update(self, settings: VrdeSettings) -> None:
        """Takes over settings that may change while it runs (not the port: stop and start for that)."""
        await self.ask("update", settings=to_dict(settings))

    async def console(self, *, address: str = "localhost", port: int = 0, screen: int = 1) -> Json:
        """A page for one browser: `url` with a one-time ticket, and the certificate's `fingerprint`. Raises NotFoundError without
        noVNC; the first call chooses where it listens."""
        return await self.ask("console", address=address, port=port, screen=screen)

    async def tunnel(self, *, address: str, port: int = 0) -> tuple[tuple[str, ...], dict[str, str]]:
        """Opens (or finds) the tunnel for another host's front: an endpoint a screen, and those of the guest's channels by their names,
        with `address` as their host; what the other side passes to `retarget`. They hold a secret: only over an authenticated channel."""
        opened = await self.ask("tunnel", address=address, port=port)
        place = f"tunnel:{address}:{opened['port']}:{opened['fingerprint']}:{opened['ticket']}"
        screens = tuple(f"{place}:{screen}" for screen in range(1, int(str(opened["screens"])) + 1))
        return screens, {name: f"{place}:{number}" for name, number in CHANNELS.items() if opened.get(name)}

    async def usb(self, seen: int) -> Json:
        """What viewers share: `generation` and `devices`, once that is another than `seen`, or after ten seconds."""
        return await self.ask("usb", seen=seen)

    async def usb_told(self, name: str, text: str) -> None:
        """What came of a device, for who shares it."""
        await self.ask("usb-told", name=name, text=text)

    async def stop(self, reason: str = "") -> None:
        """Ends it and returns when its process is gone. Nothing to do when there is none. Raises UnreachableError for one that is there
        and does not answer."""
        try:
            pid = int(str((await self.status())["pid"]))
            watched = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        except UnreachableError as error:
            if isinstance(error.__cause__, TimeoutError):
                raise
            return
        try:
            await self.ask("stop", reason=reason)
            gone = asyncio.Event()
            asyncio.get_running_loop().add_reader(watched, gone.set)
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await gone.wait()
            finally:
                asyncio.get_running_loop().remove_reader(watched)
        except TimeoutError as error:
            raise HypervisorError("the remote display", f"its front (process {pid}) does not end") from error
        finally:
            os.close(watched)


async def start(config: FrontConfig) -> Json:
    """Starts a front and returns its status once the port is bound. Raises what kept it from that; no front is there then, or it ends by
    itself once it has come so far, as when this is cancelled.

    The folder is made with mode 0700 where it is missing; the log is `vrde.log` in it.
    """
    folder = Path(config.folder)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        config_path = folder / CONFIG_FILE
        config_path.unlink(missing_ok=True)
        with os.fdopen(os.open(config_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(config.to_json())
        log = os.open(folder / LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise StorageError("the remote display", f"its folder {folder} cannot be used: {error}") from error
    ours, theirs = socket.socketpair()
    with ours:
        try:
            # A session of its own: it must not end with its parent's terminal or process group.
            process = subprocess.Popen(  # noqa: ASYNC220 - fork and exec only: a millisecond
                [sys.executable, "-m", "teleport.vrde.front", "--detach", "--config", str(config_path),
                 "--starter-fd", str(theirs.fileno())],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(theirs.fileno(),), start_new_session=True, cwd="/",
            )  # fmt: skip
        finally:
            theirs.close()
            os.close(log)
        try:
            async with asyncio.timeout(START_SECONDS):
                # It forks away once it has read its modules: nobody's child, it needs nobody to outlive it.
                await asyncio.to_thread(process.wait)
                answer = await _settle(ours)
        except TimeoutError as error:
            raise HypervisorError(
                "the remote display", f"its front says nothing for {START_SECONDS} s; see {folder / LOG_FILE}"
            ) from error
    if answer is None:
        raise HypervisorError("the remote display", f"its front ended; see {folder / LOG_FILE}")
    if not answer.pop("ok", False):
        _raise(answer)
    return answer


async def _settle(with_front: socket.socket) -> Json | None:
    """What a front says of its start, None for one that ended. The other end of `teleport.vrde.front.Starter`: a front that serves is
    told to go on, and one that cannot is gone when this returns."""
    reader, writer = await asyncio.open_unix_connection(sock=with_front, limit=MOST_LINE_BYTES)
    with contextlib.closing(writer):
        line = await reader.readline()
        answer = json.loads(line) if line else None
        if not isinstance(answer, dict):
            return None
        if answer.get("ok"):
            writer.write(GO_ON)
        else:
            await reader.read()
        return answer
