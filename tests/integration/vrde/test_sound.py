"""The guest's sound at the viewer, recorded behind xfreerdp, out of each card (from another host: tests/integration/test_display.py)."""

import asyncio

import pytest

from tests.integration.vrde.desk import Desk, at, settings, until, xfreerdp
from tests.integration.vrde.speaker import CARDS, Recorder

pytestmark = pytest.mark.qemu


def test_every_card_is_heard_and_the_property_silences_it(short_folder, monkeypatch):
    async def body(desk: Desk):
        recorder = Recorder(short_folder)
        monkeypatch.setenv("PULSE_SERVER", recorder.environment)
        front = None
        try:
            await recorder.ready()
            for number, (sector, card, tone_hz) in enumerate(CARDS):
                (desk.folder / "floppy.img").unlink(missing_ok=True)
                devices = ("-audiodev", "none,id=sound", *card)
                guest = await (await desk.guest(f"g{number}", *devices, floppy=sector, vnc=",audiodev=sound")).counting()
                if front is None:
                    front, status = await desk.front(settings(), guest.vnc)
                    viewer = desk.viewer(xfreerdp(status["port"], "/sound:sys:pulse"))
                    await viewer.x.shows_guest()
                else:
                    await front.retarget([guest.vnc])
                    recorder.forget()
                await recorder.hears(tone_hz, f"out of {card}")
                if number == 0:
                    await front.update(settings(vrdeproperty="Client/DisableAudio=1"))
                    await until(lambda: recorder.heard() == 0, what="silence while sound is disabled")
                    await front.update(settings(vrdeproperty="Client/DisableAudio="))
                    await recorder.hears(tone_hz, "again")
                guest.end()
            assert viewer.process.poll() is None
        finally:
            recorder.end()

    asyncio.run(at(short_folder, body))
