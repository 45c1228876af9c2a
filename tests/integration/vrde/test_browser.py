"""The guest in a browser: noVNC in a headless Chromium, with the display's own login (`tests/integration/test_display.py`: through a
teleport)."""

import asyncio
import contextlib
import json
import ssl

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from teleport.errors import BusyError, NotFoundError
from teleport.machines.vrde import set_extradata
from teleport.vrde import vdagent
from teleport.vrde.auth import password_hash
from teleport.vrde.vdagent import Kind, Said
from tests.fakes.spice_agent import AGENT, SpiceAgent
from tests.integration.vrde.chromium import Chromium
from tests.integration.vrde.desk import Desk, at, settings, until

pytestmark = pytest.mark.qemu


def unchecked() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@contextlib.asynccontextmanager
async def browser(folder, url):
    made = Chromium(folder)
    try:
        yield await made.open(url)
    finally:
        await made.end()


async def copies_and_pastes(page: Chromium, agent: SpiceAgent) -> None:
    """Between the page's text and the guest's agent, beyond Latin-1."""
    async with asyncio.timeout(30):
        await page.value("shared.value = 'grüße ☃'; shared.dispatchEvent(new Event('input'))")
        while (await agent.said.get()).kind is not Kind.GRAB:
            pass
        agent.writer.write(AGENT.request())
        assert await agent.said.get() == Said(Kind.CLIPBOARD, vdagent.TEXT, "grüße ☃".encode())
        agent.writer.write(AGENT.grab())
        while (await agent.said.get()).kind is not Kind.REQUEST:
            pass
        agent.writer.write(AGENT.clipboard("aus dem Gast ☃"))
        for _ in range(100):
            if await page.value("shared.value") == "aus dem Gast ☃":
                return
            await asyncio.sleep(0.1)
    raise AssertionError("the guest's text is not in the page")


def test_the_login_page_and_the_clipboard(short_folder):
    async def body(desk: Desk):
        chosen = settings(vrdeauthtype="external", vrdeauthlibrary="VBoxAuthSimple", clipboard="bidirectional")
        agent = SpiceAgent()
        server = await asyncio.start_unix_server(agent.serve, f"{short_folder}/agent")
        guest = await (await desk.guest()).counting()
        chosen = set_extradata(chosen, "VBoxAuthSimple/users/john", password_hash("secret"))
        front, _ = await desk.front(chosen, guest.vnc, clipboard=f"unix:{short_folder}/agent")
        opened = await front.console()
        async with browser(short_folder, opened["url"].partition("#")[0]) as page:

            async def submit(password: str) -> None:
                await page.ask(
                    "Runtime.evaluate",
                    expression=f"login.elements.user.value='john'; login.elements.password.value='{password}'; login.requestSubmit()",
                )

            for _ in range(100):
                if await page.value("document.getElementById('login') && !document.getElementById('login').hidden"):
                    break
                await asyncio.sleep(0.1)
            await submit("hunter2")
            await until(lambda: "browser 127.0.0.1 refused" in desk.front_log())
            await page.image("browser-refused")
            await submit("secret")
            await page.shows_guest("browser-login")
            await copies_and_pastes(page, agent)
        server.close()
        assert "hunter2" not in desk.front_log()

    asyncio.run(at(short_folder, body))


def test_tickets_origins_and_paths(short_folder):
    async def body(desk: Desk):
        guest = await (await desk.guest()).counting()
        front, _ = await desk.front(settings(vrdemulticon="on"), guest.vnc)
        base, _, ticket = (await front.console())["url"].partition("/#")
        where = base.replace("https", "wss")

        async def refused(path: str, **more) -> int:
            with pytest.raises(InvalidStatus) as caught:
                async with connect(f"{where}{path}", ssl=unchecked(), **more):
                    pass
            return caught.value.response.status_code

        assert await refused(f"/{ticket}/socket", origin="https://elsewhere.example") == 403
        assert await refused("/nonsense/socket") == 403
        async with connect(f"{where}/{ticket}/socket", ssl=unchecked(), origin=base) as socket:
            assert await socket.recv() == b"RFB 003.008\n"
            assert await refused(f"/{ticket}/socket") == 403  # one time
        async with connect(f"{where}/login", ssl=unchecked()) as socket:
            await socket.send(json.dumps(["nonsense"]))
            await socket.wait_closed()
        for path, status in (("/", b"200"), ("/console.js", b"200"), ("/novnc/core/rfb.js", b"200"), ("/novnc/../package.json", b"404"),
                             ("/novnc/%2e%2e/x", b"404"), ("/etc/passwd", b"404")):  # fmt: skip
            port = int(where.rpartition(":")[2])
            reader, writer = await asyncio.open_connection("localhost", port, ssl=unchecked())
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode())
            answer = await reader.read()
            writer.close()
            assert answer.split(b" ")[1] == status, path
            if status == b"200":
                assert b"Content-Security-Policy" in answer
        with pytest.raises(NotFoundError, match="no screen 2"):
            await front.console(screen=2)

    asyncio.run(at(short_folder, body))


def test_a_taken_port_is_named(short_folder):
    async def body(desk: Desk):
        guest = await desk.guest()
        front, status = await desk.front(settings(), guest.vnc)
        with pytest.raises(BusyError, match=str(status["port"])):
            await front.console(address="127.0.0.1", port=status["port"])

    asyncio.run(at(short_folder, body))
