"""The guest's sound at the viewer: a tone out of an AC97 card, recorded behind xfreerdp, through a switch and a migration."""

import asyncio
import itertools
import os
import subprocess
import threading
from io import BufferedReader
from pathlib import Path

import pytest

from tests.integration.vrde.desk import GUEST, Desk, at, connect, migrate, settings, until, xfreerdp

pytestmark = pytest.mark.qemu
# Before the counter's code: finds the AC97 card in PCI slot 7, fills 100 periods of a square wave of 500 Hz (48 frames up, 48 down, at
# 48 kHz), lists it 32 times, starts, and keeps the list endless at every tick of the clock (int 0x1c).
TONE = bytes.fromhex(
    "31c08ed8baf80c66b81038008066efb2fc66ed24fc89c3b2f866b81438008066efb2fc66ed24fc89c6a30070b2f866b80438008066efb2fc66ed0c0566"
    "ef31c089daef8d5702ef8d5718efb800108ec031ffbb640066b800200020b9300066f3ab66b800e000e0b9300066f3ab4b75e5bf008066c70500000100"
    "66c74504004b000083c70881ff008175e88d541066b80080000066ef8d5415b01fee8d541bb001eee8130050522e8b16007080c214ec48241f42ee5a58"
    "cf8f0670008c0e7200"
)
BOOT_SECTOR = (TONE + GUEST[:122]).ljust(510, b"\0") + b"\x55\xaa"
CARD = ("-audiodev", "none,id=sound", "-device", "AC97,addr=7,audiodev=sound")
RATE_HZ, TONE_HZ = 44100, 500


class Recorder:
    """A PulseAudio server whose only sink plays to nobody, and what goes there: `heard()` is what the last half second was."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "pa.sock"
        self.environment = f"unix:{self._socket}"
        self._env = {**os.environ, "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder), "PULSE_SERVER": self.environment}
        sink = f"module-null-sink sink_name=speaker format=s16le rate={RATE_HZ} channels=2"
        self._ends: list[subprocess.Popen[bytes]] = []
        self._start("pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "--disable-shm=yes",
                    "-L", sink, "-L", f"module-native-protocol-unix socket={self._socket} auth-anonymous=1")  # fmt: skip
        self._last = bytearray()

    def _start(self, *argv: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            argv, env=self._env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._ends.append(process)
        return process

    async def ready(self) -> "Recorder":
        (await until(lambda: connect(self._socket), what="PulseAudio")).close()
        recording = self._start(
            "parec",
            "-d",
            "speaker.monitor",
            "--raw",
            "--format=s16le",
            f"--rate={RATE_HZ}",
            "--channels=1",
            "--latency-msec=50",
        )
        self._reader = threading.Thread(target=self._read, args=(recording.stdout,))
        self._reader.start()
        return self

    def _read(self, stream: BufferedReader) -> None:
        while data := stream.read1(4096):
            self._last = (self._last + data)[-RATE_HZ:]  # half a second of 16-bit samples

    def forget(self) -> None:
        self._last = bytearray()

    def heard(self) -> float | None:
        """The frequency in Hz; 0 for silence; None while less than half a second was recorded."""
        if len(self._last) < RATE_HZ:
            return None
        samples = memoryview(bytes(self._last)).cast("h")
        return sum((a < 0) != (b < 0) for a, b in itertools.pairwise(samples))

    def end(self) -> None:
        for process in reversed(self._ends):
            process.terminate()
            process.wait()
        if hasattr(self, "_reader"):
            self._reader.join()
        for process in self._ends:
            process.stdout.close()


def test_the_guests_sound_reaches_the_viewer_and_goes_on_after_a_migration(short_folder, monkeypatch):
    async def body(desk: Desk):
        recorder = Recorder(short_folder)
        try:
            await recorder.ready()
            monkeypatch.setenv("PULSE_SERVER", recorder.environment)
            source = await (await desk.guest("source", *CARD, floppy=BOOT_SECTOR, vnc=",audiodev=sound")).counting()
            front, status = await desk.front(settings(), source.vnc)
            viewer = desk.viewer(xfreerdp(status["port"], "/sound:sys:pulse"))
            await viewer.x.shows_guest()

            def tone() -> bool:  # a busy machine leaves gaps
                heard = recorder.heard()
                return heard is not None and 0.6 * TONE_HZ < heard < 1.2 * TONE_HZ

            try:
                await until(tone, what="the guest's tone")
            except AssertionError:
                print("heard", recorder.heard())
                raise

            await front.update(settings(vrdeproperty="Client/DisableAudio=1"))
            await until(lambda: recorder.heard() == 0, what="silence while sound is disabled")
            await front.update(settings(vrdeproperty="Client/DisableAudio="))
            await until(tone, what="the tone again")

            target = await desk.guest("target", *CARD, "-incoming", "defer", floppy=BOOT_SECTOR, vnc=",audiodev=sound")
            await migrate(source, target)
            await front.retarget([target.vnc])
            source.end()
            recorder.forget()
            await until(tone, what="the tone of the target")
            await viewer.x.moves()
            assert viewer.process.poll() is None
        finally:
            recorder.end()

    asyncio.run(at(short_folder, body))
