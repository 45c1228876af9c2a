"""A headless Chromium, driven over its DevTools protocol: open a page, type, take a picture."""

import asyncio
import base64
import io
import itertools
import json
import subprocess
from pathlib import Path

from PIL import Image
from websockets.asyncio.client import connect

from tests.integration.vrde.desk import SHOTS, until


class Chromium:
    def __init__(self, folder: Path) -> None:
        self.profile = folder / "chromium"
        self.log = (folder / "viewer-chromium.log").open("wb")
        self.process = subprocess.Popen(
            ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--ignore-certificate-errors",
             "--window-size=760,520", "--remote-debugging-port=0", f"--user-data-dir={self.profile}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True,
        )  # fmt: skip
        self.numbers = itertools.count(1)

    async def open(self, url: str) -> "Chromium":
        active = self.profile / "DevToolsActivePort"
        port, path = (await until(lambda: active.exists() and active.read_text(), 60, "Chromium")).splitlines()[:2]
        self.socket = await connect(f"ws://127.0.0.1:{port}{path}", max_size=1 << 24)
        target = await self.ask("Target.createTarget", url=url)
        attached = await self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self.session = attached["sessionId"]
        return self

    async def ask(self, method: str, **parameters):
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        if hasattr(self, "session"):
            message["sessionId"] = self.session
        await self.socket.send(json.dumps(message))
        async with asyncio.timeout(30):
            while (answer := json.loads(await self.socket.recv())).get("id") != number:
                pass
        assert "error" not in answer, answer
        return answer["result"]

    async def value(self, expression: str):
        return (await self.ask("Runtime.evaluate", expression=expression))["result"].get("value")

    async def image(self, name: str = "") -> Image.Image:
        shot = await self.ask("Page.captureScreenshot", format="png")
        data = base64.b64decode(shot["data"])
        if name:
            SHOTS.mkdir(exist_ok=True)
            (SHOTS / f"{name}.png").write_bytes(data)
        return Image.open(io.BytesIO(data)).convert("RGB")

    async def shows_guest(self, name: str = "") -> None:
        """Waits for the counter's green, which is scaled with the page."""
        for _ in range(120):
            colours = {colour: count for count, colour in (await self.image(name)).getcolors(1 << 20)}
            if sum(count for (r, g, b), count in colours.items() if r < 20 and 150 < g < 190 and b < 20) > 100:
                return
            await asyncio.sleep(0.25)
        raise AssertionError("the guest is not seen in the page")

    async def moves(self) -> None:
        seen = set()
        for _ in range(120):
            seen.add((await self.image()).tobytes())
            if len(seen) > 3:
                return
        raise AssertionError("the picture stands still")

    async def type(self, text: str) -> None:
        for c in text:
            code = f"Key{c.upper()}" if c.isalpha() else f"Digit{c}"
            for kind in ("keyDown", "keyUp"):
                await self.ask("Input.dispatchKeyEvent", type=kind, key=c, code=code, text=c if kind == "keyDown" else "")
            await asyncio.sleep(0.03)

    async def end(self) -> None:
        if hasattr(self, "socket"):
            await self.socket.close()
        self.process.terminate()
        self.process.wait()
        self.log.close()
