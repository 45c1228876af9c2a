"""spice-vdagentd's side of the clipboard, on a socket: what it is told can be read, and what it says is up to the test."""

import asyncio

from teleport.vrde import vdagent
from teleport.vrde.vdagent import Dialect, Kind, Messages, Said

AGENT = Dialect(selections=True)


class SpiceAgent:
    """`serve` is for asyncio.start_unix_server; `said` is what it was told of the clipboard, `writer` its way out."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[Said] = asyncio.Queue()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        messages = Messages()
        while data := await reader.read(1 << 16):
            for each in messages.feed(data):
                if each.kind is Kind.CAPABILITIES:
                    writer.write(vdagent.announcement(please_answer=False))
                elif each.kind is not Kind.MAX_CLIPBOARD and (said := AGENT.read(each)):
                    self.said.put_nowait(said)
        writer.close()
