"""Two hosts' fronts: viewers of one copy and paste in a guest that is at the other."""

import asyncio
import contextlib
from pathlib import Path

from teleport.vrde import vdagent
from teleport.vrde.clipboard_link import ClipboardLink
from teleport.vrde.endpoint import UnixEndpoint
from teleport.vrde.gates import Gates
from teleport.vrde.vdagent import Kind, Said
from tests.fakes.spice_agent import AGENT, SpiceAgent


class Viewer:
    """A ViewerClipboard."""

    def __init__(self) -> None:
        self.offers: asyncio.Queue[str | None] = asyncio.Queue()
        self.asked = asyncio.Event()

    def offer(self, text: str | None) -> None:
        self.offers.put_nowait(text)

    def ask(self) -> None:
        self.asked.set()


def test_viewers_of_another_host_copy_and_paste_through_this_ones_front(tmp_path: Path) -> None:
    async def body() -> None:
        guest, viewer = SpiceAgent(), Viewer()
        far = ClipboardLink(UnixEndpoint(f"{tmp_path}/guest"), Gates())
        near = ClipboardLink(UnixEndpoint(f"{tmp_path}/nowhere"), Gates())
        dialled = 0

        async def serve_far(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal dialled
            dialled += 1
            with contextlib.closing(writer):
                await far.serve_front(reader, writer)

        servers = [
            await asyncio.start_unix_server(guest.serve, tmp_path / "guest"),
            await asyncio.start_unix_server(serve_far, tmp_path / "far"),
        ]
        tasks = [asyncio.create_task(each.run()) for each in (far, near)]
        near.clipboard.joined(viewer)
        near.clipboard.copied(viewer, has_text=True)
        near.retarget(UnixEndpoint(f"{tmp_path}/far"))
        assert await guest.said.get() == Said(Kind.GRAB, vdagent.TEXT)
        guest.writer.write(AGENT.request())
        await viewer.asked.wait()
        near.clipboard.pasted(viewer, "a\nb")
        while (said := await guest.said.get()).kind is Kind.GRAB:
            pass
        assert said == Said(Kind.CLIPBOARD, vdagent.TEXT, b"a\nb")
        guest.writer.write(AGENT.grab())
        assert await guest.said.get() == Said(Kind.REQUEST, vdagent.TEXT)
        guest.writer.write(AGENT.clipboard("from there"))
        assert await viewer.offers.get() == "from there"
        far.allow(Gates(clipboard_out=False))
        assert await viewer.offers.get() is None
        near.allow(Gates(clipboard_in=False, clipboard_out=False))
        assert dialled == 1, "the connection broke"
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in servers:
            server.close()

    asyncio.run(asyncio.wait_for(body(), 20))
