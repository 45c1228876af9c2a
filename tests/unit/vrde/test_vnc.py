"""The extension `vnc`: who guesses its password side by side gains no time, at this front or another."""

import asyncio
import time
from pathlib import Path

from teleport.machines.vrde import VrdeSettings
from teleport.vrde import rfb
from teleport.vrde import throttle as slowing
from teleport.vrde.auth import Simple
from teleport.vrde.endpoint import UnixEndpoint
from teleport.vrde.extension import Context
from teleport.vrde.login import Login
from teleport.vrde.screens import Screens
from teleport.vrde.sessions import Sessions
from teleport.vrde.throttle import Throttle
from teleport.vrde.vnc import VncServer

GUESSES = 4


def context(folder: Path, notes: list[str]) -> Context:
    settings = VrdeSettings(
        enabled=True, ports="43210-43290", address="127.0.0.1", extension="vnc", properties={"VNCPassword": "geheim"}
    )
    return Context(
        vm_name="S", folder=folder, keys=folder, settings=settings, authenticator=Simple({}), note=notes.append,
        screens=Screens(endpoints=[UnixEndpoint(f"{folder}/nobody")], name="S", settings=settings),
        sessions=Sessions(settings, notes.append), throttle=Throttle(time.monotonic),
    )  # fmt: skip


async def guess(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(rfb.VERSION + b"\2" + b"x" * 16)
    said = await reader.read()
    writer.close()
    return said


def test_guesses_side_by_side_gain_no_time(monkeypatch, tmp_path):
    monkeypatch.setattr(slowing, "FIRST_DELAY_SECONDS", 0.02)
    notes: list[str] = []
    given = context(tmp_path, notes)

    async def body() -> list[bytes]:
        server = VncServer(given)
        bound = await server.start()
        try:
            login = given.throttle.decide(given.authenticator, Login("john", "guess", "", "127.0.0.1"))
            _, *said = await asyncio.gather(login, *(guess(bound.port) for _ in range(GUESSES)))
            return said
        finally:
            await server.stop()

    began = time.monotonic()
    said = asyncio.run(asyncio.wait_for(body(), 30))
    assert all(each.endswith(b"wrong password") for each in said)
    assert sum("wrong VNC password" in note for note in notes) == GUESSES
    assert time.monotonic() - began > 0.29  # 0.02, 0.04, 0.08 and 0.16, although all came at once
    assert given.throttle.delay_seconds("127.0.0.1") == 0.32
