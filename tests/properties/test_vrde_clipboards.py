"""The clipboards of VNC viewers, and of another host's front in the tunnel (see `vrde_streams`)."""

import contextlib
import struct

from hypothesis import given
from hypothesis import strategies as st

from teleport.vrde import vdagent
from teleport.vrde.clipboard_link import ClipboardLink
from teleport.vrde.gates import Gates
from teleport.vrde.rfb import ClientKind, RfbError
from teleport.vrde.rfb_clipboard import EXTENDED, RfbClipboard, extended, provided
from tests.properties.vrde_streams import served

cut_texts = st.one_of(
    st.builds(lambda data: struct.pack(">B3xi", ClientKind.CUT_TEXT, len(data)) + data, st.binary(max_size=60)),
    st.builds(extended, st.just(ClientKind.CUT_TEXT), st.integers(0, 2**32 - 1), st.binary(max_size=60)),
    st.builds(provided, st.just(ClientKind.CUT_TEXT), st.text(st.characters(exclude_categories=["Cs"]), max_size=60)),
    st.builds(lambda size: struct.pack(">B3xi", ClientKind.CUT_TEXT, -size) + bytes(size), st.integers(1, 12)),
)


@given(st.booleans(), st.lists(cut_texts, max_size=8))
def test_a_vnc_viewers_cut_texts(knows_more, messages):
    link = ClipboardLink(None, Gates())
    sent: list[bytes] = []
    viewer = RfbClipboard(link.clipboard, sent.append)
    viewer.encodings([EXTENDED] if knows_more else [])
    with contextlib.suppress(RfbError):
        for each in messages:
            viewer.received(each)
    viewer.end()
    assert sum(map(len, sent)) < 10_000
    assert not link.clipboard._viewers


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.builds(vdagent.pack, st.sampled_from(vdagent.Kind), st.binary(max_size=60)),
            st.just(vdagent.announcement(please_answer=True)),
        ),
        max_size=8,
    )
)
def test_the_clipboard_of_another_front(parts):
    link = ClipboardLink(None, Gates())
    served(link.serve_front, parts)
    assert not link.clipboard._viewers
