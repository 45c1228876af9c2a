"""A USB keyboard in software: the host's side of usbredir, as `usbredirect` speaks it for a real device.

(USB 2.0, 9.3 and 9.6 for requests and descriptors; HID 1.11, appendix B, for the keyboard's.)
"""

import asyncio
import struct
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from teleport.vrde.usbredir import Kind, Packet, PacketReader, hello

VENDOR, PRODUCT, REVISION = 0x1D6B, 0x0104, 0x0123
NAME = "Teleport Keyboard"
CAPABILITIES = 0b11111111  # also what no guest is told of: bulk streams, filters, disconnect_ack
_IN = 0x81
_REPORT = bytes.fromhex("05010906a101050719e029e71500250175019508810295017508810195067508150025650507190029658100c0")
_DEVICE = struct.pack("<2B H 4B 3H 4B", 18, 1, 0x200, 0, 0, 0, 8, VENDOR, PRODUCT, REVISION, 1, 2, 0, 1)
_BODY = (
    bytes.fromhex("090400000103010100")
    + struct.pack("<2B H 3B H", 9, 0x21, 0x111, 0, 1, 0x22, len(_REPORT))
    + struct.pack("<4B H B", 7, 5, _IN, 3, 8, 10)
)
_CONFIGURATION = struct.pack("<2B H 5B", 9, 2, 9 + len(_BODY), 1, 1, 0, 0xA0, 50) + _BODY
_STRINGS = {0: struct.pack("<H", 0x409), 1: "Teleport".encode("utf-16-le"), 2: NAME.encode("utf-16-le")}


def _descriptor(value: int) -> bytes | None:
    kind, index = value >> 8, value & 0xFF
    if kind == 3 and index in _STRINGS:
        return bytes((2 + len(_STRINGS[index]), 3)) + _STRINGS[index]
    return {1: _DEVICE, 2: _CONFIGURATION, 0x21: _BODY[9:18], 0x22: _REPORT}.get(kind)


def introduction() -> tuple[Packet, ...]:
    """What a host says of this device."""
    interfaces = struct.pack("<I", 1) + b"\0" * 32 + bytes([3]).ljust(32, b"\0") + bytes([1]).ljust(32, b"\0")
    interfaces += bytes([1]).ljust(32, b"\0")
    kinds, intervals, owners, sizes = bytearray(b"\xff" * 32), bytearray(32), bytearray(32), [0] * 32
    kinds[0] = kinds[16] = 0
    kinds[16 + 1], intervals[16 + 1], sizes[16 + 1] = 3, 10, 8
    endpoints = bytes(kinds + intervals + owners) + struct.pack("<32H", *sizes)  # streams follow for who has the capability
    connect = struct.pack("<4B3H", 1, 0, 0, 0, VENDOR, PRODUCT, REVISION)
    return (
        Packet(Kind.INTERFACE_INFO, 0, interfaces),
        Packet(Kind.EP_INFO, 0, endpoints),
        Packet(Kind.DEVICE_CONNECT, 0, connect),
    )


class _Server:
    """Serves one connection after the other."""

    def __init__(self) -> None:
        self.resets = 0
        self.listens = False
        self._writer: asyncio.StreamWriter | None = None
        self._wide = False
        self._sent = 0

    async def run(self) -> None:
        """Says its port, then obeys its standard input: a HID usage presses that key (4: A), `?` asks for the state."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while line := (await lines.readline()).strip():
            if line == b"?":
                print(self.resets, int(self.listens), flush=True)
            else:
                self._press(int(line))

    def _press(self, usage: int) -> None:
        for report in (bytes((0, 0, usage, 0, 0, 0, 0, 0)), bytes(8)):
            self._sent += 1
            self._send(Packet(Kind.INTERRUPT, self._sent, struct.pack("<2BH", _IN, 0, 8) + report))

    def _send(self, packet: Packet) -> None:
        if self._writer:
            self._writer.write(packet.pack(wide=self._wide))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer, self._wide = writer, False
        packets, greeted = PacketReader(), False
        self._send(Packet(Kind.HELLO, 0, hello(CAPABILITIES).body))
        while data := await reader.read(65536):
            for packet in packets.feed(data):
                if not greeted:
                    greeted = packets.wide = self._wide = True
                    for each in introduction():
                        self._send(each)
                else:
                    self._answer(packet)
        writer.close()

    def _answer(self, packet: Packet) -> None:
        kind, number, body = packet.kind, packet.identifier, packet.body
        if kind == Kind.RESET:
            self.resets, self.listens = self.resets + 1, False
        elif kind == Kind.CONTROL:
            self._control(number, body)
        elif kind in (6, 7):
            self._send(Packet(8, number, bytes((0, 1))))
        elif kind in (9, 10):
            self._send(Packet(11, number, bytes((0, 0, 0))))
        elif kind in (Kind.START_INTERRUPT, Kind.STOP_INTERRUPT):
            self.listens = kind == Kind.START_INTERRUPT
            self._send(Packet(17, number, bytes((0, body[0]))))

    def _control(self, number: int, body: bytes) -> None:
        endpoint, request, kind, _, value, index, length = struct.unpack_from("<4B3H", body)
        found = _descriptor(value) if kind & 0x80 and request == 6 else b""
        status, data = (4, b"") if found is None else (0, found[:length])
        head = struct.pack("<4B3H", endpoint, request, kind, status, value, index, len(data) if kind & 0x80 else length)
        self._send(Packet(Kind.CONTROL, number, head + data))


class UsbKeyboard:
    """The keyboard in a process of its own, started with `enter` before its command (a network namespace). A context manager."""

    def __init__(self, *enter: str) -> None:
        self._process = subprocess.Popen(
            [*enter, sys.executable, "-m", "tests.fakes.usb_device"],
            cwd=Path(__file__).resolve().parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.port = int(self._said())

    def _said(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()

    def _tell(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def press(self, usage: int) -> None:
        """Presses and releases the key of that HID usage."""
        self._tell(str(usage))

    def state(self) -> tuple[int, bool]:
        """How often it was reset, and whether a guest listens to its keys."""
        self._tell("?")
        resets, listens = self._said().split()
        return int(resets), listens == "1"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()


if __name__ == "__main__":
    asyncio.run(_Server().run())
