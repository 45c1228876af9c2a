"""The clipboard between a guest's agent and several viewers: what each gets, and what nobody gets."""

import struct
from collections.abc import Callable

import pytest

from teleport.vrde import vdagent
from teleport.vrde.clipboard import MOST_ASKED, Clipboard
from teleport.vrde.rdp.clipboard import ClipboardChannel, format_list
from teleport.vrde.rdp.pdu import RdpError
from teleport.vrde.vdagent import AgentError, Dialect, Kind, Messages, Said

GUEST = Dialect(selections=True)
ALL = 1 << vdagent.Capability.BY_DEMAND | 1 << vdagent.Capability.SELECTION | 1 << vdagent.Capability.MAX_CLIPBOARD
TEXT, UNICODE = 1, 13


class Agent:
    """The guest's side: what it was told, and what it says."""

    def __init__(self, *, inwards: bool = True, outwards: bool = True) -> None:
        self.clipboard = Clipboard(self._take, inwards=inwards, outwards=outwards)
        self._messages = Messages()
        self.said: list[Said] = []
        self.kinds: list[Kind] = []

    def _take(self, data: bytes) -> None:
        for each in self._messages.feed(data):
            self.kinds.append(each.kind)
            if each.kind not in (Kind.CAPABILITIES, Kind.MAX_CLIPBOARD) and (said := GUEST.read(each)):
                self.said.append(said)

    def begin(self) -> "Agent":
        self.clipboard.connected()
        self.says(vdagent.pack(Kind.CAPABILITIES, struct.pack("<II", 1, ALL)))
        return self

    def says(self, data: bytes) -> None:
        for each in Messages().feed(data):
            self.clipboard.received(each)

    def copies(self, text: str) -> None:
        self.says(GUEST.grab())
        if self.heard() == [Said(Kind.REQUEST, vdagent.TEXT)]:
            self.says(GUEST.clipboard(text))

    def heard(self) -> list[Said]:
        heard, self.said = self.said, []
        return heard


class Rdp:
    """A viewer with a ClipboardChannel; `offers` is what it can paste."""

    def __init__(self, clipboard: Clipboard, *, reads: Callable[[], bool] = lambda: True, has: str | None = None) -> None:
        self.has = has
        self.offers = False
        self.pasted: list[str | None] = []
        self.asked = 0
        self.channel = ClipboardChannel(clipboard, self._take, reads)
        self.channel.begin()
        self.copies(has)

    def _take(self, pdu: bytes) -> None:
        kind, flags, size = struct.unpack_from("<HHI", pdu)
        assert size == len(pdu) - 8
        if kind == 2 and size:  # FreeRDP 3 takes no notice of an empty list
            formats = {format_ for (format_,) in struct.iter_unpack("<I32x", pdu[8:])}
            self.offers = UNICODE in formats
            self.has = None  # what it had copied itself is replaced by any list
        elif kind == 4:
            self.asked += 1
        elif kind == 5:
            self.pasted.append(pdu[8:].decode("utf-16-le") if flags == 1 else None)

    def copies(self, text: str | None) -> None:
        self.has, self.offers = text, False
        self.channel.received(format_list(UNICODE, TEXT) if text is not None else format_list(3))

    def answers(self, data: bytes | None = None) -> None:
        body = data if data is not None else (f"{self.has}\0".encode("utf-16-le") if self.has is not None else b"")
        self.channel.received(struct.pack("<HHI", 5, 1 if self.has is not None else 2, len(body)) + body)

    def pastes(self) -> str | None:
        self.channel.received(struct.pack("<HHII", 4, 0, 4, UNICODE))
        return self.pasted.pop()


def test_a_viewers_text_goes_to_the_guest_when_somebody_pastes_there() -> None:
    agent = Agent().begin()
    assert agent.kinds == [Kind.CAPABILITIES, Kind.CAPABILITIES, Kind.MAX_CLIPBOARD]
    viewer, other = Rdp(agent.clipboard), Rdp(agent.clipboard)
    viewer.copies("one\r\ntwo ☃")
    assert agent.heard() == [Said(Kind.GRAB, vdagent.TEXT)]
    assert not viewer.asked, "it stays with the viewer until then"
    agent.says(GUEST.request())
    assert (viewer.asked, other.asked) == (1, 0)
    viewer.answers()
    assert agent.heard() == [Said(Kind.CLIPBOARD, vdagent.TEXT, "one\ntwo ☃".encode())]
    assert other.pastes() is None, "one viewer's text is not another's"
    viewer.answers()
    assert agent.heard() == [], "an answer that nobody asked for"


def test_the_guests_text_goes_to_all_viewers_also_to_later_ones_and_when_the_guest_has_moved() -> None:
    agent = Agent().begin()
    viewers = [Rdp(agent.clipboard), Rdp(agent.clipboard)]
    agent.copies("from\nthe guest")
    viewers.append(Rdp(agent.clipboard))
    assert [each.offers for each in viewers] == [True] * 3
    agent.clipboard.lost()
    assert [each.pastes() for each in viewers] == ["from\r\nthe guest\0"] * 3
    agent.begin()
    assert viewers[0].pastes()
    viewers[0].copies("newer")
    assert not viewers[1].offers
    assert viewers[1].pastes() is None


def test_whoever_copied_last_has_the_clipboard() -> None:
    agent = Agent().begin()
    first, second = Rdp(agent.clipboard, has="first's"), Rdp(agent.clipboard, has="second's")
    agent.heard()
    agent.says(GUEST.request())
    assert (first.asked, second.asked) == (0, 1)
    first.copies(None)  # a picture: what another viewer has stays
    second.answers()
    assert agent.heard() == [Said(Kind.CLIPBOARD, vdagent.TEXT, b"second's")]
    agent.copies("guest's")
    agent.says(GUEST.request())
    assert agent.heard() == [Said(Kind.CLIPBOARD, vdagent.NONE)]
    agent.says(GUEST.grab(vdagent.NONE))  # a picture
    assert not first.offers


def test_a_viewer_that_goes_leaves_nobody_waiting() -> None:
    agent = Agent().begin()
    viewer = Rdp(agent.clipboard, has="text")
    agent.says(GUEST.request())
    agent.heard()
    viewer.channel.end()
    assert agent.heard() == [Said(Kind.CLIPBOARD, vdagent.NONE), Said(Kind.RELEASE)]


def test_a_new_connection_is_told_what_a_viewer_has() -> None:
    agent = Agent().begin()
    viewer = Rdp(agent.clipboard, has="text")
    agent.says(GUEST.request())
    agent.clipboard.lost()
    viewer.answers()  # too late, and nobody is there
    agent.heard()
    agent.begin()
    assert agent.heard() == [Said(Kind.GRAB, vdagent.TEXT)]


def test_each_way_is_closed_alone_and_opened_again() -> None:
    agent = Agent(inwards=False, outwards=False).begin()
    viewer = Rdp(agent.clipboard, has="viewer's")
    agent.says(GUEST.request())
    assert agent.heard() == [Said(Kind.CLIPBOARD, vdagent.NONE)]
    assert not viewer.asked
    agent.copies("guest's")
    assert not viewer.offers

    agent.clipboard.allow(inwards=False, outwards=True)
    assert agent.heard() == [Said(Kind.REQUEST, vdagent.TEXT)]
    agent.says(GUEST.clipboard("guest's"))
    assert viewer.pastes() == "guest's\0"
    agent.clipboard.allow(inwards=True, outwards=False)
    assert not viewer.offers
    assert viewer.pastes() is None
    assert agent.heard() == [], "the guest copied last"

    viewer.copies("viewer's")
    agent.says(GUEST.request())
    agent.clipboard.allow(inwards=False, outwards=False)
    viewer.answers()
    assert agent.heard() == [Said(Kind.GRAB, vdagent.TEXT), Said(Kind.CLIPBOARD, vdagent.NONE), Said(Kind.RELEASE)]
    agent.clipboard.allow(inwards=True, outwards=True)
    assert agent.heard() == [Said(Kind.GRAB, vdagent.TEXT)]


def test_what_a_viewer_has_copied_itself_stays_when_the_guests_text_is_withdrawn() -> None:
    agent = Agent(inwards=False).begin()
    viewer, other = Rdp(agent.clipboard), Rdp(agent.clipboard)
    agent.copies("guest's")
    viewer.copies("viewer's")
    agent.clipboard.allow(inwards=False, outwards=False)
    assert viewer.has == "viewer's"
    assert not other.offers


def test_texts_that_are_too_long_are_not_taken() -> None:
    agent = Agent().begin()
    viewer = Rdp(agent.clipboard)
    agent.copies("kept")
    agent.says(vdagent.pack(Kind.GRAB, bytes(4) + struct.pack("<I", vdagent.TEXT)))
    agent.heard()
    agent.says(GUEST.clipboard("x" * (vdagent.MOST_TEXT_BYTES + 1)))
    assert viewer.pastes() == "kept\0"
    viewer.copies("☃" * (vdagent.MOST_TEXT_BYTES // 2))
    agent.says(GUEST.request())
    agent.heard()
    viewer.answers()
    assert agent.heard() == [Said(Kind.CLIPBOARD, vdagent.NONE)]


def test_a_guest_that_pastes_without_end_is_told_that_there_is_nothing() -> None:
    agent = Agent().begin()
    viewer = Rdp(agent.clipboard, has="text")
    agent.heard()
    for _ in range(MOST_ASKED + 3):
        agent.says(GUEST.request())
    assert viewer.asked == MOST_ASKED
    assert agent.heard() == 3 * [Said(Kind.CLIPBOARD, vdagent.NONE)]


def test_a_viewer_that_does_not_read_gets_no_long_answers() -> None:
    agent = Agent().begin()
    viewer = Rdp(agent.clipboard, reads=lambda: False)
    agent.copies("x" * 1000)
    assert viewer.pastes() is None


def test_a_message_larger_than_a_text_and_those_of_other_kinds_and_ports_are_read_past() -> None:
    messages = Messages()
    huge = vdagent.pack(Kind.CLIPBOARD, bytes(2 * vdagent.MOST_TEXT_BYTES))
    other = bytearray(vdagent.pack(Kind.GRAB, bytes(9000)))
    other[12:16] = struct.pack("<I", 16)  # VD_AGENT_GRAPHICS_DEVICE_INFO
    server_port = struct.pack("<II", 2, 5) + b"hello"
    found = []
    for at in range(0, len(stream := huge + bytes(other) + server_port + GUEST.release()), 777):
        found += messages.feed(stream[at : at + 777])
        assert len(messages._message) < 3000
    assert [each.kind for each in found] == [Kind.RELEASE]


def test_windows_and_old_agents_are_spoken_to_in_their_way() -> None:
    windows, asks = Dialect.of(struct.pack("<II", 0, 1 << 5 | 1 << 9))
    assert not asks
    [message] = Messages().feed(windows.clipboard("a\nb"))
    assert windows.read(message) == Said(Kind.CLIPBOARD, vdagent.TEXT, b"a\r\nb")
    assert vdagent.text_of(b"a\r\nb\0") == "a\nb"
    assert windows.limit() == b""
    with pytest.raises(AgentError, match="by demand"):
        Dialect.of(struct.pack("<II", 0, 1 << 3))
    primary = vdagent.Message(Kind.GRAB, bytes((1, 0, 0, 0)) + struct.pack("<I", vdagent.TEXT))
    assert GUEST.read(primary) is None, "X's primary selection is no clipboard"


@pytest.mark.parametrize("data", [struct.pack("<II", 1, 1 << 20), struct.pack("<IIIIQI", 1, 20, 2, 7, 0, 0)])
def test_what_is_no_agent_is_refused(data: bytes) -> None:
    with pytest.raises(AgentError):
        Messages().feed(data)


@pytest.mark.parametrize("pdu", [b"", b"\2\0\0\0", struct.pack("<HHI", 5, 1, 100) + b"short"])
def test_what_is_no_clipboards_pdu_is_refused(pdu: bytes) -> None:
    viewer = Rdp(Agent().clipboard)
    with pytest.raises(RdpError):
        viewer.channel.received(pdu)
