"""A viewer keeps its one connection while the guest moves, however often; and notices nothing when a teleport fails."""

import asyncio
import os
import time

import pytest

from teleport.errors import UnreachableError
from tests.integration.vrde.desk import Desk, at, migrate, rdesktop, settings, until, xfreerdp

pytestmark = pytest.mark.qemu
MOVES = int(os.environ.get("TELEPORT_TEST_MOVES", "6"))


def test_two_viewers_stay_through_many_moves(short_folder):
    async def body(desk: Desk):
        here = await (await desk.guest("a")).counting()
        front, status = await desk.front(settings(vrdemulticon="on"), here.vnc)
        viewers = [desk.viewer(xfreerdp(status["port"])), desk.viewer(rdesktop(status["port"]), stdin=b"yes\n")]
        for viewer in viewers:
            await viewer.x.shows_guest()
        before = (await front.status())["sessions"]
        assert len(before) == 2
        counter, typed = 0, ""
        for move in range(MOVES):
            there = await desk.guest(f"b{move}", "-incoming", "defer")
            await migrate(here, there)
            began = time.monotonic()
            assert await front.retarget([there.vnc]) == 2
            for viewer in viewers:
                await viewer.x.moves(2)
            seen = time.monotonic() - began
            print(f"move {move}: both viewers show the guest {1000 * seen:.0f} ms after the switch began")
            here.end()  # the source's QEMU is gone, and nothing is missing
            here = there
            await viewers[move % 2].x.type(str(move % 10))
            typed += str(move % 10)
            await until(lambda: here.screen()[1] == typed, what="the typed text")  # noqa: B023  # awaited within the loop
            for number, viewer in enumerate(viewers):
                await viewer.x.shows_guest()
                viewer.x.shot(f"reattach-{number}-{move}")
            now = here.screen()[0]
            assert now > counter
            counter = now
        assert (await front.status())["sessions"] == before  # the very same connections
        for viewer in viewers:
            assert viewer.process.poll() is None

    asyncio.run(at(short_folder, body))


def test_a_switch_to_nowhere_changes_nothing(short_folder):
    async def body(desk: Desk):
        guest = await (await desk.guest()).counting()
        front, status = await desk.front(settings(), guest.vnc)
        with pytest.raises(UnreachableError):  # nobody watches
            await front.retarget([f"unix:{short_folder}/nowhere"])
        viewer = desk.viewer(xfreerdp(status["port"]))
        await viewer.x.shows_guest()
        before = (await front.status())["sessions"]
        with pytest.raises(UnreachableError):
            await front.retarget([f"unix:{short_folder}/nowhere"])
        await viewer.x.moves()
        assert (await front.status())["sessions"] == before
        assert (await front.status())["screens"] == [guest.vnc]

    asyncio.run(at(short_folder, body))


def test_the_front_outlives_the_source_and_finds_the_guest_again(short_folder):
    """QEMU is gone before anybody says where the guest is: the viewer waits, and sees it once told."""

    async def body(desk: Desk):
        source = await (await desk.guest("a")).counting()
        target = await desk.guest("b", "-incoming", "defer")
        front, status = await desk.front(settings(), source.vnc)
        viewer = desk.viewer(xfreerdp(status["port"]))
        await viewer.x.shows_guest()
        await migrate(source, target)
        source.end()
        await asyncio.sleep(1)
        assert await front.retarget([target.vnc]) == 1
        await viewer.x.moves()
        await viewer.x.type("back")
        await until(lambda: target.screen()[1] == "back", what="the typed text")

    asyncio.run(at(short_folder, body))


def test_a_viewer_that_stops_reading_stalls_nobody(short_folder):
    async def body(desk: Desk):
        source = await (await desk.guest("a")).counting()
        front, status = await desk.front(settings(vrdemulticon="on"), source.vnc)
        stuck, other = desk.viewer(xfreerdp(status["port"])), desk.viewer(xfreerdp(status["port"]))
        await stuck.x.shows_guest()
        await other.x.shows_guest()
        stuck.process.send_signal(19)  # SIGSTOP
        try:
            counter = source.screen()[0]
            await other.x.moves(30)
            assert source.screen()[0] > counter
            target = await desk.guest("b", "-incoming", "defer")
            await migrate(source, target)
            await front.retarget([target.vnc])
            source.end()
            await other.x.moves()
            await other.x.type("fine")
            await until(lambda: target.screen()[1] == "fine", what="the typed text")
        finally:
            stuck.process.send_signal(18)  # SIGCONT
        await stuck.x.moves()  # it catches up, on the connection it had
        assert len((await front.status())["sessions"]) == 2

    asyncio.run(at(short_folder, body))


def test_between_hosts_the_front_stays_and_a_tunnel_carries_the_display(short_folder):
    """The target's front has no port for viewers of its own; its tunnel serves the source's front, also when the guest moves on."""

    async def body(desk: Desk):
        source = await (await desk.guest("a")).counting()
        front, status = await desk.front(settings(), source.vnc)
        viewer = desk.viewer(xfreerdp(status["port"]))
        await viewer.x.shows_guest()
        session = (await front.status())["sessions"]

        target = await desk.guest("b", "-incoming", "defer")
        there, none = await desk.front(settings(vrdeextpack="none"), target.vnc, name="there")
        assert none["port"] == 0
        await migrate(source, target)
        endpoints, others = await there.tunnel(address="127.0.0.1")
        assert not others
        assert await there.tunnel(address="127.0.0.1") == (endpoints, {})
        assert await front.retarget(endpoints) == 1
        source.end()
        await viewer.x.moves()
        await viewer.x.type("far")
        await until(lambda: target.screen()[1] == "far", what="the typed text")

        third = await desk.guest("c", "-incoming", "defer")
        await migrate(target, third)
        await there.retarget([third.vnc])  # the tunnel breaks off, the first front dials again by itself
        target.end()
        await viewer.x.moves()
        await viewer.x.type("ther")
        await until(lambda: third.screen()[1] == "farther", what="the typed text")
        assert (await front.status())["sessions"] == session
        ticket = endpoints[0].split(":")[4]
        assert ticket not in desk.front_log() + desk.front_log("there")
        assert ticket not in str(await front.status())

        wrong = endpoints[0].replace(ticket, "0" * 64)
        with pytest.raises(UnreachableError):
            await front.retarget([wrong])
        with pytest.raises(UnreachableError, match="was not announced"):
            await front.retarget([endpoints[0].replace(endpoints[0].split(":")[3], "0" * 64)])
        assert "wrong ticket" in desk.front_log("there")
        await viewer.x.moves()

    asyncio.run(at(short_folder, body))
