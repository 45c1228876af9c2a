"""The second extension: VNC alone, with a viewer written here (real RFB against a real QEMU)."""

import asyncio
import contextlib
import struct
from pathlib import Path

import pytest

from teleport.errors import UsageError
from teleport.vrde import rfb, vnc_password
from teleport.vrde.rfb import Encoding, MessageReader, ServerKind
from tests.fakes.rfb_server import ServerMessage, server_message
from tests.integration.vrde.desk import Desk, at, migrate, settings, until

pytestmark = pytest.mark.qemu
GREEN = b"\0\xa8\0\0"


class VncViewer:
    """RFB 3.8, 32 bits, Raw: keeps what it is shown."""

    @classmethod
    async def connect(cls, port: int, password: str = ""):
        viewer = cls()
        try:
            await viewer.begin(port, password)
        except BaseException:
            await viewer.aclose()
            raise
        return viewer

    async def aclose(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    async def begin(self, port: int, password: str) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        assert await self.reader.readexactly(12) == rfb.VERSION
        self.writer.write(rfb.VERSION)
        kinds = await self.reader.readexactly((await self.reader.readexactly(1))[0])
        self.writer.write(kinds[:1])
        if kinds[0] == 2:
            self.writer.write(vnc_password.response(password, await self.reader.readexactly(16)))
        if await self.reader.readexactly(4) != bytes(4):
            raise PermissionError((await self.reader.read(100))[4:].decode())
        self.writer.write(b"\1")
        head = await self.reader.readexactly(24)
        self.name = await self.reader.readexactly(struct.unpack_from(">I", head, 20)[0])
        self.size = struct.unpack_from(">HH", head)
        self.messages = MessageReader(server_message(head[4:20]))
        self.seen: list[ServerMessage] = []
        self.writer.write(rfb.set_encodings([Encoding.RAW, Encoding.DESKTOP_SIZE]))
        self.writer.write(rfb.update_request(0, 0, *self.size, incremental=False))

    async def see(self) -> ServerMessage:
        """The next message, asking for another."""
        async with asyncio.timeout(20):
            while not self.seen:
                data = await self.reader.read(1 << 16)
                assert data, "the viewer was disconnected"
                self.seen += self.messages.feed(data)
                if any(message.kind is ServerKind.UPDATE for message in self.seen):
                    self.writer.write(rfb.update_request(0, 0, *self.size, incremental=True))
            return self.seen.pop(0)

    async def sees_the_guest(self) -> None:
        while not any(GREEN in r.data for r in (await self.see()).rectangles):
            pass

    def type(self, text: str) -> None:
        for c in text:
            for down in (1, 0):
                self.writer.write(struct.pack(">BBxxI", 4, down, ord(c)))


def processes_of(folder: Path) -> list[Path]:
    """The processes whose command names something in a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone meanwhile
            if f"{folder}/".encode() in (entry / "cmdline").read_bytes():
                found.append(entry)
    return found


def test_a_viewer_stays_through_a_move(short_folder):
    async def body(desk: Desk):
        source = await (await desk.guest("a")).counting()
        front, status = await desk.front(settings(vrdeextpack="vnc"), source.vnc)
        assert status["extension"] == "vnc"
        async with contextlib.aclosing(await VncViewer.connect(status["port"])) as viewer:
            assert viewer.name == b"S"
            await viewer.sees_the_guest()
            viewer.type("one")
            await until(lambda: source.screen()[1] == "one", what="the typed text")
            target = await desk.guest("b", "-incoming", "defer")
            await migrate(source, target)
            assert await front.retarget([target.vnc]) == 1
            source.end()
            await viewer.sees_the_guest()
            viewer.type("two")
            await until(lambda: target.screen()[1] == "onetwo", what="the typed text")
            (session,) = (await front.status())["sessions"]
            assert session["client"].startswith("127.0.0.1:")
        await until(lambda: "disconnected" in desk.front_log())

    asyncio.run(at(short_folder, body))


def test_its_password_and_its_one_viewer(short_folder):
    async def body(desk: Desk):
        guest = await (await desk.guest()).counting()
        chosen = settings(vrdeextpack="vnc")
        chosen = type(chosen)(**{**vars(chosen), "properties": {"VNCPassword": "geheim"}})
        front, status = await desk.front(chosen, guest.vnc)
        with pytest.raises(PermissionError, match="wrong password"):
            await VncViewer.connect(status["port"], "hunter2")
        async with contextlib.aclosing(await VncViewer.connect(status["port"], "geheim")) as viewer:
            await viewer.sees_the_guest()
            with pytest.raises(PermissionError, match="another viewer is connected"):
                await VncViewer.connect(status["port"], "geheim")
            await viewer.sees_the_guest()
            assert "wrong VNC password" in desk.front_log()
            assert "several are not allowed" in desk.front_log()
            assert "geheim" not in desk.front_log()
        assert len((await front.status())["sessions"]) <= 1

    asyncio.run(at(short_folder, body))


def test_users_are_refused_by_name(short_folder):
    async def body(desk: Desk):
        with pytest.raises(UsageError, match="external"):
            await desk.front(settings(vrdeextpack="vnc", vrdeauthtype="external"), f"unix:{short_folder}/x")
        assert not processes_of(short_folder)

    asyncio.run(at(short_folder, body))


def test_a_front_that_nobody_waits_for_ends(short_folder):
    async def body(desk: Desk):
        starting = asyncio.create_task(desk.front(settings(vrdeextpack="vnc"), f"unix:{short_folder}/x"))
        await until(lambda: processes_of(short_folder), what="the front's process")
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await until(lambda: "nobody waits for it any more" in desk.front_log(), what="the front's last word")
        await until(lambda: not processes_of(short_folder), what="the front's end")

    asyncio.run(at(short_folder, body))
