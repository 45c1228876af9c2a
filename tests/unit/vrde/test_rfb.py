import hmac
import struct

import pytest

from teleport.vrde import rfb
from teleport.vrde.rfb import ClientKind, MessageReader, RfbError

FORMAT_32 = bytes((32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0))
FORMAT_16 = bytes((16, 16, 0, 1, 0, 31, 0, 63, 0, 31, 11, 5, 0, 0, 0, 0))
INIT = rfb.ServerInit(720, 400, FORMAT_32, b"QEMU")


def converse(handshake, incoming: bytes):
    """Drives a handshake with all that the other side says; returns (what was sent, what was left, the result)."""
    sent, answer = [], b""
    step = next(handshake)
    while True:
        if isinstance(step, int):
            answer, incoming = incoming[:step], incoming[step:]
            assert len(answer) == step, "the handshake wants more than there is"
        else:
            sent.append(step)
        try:
            step = handshake.send(answer)
        except StopIteration as end:
            return b"".join(sent), incoming, end.value


def test_the_relay_speaks_to_qemu():
    said = b"RFB 003.008\n" + b"\1\1" + bytes(4) + INIT.pack()
    sent, left, init = converse(rfb.server_handshake(), said)
    assert sent == b"RFB 003.008\n\1\1"
    assert (left, init) == (b"", INIT)


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 400",
        b"RFB 003.008\n\0",
        b"RFB 003.008\n\1\2",
        b"RFB 003.008\n\1\1" + b"\0\0\0\1",
        b"RFB 003.008\n\1\1" + bytes(4) + struct.pack(">HH", 65535, 65535) + FORMAT_32 + bytes(4),
        b"RFB 003.008\n\1\1" + bytes(4) + struct.pack(">HH", 1, 1) + FORMAT_32 + b"\xff" * 4,
        b"RFB 003.008\n\1\1" + bytes(4) + struct.pack(">HH", 1, 1) + bytes(16) + bytes(4),
    ],
)
def test_what_is_no_vnc_server_is_refused(said):
    with pytest.raises(RfbError):
        converse(rfb.server_handshake(), said)


PASSWORD = rfb.Password(b"c" * 16, b"r" * 16, hmac.compare_digest)


def begin(password: rfb.Password | None, says: bytes):
    return converse(rfb.viewer_security(password.challenge if password else b""), says)


@pytest.mark.parametrize(
    ("says", "password", "expected"),
    [
        (b"RFB 003.003\n\1", None, b"RFB 003.008\n\0\0\0\1" + b"INIT"),
        (b"RFB 003.003\n" + b"r" * 16 + b"\1", PASSWORD, b"RFB 003.008\n\0\0\0\2" + b"c" * 16 + bytes(4) + b"INIT"),
        (b"RFB 003.007\n\1\1", None, b"RFB 003.008\n\1\1" + b"INIT"),
        (b"RFB 003.008\n\1\1", None, b"RFB 003.008\n\1\1" + bytes(4) + b"INIT"),
        (b"RFB 003.008\n\2" + b"r" * 16 + b"\1", PASSWORD, b"RFB 003.008\n\1\2" + b"c" * 16 + bytes(4) + b"INIT"),
    ],
)
def test_viewers_of_all_versions(says, password, expected):
    sent, left, answer = begin(password, says)
    assert answer.response == (b"r" * 16 if password else b"")
    welcome, left, _ = converse(rfb.viewer_welcome(answer, b"INIT"), left)
    assert (sent + welcome, left) == (expected, b"")


def test_a_viewer_that_may_not_come_in_hears_why():
    _, _, answer = begin(PASSWORD, b"RFB 003.008\n\2" + b"x" * 16)
    assert rfb.viewer_refused(answer, "wrong password") == b"\0\0\0\1" + b"\0\0\0\x0ewrong password"
    _, _, answer = begin(PASSWORD, b"RFB 003.003\n" + b"x" * 16)
    assert rfb.viewer_refused(answer, "wrong password") == b"\0\0\0\1"
    _, _, answer = begin(None, b"RFB 003.003\n")
    assert rfb.viewer_refused(answer, "full") == b""  # this version has no answer here


def test_a_viewer_that_picks_another_security_is_refused():
    with pytest.raises(RfbError):
        begin(PASSWORD, b"RFB 003.008\n\1")


CLIENT = [
    (ClientKind.SET_PIXEL_FORMAT, b"\0\0\0\0" + FORMAT_16),
    (ClientKind.SET_ENCODINGS, rfb.set_encodings([0, 1, -239, -223])),
    (ClientKind.SET_ENCODINGS, rfb.set_encodings([])),
    (ClientKind.UPDATE_REQUEST, rfb.update_request(0, 0, 720, 400, incremental=True)),
    (ClientKind.KEY, b"\4\1\0\0\0\0\0\x41"),
    (ClientKind.POINTER, b"\5\1\0\1\0\2"),
    (ClientKind.CUT_TEXT, b"\6\0\0\0\0\0\0\3abc"),
    (ClientKind.CUT_TEXT, b"\6\0\0\0" + struct.pack(">i", -4) + b"abcd"),
    (ClientKind.CUT_TEXT, b"\6" + bytes(7)),
    (ClientKind.SET_DESKTOP_SIZE, b"\xfb\0\4\0\3\0\0\0"),
    (ClientKind.SET_DESKTOP_SIZE, b"\xfb\0\4\0\3\0\2\0" + bytes(32)),
    (ClientKind.QEMU, b"\xff\0\0\1" + bytes(8)),
    (ClientKind.QEMU, b"\xff\1\0\0"),
    (ClientKind.QEMU, b"\xff\1\0\2" + bytes(6)),
]


def test_a_viewers_messages_are_cut_right_however_they_arrive():
    data = b"".join(message for _, message in CLIENT)
    for step in (1, 2, 7, len(data)):
        reader = MessageReader(rfb.client_message)
        found = [m for at in range(0, len(data), step) for m in reader.feed(data[at : at + step])]
        assert [(m.kind, m.data) for m in found] == CLIENT


@pytest.mark.parametrize(
    "data",
    [
        b"\7",
        b"\1",
        b"G",
        b"\2\0\xff\xff",
        b"\6\0\0\0\x7f\xff\xff\xff",
        b"\6\0\0\0\x80\0\0\0",
        b"\xff\2",
        b"\xfb\0\0\0\0\0\x11\0",
    ],
)
def test_a_viewers_nonsense_ends_it(data):
    with pytest.raises(RfbError):
        MessageReader(rfb.client_message).feed(data)
