"""A private xrdp for one VM: it speaks RDP's picture and input; who may come in and over what is the front's business.

It listens on a unix socket, reads nothing of the host's /etc/xrdp but its keyboard maps, and finds the relay on an address of 127/8
with VNC's password, since its libvnc dials TCP only. Facts about its configuration: design/vrde.md.

Its files are in a folder within the front's, so that they go with that one however the front ended. As another account it could not
reach them by their path; it is started with the folder as its working directory and names them from there.
"""

import asyncio
import contextlib
import os
import pwd
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from teleport.errors import HypervisorError, NotFoundError

START_SECONDS = 10
INSTALL_HINT = "install it with deploy/set-up (Debian's package xrdp; its service is not needed)"

_GLOBALS = """\
[Globals]
ini_version=1
fork=true
port=unix://.xrdp.sock
security_layer=rdp
crypt_level=none
allow_channels=true
allow_multimon=false
bitmap_cache=true
bitmap_compression=true
bulk_compression=true
new_cursors=true
max_bpp=32
use_fastpath=both
hidelogwindow=true
autorun=
[Logging]
LogFile=/proc/self/cwd/xrdp.log
LogLevel=WARNING
EnableSyslog=false
[Channels]
rdpdr=false
rdpsnd=true
drdynvc=true
cliprdr=true
rail=false
xrdpvr=false
tcutils=false
"""

_SCREEN = """\
[@{number}]
name=@{number}
lib=libvnc.so
ip={ip}
port={port}
username=na
password={password}
chansrvport={door}
"""


@dataclass(frozen=True)
class ScreenAddress:
    """Where the relay of one screen (from 1) listens for libvnc, and what serves its viewers' channels (xrdp's side door)."""

    number: int
    ip: str
    port: int
    password: str
    channels: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

    @property
    def door(self) -> str:
        """The side door's socket in xrdp's folder."""
        return f"door{self.number}"


def problem() -> str:
    """Why xrdp cannot be used here; "" when it can."""
    return "" if _program() else "xrdp is not installed"


def _program() -> str | None:
    return shutil.which("xrdp", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin")


def _account() -> pwd.struct_passwd | None:
    """Who xrdp runs as: nobody in particular when we are root, ourselves otherwise."""
    if os.geteuid() != 0:
        return None
    for name in ("xrdp", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    return None


class Xrdp:
    """The process. `socket_path` is where it takes connections, in a folder of mode 0700 of its own within `inside`."""

    def __init__(self, inside: Path) -> None:
        self._inside = inside
        self._doors: list[asyncio.Server] = []
        self._folder: Path | None = None
        self._process: asyncio.subprocess.Process | None = None

    @property
    def socket_path(self) -> str:
        """Its unix socket. Only after `start`."""
        return f"{self._folder}/xrdp.sock"

    async def start(self, screens: tuple[ScreenAddress, ...]) -> None:
        """Starts it and returns when it takes connections. Raises NotFoundError, HypervisorError with its own words."""
        program = _program()
        if program is None:
            raise NotFoundError("the remote display", "xrdp is not installed", INSTALL_HINT)
        account = _account()
        self._folder = Path(tempfile.mkdtemp(prefix="xrdp-", dir=self._inside))
        ini = _GLOBALS + "".join(
            _SCREEN.format(number=s.number, ip=s.ip, port=s.port, password=s.password, door=s.door) for s in screens
        )
        config = self._folder / "xrdp.ini"
        with os.fdopen(os.open(config, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(ini)
        doors = [self._folder / each.door for each in screens]
        for screen, path in zip(screens, doors, strict=True):
            self._doors.append(await asyncio.start_unix_server(screen.channels, path))
        if account:
            for path in (self._folder, config, *doors):
                os.chown(path, account.pw_uid, account.pw_gid)
        await self._spawn(program, account, self._folder)

    async def _spawn(self, program: str, account: pwd.struct_passwd | None, folder: Path) -> None:
        # setpriv ties its life to ours, so that a front that is killed leaves no xrdp behind.
        command = ["setpriv", "--pdeathsig", "TERM", "--no-new-privs"]
        if account:
            command += [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
        self._process = await asyncio.create_subprocess_exec(
            *command, program, "-n", "-c", "xrdp.ini",
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            cwd=folder, start_new_session=True,
        )  # fmt: skip
        try:
            async with asyncio.timeout(START_SECONDS):
                while self._process.returncode is None:
                    with contextlib.suppress(OSError):
                        _, writer = await asyncio.open_unix_connection(self.socket_path)
                        writer.close()
                        return
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pass
        words = self.last_words()
        await self.stop()
        raise HypervisorError("the remote display", f"xrdp does not start: {words or 'it says nothing'}")

    def last_words(self) -> str:
        """The end of its log."""
        if self._folder:
            with contextlib.suppress(OSError):
                return " / ".join((self._folder / "xrdp.log").read_text(errors="replace").splitlines()[-3:])
        return ""

    async def wait_dead(self) -> None:
        """Returns when the process is gone."""
        if self._process:
            await self._process.wait()

    async def stop(self) -> None:
        """Ends it and removes its folder."""
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                async with asyncio.timeout(3):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        for door in self._doors:
            door.close()
        self._doors.clear()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
