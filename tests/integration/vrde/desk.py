"""What the display is tested with: a guest of 122 bytes under a real QEMU, an X server, viewers, and the least of an X client."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

from PIL import Image

from teleport.machines.vrde import VrdeSettings, set_option
from teleport.vrde import control
from teleport.vrde.front_config import FrontConfig, Json

GUEST = (
    bytes.fromhex(  # boot sector: a counter at 18.2 Hz (row 2), typed keys (row 4), a walking colour bar (row 7)
        "31c08ed88ed0bc007cfbb80300cd10b800b88ec0fcbb90026631d2f4b401cd16740bb400cd16b41e89dfab89fb66a16c046639c574"
        "e56689c566426689d066b90a000000bf5e0166526631d266f7f12688152680053026c645012f83ef026685c075e6665a89d783e73f"
        "d1e781c7700426c605db26885501eba1"
    ).ljust(510, b"\0")
    + b"\x55\xaa"
)
SIZE_CHANGES = (
    bytes.fromhex(  # boot sector: a green screen of text, 720x400; with the first key 640x480 pixels of graphics, stripes that change
        "31c08ed88ed0bc007cfbb80300cd10b800b88ec031ffb82020b9d007fcf3ab31c0cd16b81200cd10bac403b80202efb800a08ec0"
        "31ffb90096a06c04f3aaf4ebf3"
    ).ljust(510, b"\0")
    + b"\x55\xaa"
)
GREEN = b"\0\xa8\0"  # behind the counter, as 24 bits of BGR(X)
COUNTER = (72, 32, 80, 16)  # x, y, width, height in pixels
KEYCODES = {
    c: first + i
    for row, first in (("1234567890", 10), ("qwertyuiop", 24), ("asdfghjkl", 38), ("zxcvbnm", 52))
    for i, c in enumerate(row)
}
KEYPAD = {"N": 77, "7": 79, "8": 80, "9": 81, "4": 83, "5": 84, "6": 85, "1": 87, "2": 88, "3": 89, "0": 90}
XFREERDP = shutil.which("xfreerdp") or "xfreerdp3"  # so called in Debian 13
_ASKS_WHY = XFREERDP.endswith("xfreerdp")  # FreeRDP 3 does not take Set Error Info, and says the same of every end
SHOTS = Path(os.environ.get("TELEPORT_TEST_SHOTS", "/tmp/teleport-vrde-shots"))


def settings(**options: str) -> VrdeSettings:
    """The display switched on, with options by their VirtualBox names."""
    value = set_option(set_option(VrdeSettings(), "vrde", "on"), "vrdeaddress", "127.0.0.1")
    for option, text in {"vrdeport": "43000-43200", **options}.items():
        value = set_option(value, option, text)
    return value


async def until(condition, seconds=30, what="the condition"):
    """Waits for a condition (a plain function) to become true and returns its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"timed out waiting for {what}"
        await asyncio.sleep(0.01)
    return value


def connect(path) -> socket.socket | None:
    s = socket.socket(socket.AF_UNIX)
    try:
        s.connect(str(path))
    except OSError:
        s.close()
        return None
    return s


class Guest:
    """A QEMU with the counter guest; its VNC is on a unix socket, as the runner starts it."""

    def __init__(self, folder: Path, name: str, *more: str, floppy: bytes = GUEST, vnc: str = "") -> None:
        self.folder, self.name = folder, name
        self.vnc = f"unix:{folder}/{name}.vnc"
        image = folder / "floppy.img"
        if not image.exists():
            image.write_bytes(floppy.ljust(1474560, b"\0"))
        self.log = (folder / f"{name}.log").open("wb")
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-accel", "tcg", "-m", "32", "-nodefaults", "-display", "none", "-vga", "std", "-usb",
             "-device", "usb-tablet", "-drive", f"if=floppy,format=raw,readonly=on,file={image}",
             "-vnc", f"{self.vnc},share=force-shared{vnc}", "-qmp", f"unix:{folder}/{name}.qmp,server=on,wait=off", *more],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )  # fmt: skip
        self.events: dict[str, float] = {}

    async def ready(self) -> "Guest":
        self.socket = await until(lambda: connect(self.folder / f"{self.name}.qmp"), what="QMP")
        self.file = self.socket.makefile("rw")
        self.file.readline()  # the greeting
        self.qmp("qmp_capabilities")
        return self

    def qmp(self, command: str, **arguments):
        self.file.write(json.dumps({"execute": command, "arguments": arguments}))
        self.file.flush()
        while "return" not in (message := json.loads(self.file.readline())):
            assert "error" not in message, message
            if "event" in message:
                stamp = message["timestamp"]
                self.events[message["event"]] = stamp["seconds"] + stamp["microseconds"] / 1e6
        return message["return"]

    def happened(self, event: str) -> bool:
        return bool(self.qmp("query-status")) and event in self.events

    def screen(self) -> tuple[int, str]:
        """The counter, and what was typed."""
        path = self.folder / "screen"
        self.qmp("pmemsave", val=0xB8000, size=4000, filename=str(path))
        text = path.read_bytes()[::2].decode("cp437")
        digits = text[160:176].strip()
        return int(digits) if digits.isdigit() else 0, text[328:400].strip()

    async def counting(self) -> "Guest":
        await until(lambda: self.screen()[0] > 0, what="the guest's counter")
        return self

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()
        if hasattr(self, "file"):
            self.file.close()
            self.socket.close()


@contextlib.asynccontextmanager
async def far_away(port: int, *, seconds: float) -> AsyncIterator[int]:
    """A port of 127.0.0.1 that passes bytes on to another, late by so much each way."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while True:
                due, data = await pieces.get()
                await asyncio.sleep(due - time.monotonic())
                writer.write(data) if data else writer.close()

        delivering = asyncio.create_task(deliver())
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                pieces.put_nowait((time.monotonic() + seconds, data))
        pieces.put_nowait((time.monotonic() + seconds, b""))
        await asyncio.wait([delivering], timeout=2 * seconds)
        delivering.cancel()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.closing(writer), contextlib.closing(back_writer):
            await asyncio.gather(carry(reader, back_writer), carry(back_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1")
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def migrate(source: Guest, target: Guest) -> None:
    """A native migration; returns when the target runs."""
    uri = f"unix:{source.folder}/migration"
    Path(uri[5:]).unlink(missing_ok=True)
    target.events.pop("RESUME", None)
    target.qmp("migrate-incoming", uri=uri)
    source.qmp("migrate", uri=uri)
    await until(lambda: target.happened("RESUME"), what="the target's resume")


class Xvfb:
    """An X server, with a client of our own: XTEST input, and GetImage to see what the viewer shows."""

    def __init__(self, size: str = "720x400") -> None:
        read_end, write_end = os.pipe()
        self.process = subprocess.Popen(
            ["Xvfb", "-displayfd", str(write_end), "-screen", "0", f"{size}x24", "-nolisten", "tcp"],
            pass_fds=[write_end], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(write_end)
        with os.fdopen(read_end) as pipe:
            number = pipe.readline().strip()
        self.size = tuple(map(int, size.split("x")))
        self.display = f":{number}"
        connected = connect(f"/tmp/.X11-unix/X{number}")
        assert connected
        self.s = connected
        self.s.sendall(struct.pack("<BxHHHHxx", 0x6C, 11, 0, 0, 0))
        setup = self._read(struct.unpack("<6xH", self._read(8))[0] * 4)
        root = 32 + (struct.unpack_from("<H", setup, 16)[0] + 3) // 4 * 4 + 8 * setup[21]
        self.root = struct.unpack_from("<I", setup, root)[0]
        self.s.sendall(struct.pack("<BxHHxx5s3x", 98, 4, 5, b"XTEST"))
        self.xtest = self._reply()[9]

    def _read(self, n: int) -> bytes:
        return self.s.recv(n, socket.MSG_WAITALL)

    def _reply(self) -> bytes:
        while (head := self._read(32))[0] != 1:  # an event, such as MappingNotify
            assert head, "the X server is gone"
        return head

    def fake(self, kind: int, detail: int, x: int = 0, y: int = 0) -> None:
        """2 key press, 3 key release, 4 and 5 button, 6 motion."""
        self.s.sendall(struct.pack("<BBHBBxxII8xhh8x", self.xtest, 2, 9, kind, detail, 0, self.root, x, y))

    def image(self, x: int = 0, y: int = 0, width: int = 0, height: int = 0) -> bytes:
        """32-bit pixels of a part, or of all."""
        width, height = width or self.size[0], height or self.size[1]
        self.s.sendall(struct.pack("<BBHIhhHHI", 73, 2, 5, self.root, x, y, width, height, 0xFFFFFFFF))
        return self._read(struct.unpack("<4xI24x", self._reply())[0] * 4)

    def resize_windows(self, width: int, height: int) -> None:
        """What somebody does who pulls at a window's edge; to all windows, for want of a better choice."""
        self.s.sendall(struct.pack("<BxHI", 15, 2, self.root))  # QueryTree
        (count,) = struct.unpack_from("<H", self._reply(), 16)
        for window in struct.unpack(f"<{count}I", self._read(4 * count)):
            self.s.sendall(struct.pack("<BxHIHxxII", 12, 5, window, 0xC, width, height))  # ConfigureWindow

    async def type(self, text: str, codes: dict[str, int] = KEYCODES) -> None:
        self.fake(6, 0, 300, 200)  # no window manager: the keys go where the pointer is
        await asyncio.sleep(0.2)
        for c in text:
            for kind in (2, 3):
                self.fake(kind, codes[c])
                await asyncio.sleep(0.03)

    def shot(self, name: str) -> Path:
        """A PNG of the whole screen, for people."""
        SHOTS.mkdir(exist_ok=True)
        path = SHOTS / f"{name}.png"
        Image.frombytes("RGB", self.size, self.image(), "raw", "BGRX").save(path)
        return path

    async def shows_guest(self, seconds: float = 30, area: tuple[int, int, int, int] = COUNTER) -> None:
        """Waits for the counter's green background, or that of an area: exact at 24 and 32 bits, about so at 16."""
        await until(lambda: self.green(area), seconds, "the guest in the viewer")

    def green(self, area: tuple[int, int, int, int] = COUNTER) -> bool:
        pixels = self.image(*area)
        greens = sum(1 for i in range(0, len(pixels), 4) if pixels[i] < 16 and 150 < pixels[i + 1] < 190 and pixels[i + 2] < 16)
        return greens > len(pixels) // 40

    async def moves(self, pictures: int = 4, seconds: float = 20, area: tuple[int, int, int, int] = COUNTER) -> None:
        """Waits until the counter, or an area, has shown so many different pictures more."""
        seen = {self.image(*area)}

        def more() -> bool:
            seen.add(self.image(*area))
            return len(seen) > pictures

        await until(more, seconds, "a moving picture")

    def end(self) -> None:
        self.s.close()
        self.process.terminate()
        self.process.wait()


class Viewer:
    """A viewer's process on an X server of its own."""

    def __init__(self, folder: Path, *argv: str, size: str = "720x400", stdin: bytes = b"") -> None:
        self.x = Xvfb(size)
        self.log_path = folder / f"viewer-{self.x.display[1:]}.log"
        self.log = self.log_path.open("wb")
        env = {**os.environ, "DISPLAY": self.x.display, "HOME": str(folder), "LC_ALL": "C.UTF-8"}
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=self.log, stderr=self.log, env=env, cwd=folder)
        assert self.process.stdin
        self.process.stdin.write(stdin)
        self.process.stdin.close()

    def words(self) -> str:
        return self.log_path.read_text(errors="replace")

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:  # xfreerdp 3 sometimes, while it is still connecting
            self.process.kill()
            self.process.wait()
        self.log.close()
        self.x.end()


def xfreerdp(
    port: int,
    *more: str,
    security: str = "tls",
    bpp: int = 32,
    user: str = "john",
    password: str = "secret",
    host: str = "127.0.0.1",
) -> list[str]:
    return [XFREERDP, f"/v:{host}", f"/port:{port}", f"/u:{user}", f"/p:{password}", f"/sec:{security}", "/cert:ignore",
            "/size:720x400", f"/bpp:{bpp}", *more]  # fmt: skip


def why_it_ended(words: str) -> str:
    """What xfreerdp says of its session's end; `words` where it lets itself be told."""
    return words if _ASKS_WHY else "ERRINFO_RPC_INITIATED_DISCONNECT"


def rdesktop(port: int, *more: str, user: str = "john", password: str = "secret") -> list[str]:
    return ["rdesktop", "-a", "16", "-N", "-u", user, "-p", password, "-g", "720x400", "-K", *more, f"127.0.0.1:{port}"]


class Desk:
    """Everything of one test, ended with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ends = contextlib.ExitStack()
        self._fronts: list[control.FrontClient] = []
        self.viewers: list[Viewer] = []

    async def guest(self, name: str = "source", *more: str, floppy: bytes = GUEST, vnc: str = "") -> Guest:
        made = Guest(self.folder, name, *more, floppy=floppy, vnc=vnc)
        self._ends.callback(made.end)
        return await made.ready()

    def viewer(self, argv: list[str], size: str = "720x400", stdin: bytes = b"") -> Viewer:
        made = Viewer(self.folder, *argv, size=size, stdin=stdin)
        self._ends.callback(made.end)
        self.viewers.append(made)
        return made

    async def front(
        self, chosen: VrdeSettings, *screens: str, name: str = "front", **channels: str
    ) -> tuple[control.FrontClient, Json]:
        folder = self.folder / name
        config = FrontConfig(
            vm_name="S",
            folder=str(folder),
            settings=chosen,
            screens=screens,
            keys=str(folder / "keys"),
            **channels,
        )
        client = control.FrontClient(folder)
        self._fronts.append(client)
        return client, await control.start(config)

    def front_log(self, name: str = "front") -> str:
        return (self.folder / name / control.LOG_FILE).read_text()

    def logs(self) -> str:
        """What everybody said, for a failed test."""
        paths = [*self.folder.glob("viewer-*.log"), *self.folder.glob(f"*/{control.LOG_FILE}")]
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in paths)

    async def end(self) -> None:
        self._ends.close()
        for each in self._fronts:
            await each.stop()


async def at(folder: Path, body) -> None:
    """Runs a test's body at a desk of its own."""
    desk = Desk(folder)
    try:
        await body(desk)
    except BaseException:
        print(desk.logs())
        for number, viewer in enumerate(desk.viewers):
            print(viewer.x.shot(f"failed-{number}"))
        raise
    finally:
        await desk.end()
