"""What the properties switch off, and on again, while a viewer is connected (manual, 7.1.10)."""

import asyncio

import pytest

from tests.integration.vrde.desk import Desk, at, settings, until, xfreerdp

pytestmark = pytest.mark.qemu


def test_display_and_input_are_switched_off_and_on_again(short_folder):
    async def body(desk: Desk):
        guest = await (await desk.guest()).counting()
        front, status = await desk.front(settings(), guest.vnc)
        viewer = desk.viewer(xfreerdp(status["port"]))
        await viewer.x.shows_guest()

        await front.update(settings(vrdeproperty="Client/DisableDisplay=1"))
        await until(lambda: not any(p for i, p in enumerate(viewer.x.image()) if i % 4 != 3), what="a black screen")
        await viewer.x.type("blind")  # input is another property
        await until(lambda: guest.screen()[1] == "blind", what="the typed text")
        assert not any(p for i, p in enumerate(viewer.x.image()) if i % 4 != 3)
        viewer.x.shot("display-disabled")

        await front.update(settings(vrdeproperty="Client/DisableInput=1"))
        await viewer.x.shows_guest()
        await viewer.x.moves()
        await viewer.x.type("unheard")
        await viewer.x.moves(10)
        assert guest.screen()[1] == "blind"

        await front.update(settings(vrdeproperty="Client/DisableInput="))
        await viewer.x.type("2")
        await until(lambda: guest.screen()[1] == "blind2", what="the typed text")

    asyncio.run(at(short_folder, body))


def test_a_newcomer_finds_the_display_off(short_folder):
    async def body(desk: Desk):
        guest = await (await desk.guest()).counting()
        front, status = await desk.front(settings(vrdeproperty="Client/DisableDisplay=1"), guest.vnc)
        viewer = desk.viewer(xfreerdp(status["port"]))
        await until(lambda: "connected" in desk.front_log())
        while not guest.screen()[1]:  # nothing shows when the viewer is ready for keys
            await viewer.x.type("x")
        assert not any(p for i, p in enumerate(viewer.x.image()) if i % 4 != 3)
        await front.update(settings())
        await viewer.x.shows_guest()

    asyncio.run(at(short_folder, body))


def test_video_of_low_quality_is_coarser_and_sharp_again_when_it_stands_still(short_folder):
    async def body(desk: Desk):
        guest = await (await desk.guest()).counting()
        chosen = settings(vrdevideochannel="on", vrdevideochannelquality="10")
        front, status = await desk.front(chosen, guest.vnc)
        viewer = desk.viewer(xfreerdp(status["port"]))
        exact = {(0, 0, 0), (0, 168, 0), (255, 255, 255)}  # black, the counter's green, its digits

        def colours() -> set[tuple[int, int, int]]:
            pixels = viewer.x.image(72, 32, 80, 16)
            return {tuple(pixels[i : i + 3]) for i in range(0, len(pixels), 4)}

        await until(lambda: len(colours()) > 1, what="the guest")
        await until(lambda: not colours() <= exact, what="coarser colours on what moves")
        viewer.x.shot("video-10")
        guest.qmp("stop")
        await until(lambda: colours() <= exact, what="exact colours on what stands still")
        guest.qmp("cont")
        await until(lambda: not colours() <= exact, what="coarser colours on what moves")
        await front.update(settings())
        await until(lambda: colours() <= exact and len(colours()) > 1, what="exact colours without the video channel")
        await viewer.x.moves()

    asyncio.run(at(short_folder, body))
