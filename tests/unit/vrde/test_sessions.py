from dataclasses import replace

import pytest

from teleport.errors import UsageError
from teleport.machines.vrde import VrdeSettings
from teleport.vrde import endpoint
from teleport.vrde.endpoint import TunnelEndpoint, UnixEndpoint
from teleport.vrde.sessions import Sessions


class Viewers:
    def __init__(self, settings: VrdeSettings) -> None:
        self.notes: list[str] = []
        self.closed: list[str] = []
        self.sessions = Sessions(settings, self.notes.append)

    def knock(self, client: str):
        return self.sessions.admit(
            client=client, user="u\n\x1b", screen=1, protection="TLS", close=lambda _: self.closed.append(client)
        )


def test_one_viewer_unless_told():
    viewers = Viewers(VrdeSettings())
    first = viewers.knock("a")
    assert viewers.knock("b") is None
    assert viewers.closed == []
    viewers.sessions.left(first)
    viewers.sessions.left(first)
    assert viewers.knock("b")
    assert [note.split()[:3] for note in viewers.notes] == [
        ["client", "a", "connected"],
        ["client", "b", "refused:"],
        ["client", "a", "disconnected"],
        ["client", "b", "connected"],
    ]
    assert all(note.isprintable() for note in viewers.notes)  # what a viewer calls itself cannot break a log


def test_taking_over_and_several():
    viewers = Viewers(VrdeSettings(reuse_connection=True))
    viewers.knock("a")
    viewers.knock("b")
    assert viewers.closed == ["a"]
    assert [s.client for s in viewers.sessions.all()] == ["b"]
    viewers.sessions.settings = replace(viewers.sessions.settings, multi_connection=True)
    third = viewers.knock("c")
    assert viewers.closed == ["a"]
    assert viewers.sessions.end(third.identifier)
    assert not viewers.sessions.end(third.identifier)
    viewers.sessions.end_all()
    assert viewers.closed == ["a", "c", "b"]


def test_endpoints_as_text():
    tunnel = TunnelEndpoint("fe80::1", 5000, "a" * 64, "b" * 64, 2)
    assert endpoint.from_text(endpoint.to_text(tunnel)) == tunnel
    assert endpoint.from_text("unix:/run/x") == UnixEndpoint("/run/x")
    assert "b" * 64 not in str(tunnel)
    for text in (
        "",
        "unix:relative",
        "unix:/" + "x" * 120,
        "tcp:1.2.3.4:5",
        "tunnel:h:1:a:b:1",
        f"tunnel:h:0:{'a' * 64}:{'b' * 64}:1",
    ):
        with pytest.raises(UsageError):
            endpoint.from_text(text)
