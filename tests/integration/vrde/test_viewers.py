"""Every viewer that runs here, against a real QEMU: the guest's picture moves in it, keys and pointer reach the guest."""

import asyncio

import pytest

from tests.fakes.mstsc import Mstsc
from tests.integration.vrde.desk import KEYPAD, SIZE_CHANGES, Desk, at, far_away, rdesktop, settings, until, xfreerdp

pytestmark = pytest.mark.qemu

VIEWERS = {
    "xfreerdp-tls-32": (xfreerdp, "TLS"),
    "xfreerdp-tls-24": (lambda port: xfreerdp(port, bpp=24), "TLS"),
    "xfreerdp-tls-16": (lambda port: xfreerdp(port, bpp=16), "TLS"),
    "xfreerdp-rdp-32": (lambda port: xfreerdp(port, security="rdp"), "Standard"),
    "rdesktop": (rdesktop, "TLS"),
    "rdesktop-5": (lambda port: rdesktop(port, "-5"), "TLS"),
    "rdesktop-4": (lambda port: rdesktop(port, "-4"), "Standard"),
}


@pytest.mark.parametrize("name", VIEWERS)
def test_the_guest_is_seen_and_typed_into(name, short_folder):
    argv, protection = VIEWERS[name]

    async def body(desk: Desk):
        guest = await (await desk.guest()).counting()
        front, status = await desk.front(settings(), guest.vnc)
        viewer = desk.viewer(argv(status["port"]), stdin=b"yes\n")
        await viewer.x.shows_guest()
        await viewer.x.moves()
        await viewer.x.type("guest1")
        await viewer.x.type("N234", KEYPAD)  # NumLock, then NumPad keys
        await until(lambda: guest.screen()[1] == "guest1234", what="the typed text in the guest")
        await viewer.x.moves()
        viewer.x.shot(f"viewer-{name}")
        (session,) = (await front.status())["sessions"]
        assert protection in session["protection"]
        assert session["user"] == "john"

    asyncio.run(at(short_folder, body))


def test_rdesktop_with_standard_security_when_nothing_else_is_allowed(short_folder):
    async def body(desk: Desk):
        guest = await (await desk.guest()).counting()
        front, status = await desk.front(settings(vrdeproperty="Security/Method=RDP"), guest.vnc)
        assert "fingerprint" not in status["details"]
        viewer = desk.viewer(rdesktop(status["port"], "-5"))
        await viewer.x.shows_guest()
        await viewer.x.type("old5")
        await until(lambda: guest.screen()[1] == "old5", what="the typed text in the guest")
        (session,) = (await front.status())["sessions"]
        assert session["protection"] == "Standard RDP Security"

    asyncio.run(at(short_folder, body))


def test_a_viewer_of_another_size_takes_the_guests(short_folder):
    async def body(desk: Desk):
        guest = await (await desk.guest()).counting()
        _, status = await desk.front(settings(), guest.vnc)
        viewer = desk.viewer(xfreerdp(status["port"], "/size:1024x768"), size="1024x768")
        await viewer.x.shows_guest()
        await viewer.x.moves()
        viewer.x.shot("viewer-other-size")

    asyncio.run(at(short_folder, body))


BELOW_TEXT = (72, 430, 80, 16)  # on the screen only once the guest has 480 lines


@pytest.mark.parametrize("name", ["xfreerdp-tls-32", "rdesktop", "rdesktop-4"])
def test_the_guest_changes_its_size(name, short_folder):
    async def body(desk: Desk):
        guest = await desk.guest(floppy=SIZE_CHANGES)
        _, status = await desk.front(settings(), guest.vnc)
        viewer = desk.viewer(VIEWERS[name][0](status["port"]), size="800x600", stdin=b"yes\n")
        await viewer.x.shows_guest()
        await viewer.x.type("a")
        await viewer.x.shows_guest(area=BELOW_TEXT)
        await viewer.x.moves(area=BELOW_TEXT)
        assert viewer.process.poll() is None

    asyncio.run(at(short_folder, body))


def test_a_viewer_that_asks_for_another_size_keeps_the_guests(short_folder):
    async def body(desk: Desk):
        guest = await (await desk.guest()).counting()
        _, status = await desk.front(settings(), guest.vnc)
        viewer = desk.viewer(xfreerdp(status["port"], "/dynamic-resolution"), size="1024x768")
        await viewer.x.shows_guest()
        for size in ((1000, 700), (800, 500)):
            viewer.x.resize_windows(*size)
            await viewer.x.moves()
        await viewer.x.type("still")
        await until(lambda: guest.screen()[1] == "still", what="the typed text in the guest")
        await viewer.x.shows_guest()
        await viewer.x.moves()
        assert viewer.process.poll() is None

    asyncio.run(at(short_folder, body))


def test_a_viewer_from_far_away(short_folder):
    """xrdp has put its viewer on the screen long before that one's answers come."""

    async def body(desk: Desk):
        guest = await (await desk.guest()).counting()
        _, status = await desk.front(settings(), guest.vnc)
        async with far_away(status["port"], seconds=0.25) as port:
            viewer = desk.viewer(xfreerdp(port, "/size:1024x768"), size="1024x768")
            await viewer.x.shows_guest()
            await viewer.x.moves()
            await viewer.x.type("far")
            await until(lambda: guest.screen()[1] == "far", what="the typed text in the guest")

    asyncio.run(at(short_folder, body))


@pytest.mark.parametrize("methods", [0, 0x1B])
def test_the_connection_sequence_of_mstsc(methods, short_folder):
    """Written from the protocol's documents; also when it offers RDP's own encryption inside TLS, which xrdp would stumble over."""

    async def body(desk: Desk):
        guest = await (await desk.guest()).counting()
        front, status = await desk.front(settings(), guest.vnc)
        viewer = Mstsc()
        try:
            await viewer.connect(status["port"], user="@1\\john", methods=methods)
            demand = await viewer.demand_active()
            assert b"RDP" in demand
            (session,) = (await front.status())["sessions"]
            assert (session["user"], session["screen"]) == ("john", 1)
        finally:
            viewer.writer.close()
            await viewer.writer.wait_closed()

    asyncio.run(at(short_folder, body))
