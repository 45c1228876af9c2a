"""What a viewer says into its microphone, in the memory that the guest's card records into; also after moves."""

import asyncio
import itertools

import pytest

from tests.integration.vrde.desk import Desk, Guest, at, migrate, settings, until, xfreerdp
from tests.integration.vrde.speaker import AC97_RECORDS, RECORDED_AT, RECORDED_BYTES, Talker

pytestmark = pytest.mark.qemu


def heard_hz(guest: Guest) -> float:
    """The left channel's frequency in the last 341 ms; 0 for silence."""
    path = guest.folder / "recorded"
    guest.qmp("pmemsave", val=RECORDED_AT, size=RECORDED_BYTES, filename=str(path))
    left = memoryview(path.read_bytes()).cast("h")[::2]
    return sum((a < 0) != (b < 0) for a, b in itertools.pairwise(left)) / 2 / (len(left) / 48000)


async def hears(guest: Guest, when: str) -> None:
    await until(lambda: 300 < heard_hz(guest) < 600, what=f"500 Hz in the guest {when}")


def test_a_viewer_is_heard_while_the_property_allows_it_and_wherever_the_guest_goes(short_folder, monkeypatch):
    async def recording(desk: Desk, name: str, *more: str) -> Guest:
        devices = ("-audiodev", "spice,id=sound", "-spice", f"unix=on,addr={short_folder}/{name}.spice,disable-ticketing=on",
                   "-device", "AC97,addr=7,audiodev=sound")  # fmt: skip
        return await desk.guest(name, *devices, *more, floppy=AC97_RECORDS, vnc=",audiodev=sound")

    def microphone(guest: Guest) -> str:
        return f"unix:{short_folder}/{guest.name}.spice"

    async def body(desk: Desk):
        talker = Talker(short_folder)
        monkeypatch.setenv("PULSE_SERVER", talker.environment)
        try:
            await talker.ready()
            first = await (await recording(desk, "a")).counting()
            front, status = await desk.front(settings(), first.vnc, microphone=microphone(first))
            viewer = desk.viewer(xfreerdp(status["port"], f"/microphone:sys:pulse,dev:{talker.MICROPHONE}"))
            await hears(first, "once the viewer is there")
            await front.update(settings(vrdeproperty="Client/DisableUpstreamAudio=1"))
            await until(lambda: heard_hz(first) == 0, what="silence while it is disabled")
            await front.update(settings(vrdeproperty="Client/DisableUpstreamAudio="))
            await hears(first, "again")

            second = await recording(desk, "b", "-incoming", "defer")
            await migrate(first, second)
            assert await front.retarget([second.vnc], {"microphone": microphone(second)}) == 1
            first.end()
            await hears(second, "where it has gone")

            there, _ = await desk.front(settings(), second.vnc, name="there", microphone=microphone(second))
            endpoints, channels = await there.tunnel(address="127.0.0.1")
            assert await front.retarget(endpoints, channels) == 1
            await there.update(settings(vrdeproperty="Client/DisableUpstreamAudio=1"))  # through it, then
            await until(lambda: heard_hz(second) == 0, what="silence while it is disabled there")
            await there.update(settings())
            await hears(second, "through the tunnel")
            await viewer.x.shows_guest()
            assert viewer.process.poll() is None
        finally:
            talker.end()

    asyncio.run(at(short_folder, body))
