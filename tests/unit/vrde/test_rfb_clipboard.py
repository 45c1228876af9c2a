"""The clipboard of VNC viewers: in RFB's older form, in the extended one, and as it falls between a server's messages."""

import asyncio
import struct
import zlib

import pytest

from teleport.vrde import rfb, vdagent
from teleport.vrde.clipboard import Clipboard
from teleport.vrde.endpoint import UnixEndpoint
from teleport.vrde.gates import Gates
from teleport.vrde.relay import Relay
from teleport.vrde.rfb import ClientKind, RfbError, ServerKind
from teleport.vrde.rfb_clipboard import EXTENDED, RfbClipboard, extended, provided
from teleport.vrde.vdagent import Kind, Said
from tests.fakes.rfb_server import ServerMessage, server_message
from tests.fakes.until import until
from tests.unit.vrde.test_clipboard import Agent
from tests.unit.vrde.test_rfb import INIT

CAPABILITIES, REQUEST, NOTIFY, PROVIDE = 1 << 24, 1 << 25, 1 << 27, 1 << 28
PASTES = Said(Kind.REQUEST, vdagent.TEXT)


def cut_text(text: str) -> bytes:
    body = text.encode("latin-1")
    return struct.pack(">B3xi", ClientKind.CUT_TEXT, len(body)) + body


class Vnc:
    """A viewer with an RfbClipboard; `heard` is what it was sent."""

    def __init__(self, clipboard: Clipboard, *encodings: int) -> None:
        self._sent: list[bytes] = []
        self.clipboard = RfbClipboard(clipboard, self._sent.append)
        self.clipboard.encodings([rfb.Encoding.RAW, *encodings])

    def says(self, *messages: bytes) -> None:
        for each in messages:
            self.clipboard.received(each)

    def heard(self) -> list[bytes]:
        heard, self._sent[:] = list(self._sent), []
        return heard


def guest_pastes(agent: Agent) -> list[Said]:
    agent.heard()
    agent.says(vdagent.pack(Kind.REQUEST, struct.pack("<II", 0, vdagent.TEXT)))
    return agent.heard()


def text(said: str) -> list[Said]:
    return [Said(Kind.CLIPBOARD, vdagent.TEXT, said.encode())]


def test_texts_go_both_ways_in_the_older_form():
    agent = Agent().begin()
    vnc, other = Vnc(agent.clipboard), Vnc(agent.clipboard)
    vnc.says(cut_text("gr\xfc\xdfe\r\nzwei"))
    assert Said(Kind.GRAB, vdagent.TEXT) in agent.heard()
    assert guest_pastes(agent) == text("grüße\nzwei")
    assert not other.heard(), "one viewer's text went to the other"
    agent.copies("naïve ☃")
    for each in (vnc, other):
        assert each.heard() == [struct.pack(">B3xi", ServerKind.CUT_TEXT, 7) + b"na\xefve ?"]
    assert guest_pastes(agent) == [Said(Kind.CLIPBOARD)], "the viewer's text is no longer the clipboard's"
    vnc.says(cut_text("of one who goes"))
    vnc.clipboard.end()
    assert guest_pastes(agent) == [Said(Kind.CLIPBOARD)], "its text did not go with it"


def test_texts_go_both_ways_in_the_extended_form():
    agent = Agent().begin()
    vnc = Vnc(agent.clipboard, EXTENDED)
    [announced] = vnc.heard()
    assert struct.unpack_from(">iI", announced, 4) == (-8, 0x1F << 24 | 1)
    vnc.says(extended(ClientKind.CUT_TEXT, 0x1F << 24 | 1, bytes(4)), extended(ClientKind.CUT_TEXT, NOTIFY | 1))
    assert guest_pastes(agent) == []
    assert vnc.heard() == [extended(ServerKind.CUT_TEXT, REQUEST | 1)]
    vnc.says(provided(ClientKind.CUT_TEXT, "☃\nzwei"))
    assert agent.heard() == text("☃\nzwei")
    vnc.says(provided(ClientKind.CUT_TEXT, "unasked"))
    assert guest_pastes(agent) == text("unasked")
    agent.copies("aus dem Gast ☃")
    assert vnc.heard() == [provided(ServerKind.CUT_TEXT, "aus dem Gast ☃")]
    vnc.says(extended(ClientKind.CUT_TEXT, REQUEST | 1))
    assert vnc.heard() == [provided(ServerKind.CUT_TEXT, "aus dem Gast ☃")]
    vnc.says(extended(ClientKind.CUT_TEXT, NOTIFY))  # something that is no text
    assert guest_pastes(agent) == [Said(Kind.CLIPBOARD)]


def test_nothing_passes_while_it_is_switched_off():
    agent = Agent(inwards=False, outwards=False).begin()
    vnc = Vnc(agent.clipboard)
    vnc.says(cut_text("unheard"))
    assert guest_pastes(agent) == [Said(Kind.CLIPBOARD)]
    agent.copies("unseen")
    assert vnc.heard() == []
    agent.clipboard.allow(inwards=True, outwards=True)
    vnc.says(cut_text("heard"))
    assert guest_pastes(agent) == text("heard")


@pytest.mark.parametrize(
    "message",
    [
        extended(ClientKind.CUT_TEXT, PROVIDE | 1, b"no zlib"),
        extended(ClientKind.CUT_TEXT, PROVIDE | 1, zlib.compress(b"\0")),
        extended(ClientKind.CUT_TEXT, PROVIDE | 1, zlib.compress(b"\0\0\0\x09short")),
        struct.pack(">B3xi", ClientKind.CUT_TEXT, -2) + b"xx",
    ],
)
def test_what_makes_no_sense_is_refused(message: bytes):
    vnc = Vnc(Agent().begin().clipboard, EXTENDED)
    with pytest.raises(RfbError):
        vnc.says(message)
    with pytest.raises(RfbError):  # to a viewer that has not said that it knows the extended form
        Vnc(Agent().begin().clipboard).says(message)


def test_a_text_that_unpacks_to_a_gigabyte_is_none():
    agent = Agent().begin()
    vnc = Vnc(agent.clipboard, EXTENDED)
    bomb = zlib.compressobj(9)
    packed = bomb.compress(b"\x40\0\0\0") + b"".join(bomb.compress(bytes(1 << 20)) for _ in range(64)) + bomb.flush()
    assert len(packed) < rfb.MOST_TEXT_BYTES
    vnc.says(extended(ClientKind.CUT_TEXT, PROVIDE | 1, packed))
    assert guest_pastes(agent) == [Said(Kind.CLIPBOARD)]


def test_a_text_waits_for_the_end_of_the_servers_message(tmp_path):
    """Through a relay: half an update has gone out when the guest copies. A viewer that takes nothing is dropped."""

    async def body() -> None:
        agent = Agent().begin()
        half, rest = asyncio.Event(), asyncio.Event()

        async def qemu(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(rfb.VERSION)
            await reader.readexactly(12)
            writer.write(b"\1\1")
            await reader.readexactly(1)
            writer.write(bytes(4))
            await reader.readexactly(1)
            writer.write(INIT.pack())
            await reader.readexactly(10)  # the request; encodings are not asked for
            update = ServerMessage(ServerKind.UPDATE, rectangles=(rfb.Rectangle(0, 0, 2, 2, 0, b"p" * 16),)).pack()
            writer.write(update[:20])
            await writer.drain()
            half.set()
            await rest.wait()
            writer.write(update[20:])
            await reader.read()
            writer.close()

        server = await asyncio.start_unix_server(qemu, f"{tmp_path}/qemu")
        relay = Relay(endpoint=UnixEndpoint(f"{tmp_path}/qemu"), name="S", gates=Gates())

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await relay.serve(reader, writer, label="viewer", clipboard=agent.clipboard)

        front = await asyncio.start_unix_server(serve, f"{tmp_path}/front")
        reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/front")
        writer.write(rfb.VERSION + b"\1\1" + rfb.set_encodings([0]))
        await reader.readexactly(12 + 2 + 4 + len(INIT.pack(b"S")))
        writer.write(rfb.update_request(0, 0, 2, 2, incremental=False))
        messages = rfb.MessageReader(server_message(INIT.pixel_format))
        found = messages.feed(await reader.readexactly(20))
        assert not found
        agent.copies("late")
        rest.set()
        while len(found) < 2:
            found += messages.feed(await reader.read(100))
        assert [each.kind for each in found] == [ServerKind.UPDATE, ServerKind.CUT_TEXT]
        assert found[0].rectangles[0].data == b"p" * 16
        assert found[1].data.endswith(b"late")
        for number in range(8):  # it does not read any more
            agent.copies(f"{number}" * 900_000)
        await until(lambda: not relay.viewers)
        writer.close()
        front.close()
        server.close()

    asyncio.run(asyncio.wait_for(body(), 30))
