"""A guest that plays a tone on one of its cards, and who records what a viewer plays."""

import contextlib
import itertools
import math
import os
import struct
import subprocess
import threading
from collections.abc import Callable
from io import BufferedReader, BufferedWriter
from pathlib import Path

from tests.integration.vrde.desk import GUEST, connect, until


def _boot_sector(player: str) -> bytes:
    """The counter, and before it a program that lets a card play for ever."""
    return (bytes.fromhex(player) + GUEST[:122]).ljust(510, b"\0") + b"\x55\xaa"


# AC97 in PCI slot 7: 100 periods of a square wave of 500 Hz (48 frames up, 48 down, at 48 kHz), listed 32 times; every tick of the clock
# (int 0x1c) keeps the list endless.
AC97 = _boot_sector(
    "31c08ed8baf80c66b81038008066efb2fc66ed24fc89c3b2f866b81438008066efb2fc66ed24fc89c6a30070b2f866b80438008066efb2fc66ed0c05"
    "66ef31c089daef8d5702ef8d5718efb800108ec031ffbb640066b800200020b9300066f3ab66b800e000e0b9300066f3ab4b75e5bf008066c7050000"
    "010066c74504004b000083c70881ff008175e88d541066b80080000066ef8d5415b01fee8d541bb001eee8130050522e8b16007080c214ec48241f42"
    "ee5a58cf8f0670008c0e7200"
)
# Sound Blaster 16: 2 kHz (4 samples up, 4 down, 8 bits at 16 kHz) by DMA channel 1, auto-initialised.
SB16 = _boot_sector(
    "31c08ed8b800208ec031fffcb9f401b8c0c0ababb84040ababe2f4b005e60ae60cb059e60b30c0e602e602b09fe603b00fe603b002e683b001e60aba"
    "2602b001ee30c0eeba2c02b0d1eeb041eeb03eeeb080eeb0c6ee30c0eeb09feeb00fee"
)
# HD Audio in PCI slot 7: 1002 Hz (22 frames up, 22 down, at 44.1 kHz), through a segment that reaches the card's registers above 1 MB.
HDA = _boot_sector(
    "fa31c08ed8baf80c66b80438008066efb2fc66ed0c0666efb2f866b81038008066efb2fc66ed24f06695e800005b8db7c9008d87c9008944020f0114"
    "0f20c0400f22c06a080fa1480f22c0b800208ec031fffcb36466b800200020b9160066f3ab66b800e000e0b9160066f3abfecb75e4b800308ec031ff"
    "b10266b80000020066ab6631c066ab66b8c044000066ab6631c066abe2e440646766894508646766c74560114022006467894568646766c745601006"
    "27006467894568646766c7850801000080890000646789850c0100006467c785120100001140646766c7851801000000000300646766c78500010000"
    "02001000eb100f00000000000000ffff00000092cf00"
)
CARDS = (  # the boot sector, QEMU's devices, and the tone in Hz
    (AC97, ("-device", "AC97,addr=7,audiodev=sound"), 500),
    (HDA, ("-device", "intel-hda,addr=7", "-device", "hda-duplex,audiodev=sound"), 1002),
    (SB16, ("-device", "sb16,audiodev=sound"), 2000),
)
RATE_HZ = 44100


# AC97 in PCI slot 7 records for ever, at full gain, 16384 frames of 48 kHz and two channels over and over into the memory at
# `RECORDED_AT`; every tick of the clock keeps its list endless.
AC97_RECORDS = _boot_sector(
    "31c08ed8baf80c66b81038008066efb2fc66ed24fc89c3b2f866b81438008066efb2fc66ed24fc89c6a30070b2f866b80438008066efb2fc66ed0c05"
    "66ef31c089daefb804048d571aefb80f0f8d571cefbf008066c7050000020066c745040080000083c70881ff008175e889f266b80080000066ef8d54"
    "05b01fee8d540bb001eee8130050522e8b16007080c204ec48241f42ee5a58cf8f0670008c0e7200"
)
RECORDED_AT, RECORDED_BYTES = 0x20000, 0x10000


class SoundServer:
    """A PulseAudio server whose only sink plays to nobody; a viewer finds it through `environment`, as PULSE_SERVER."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "pa.sock"
        self.environment = f"unix:{self._socket}"
        self._env = {**os.environ, "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder), "PULSE_SERVER": self.environment}
        sink = f"module-null-sink sink_name=speaker format=s16le rate={RATE_HZ} channels=2"
        self._ends: list[subprocess.Popen[bytes]] = []
        self._threads: list[threading.Thread] = []
        self._start("pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "--disable-shm=yes",
                    "-L", sink, "-L", f"module-native-protocol-unix socket={self._socket} auth-anonymous=1")  # fmt: skip

    def _start(self, *argv: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            argv, env=self._env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._ends.append(process)
        return process

    async def _serves(self) -> None:
        (await until(lambda: connect(self._socket), what="PulseAudio")).close()

    def _beside(self, work: Callable[[], None]) -> None:
        self._threads.append(threading.Thread(target=work))
        self._threads[-1].start()

    def end(self) -> None:
        for process in reversed(self._ends):
            process.terminate()
            process.wait()
        for thread in self._threads:
            thread.join()
        for process in self._ends:
            process.stdout.close()
            with contextlib.suppress(OSError):
                process.stdin.close()


class Recorder(SoundServer):
    """With what goes to the sink: `heard()` is what the last half second was."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._last = bytearray()

    async def ready(self) -> "Recorder":
        await self._serves()
        recording = self._start("parec", "-d", "speaker.monitor", "--raw", "--format=s16le", f"--rate={RATE_HZ}", "--channels=1",
                                "--latency-msec=50")  # fmt: skip
        self._beside(lambda: self._read(recording.stdout))
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

    async def hears(self, tone_hz: int, when: str) -> None:
        """Returns once it is about this tone: a busy machine leaves gaps."""

        def is_it() -> bool:
            heard = self.heard()
            return heard is not None and 0.6 * tone_hz < heard < 1.2 * tone_hz

        try:
            await until(is_it, what=f"the tone of {tone_hz} Hz {when}")
        except AssertionError as error:
            raise AssertionError(f"{error}; heard {self.heard()}") from error


class Talker(SoundServer):
    """With somebody who says 500 Hz without end: `MICROPHONE` is where a viewer hears it."""

    MICROPHONE = "speaker.monitor"

    async def ready(self) -> "Talker":
        await self._serves()
        saying = self._start("pacat", "-d", "speaker", "--raw", "--format=s16le", "--rate=48000", "--channels=2",
                             "--latency-msec=20")  # fmt: skip
        self._beside(lambda: self._say(saying.stdin))
        return self

    def _say(self, stream: BufferedWriter) -> None:
        samples = [int(12000 * math.sin(2 * math.pi * 500 * at / 48000)) for at in range(4800)]
        tone = b"".join(struct.pack("<hh", each, each) for each in samples)
        with contextlib.suppress(OSError):  # it ends
            while True:
                stream.write(tone)
