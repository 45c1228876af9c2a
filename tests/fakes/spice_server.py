"""As much of QEMU's SPICE as serves one client's main and record channels."""

import asyncio
import struct

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

SESSION = 0x1234


class SpiceServer:
    """`records()` and `ceases()` are the guest; pieces come out of `heard`, and all else that the record channel said of `said`."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - the protocol's size
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()
        self.said: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self.linked = asyncio.Event()
        self.channels: list[int] = []
        self._record: asyncio.StreamWriter | None = None
        self._records = False

    def records(self) -> None:
        self._records = True
        self._send(101, struct.pack("<IHI", 2, 1, 48000))

    def ceases(self) -> None:
        self._records = False
        self._send(102, b"")

    def pings(self) -> None:
        self._send(4, struct.pack("<IQ", 7, 99))

    def wants_acknowledgements(self, window: int) -> None:
        self._send(3, struct.pack("<II", 5, window))

    def _send(self, kind: int, body: bytes) -> None:
        assert self._record
        self._record.write(struct.pack("<HI", kind, len(body)) + body)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        except EOFError:
            pass
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        magic, major, minor, size = struct.unpack("<4sIII", await reader.readexactly(16))
        assert (magic, major, minor) == (b"REDQ", 2, 2)
        session, kind = struct.unpack_from("<IB", await reader.readexactly(size))
        assert session == (0 if kind == 1 else SESSION)
        key = self._key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        assert len(key) == 162
        body = struct.pack("<I", 0) + key + struct.pack("<IIII", 1, 0, 178, 0b1011)
        writer.write(struct.pack("<4sIII", b"REDQ", 2, 2, len(body)) + body)
        chosen, ticket = struct.unpack("<I128s", await reader.readexactly(132))
        oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)  # noqa: S303 - the protocol's
        assert (chosen, self._key.decrypt(ticket, oaep)) == (1, b"\0")
        writer.write(bytes(4))
        self.channels.append(kind)
        if kind == 1:
            writer.write(struct.pack("<HI", 103, 32) + struct.pack("<I", SESSION).ljust(32, b"\0"))
            await reader.read()
            return
        self._record = writer
        self.linked.set()
        if self._records:
            self.records()
        while True:
            kind, size = struct.unpack("<HI", await reader.readexactly(6))
            body = await reader.readexactly(size)
            if kind == 101:
                assert body[:4] == bytes(4)
                self.heard.put_nowait(body[4:])
            else:
                self.said.put_nowait((kind, body))
