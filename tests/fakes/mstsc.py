"""Microsoft's viewer as MS-RDPBCGR describes its connection sequence (1.3.1.1), up to the server's Demand Active PDU.

Every check that the document makes a client's duty is made here, since mstsc itself cannot run in the tests.
"""

import asyncio
import ssl
import struct

from teleport.vrde.rdp.pdu import SendData, frame_length, tpkt

OFFERED = 0xB  # SSL | HYBRID | HYBRID_EX, as mstsc offers
CHANNELS = ("rdpdr", "rdpsnd", "cliprdr", "drdynvc")


def utf16(text: str, size: int) -> bytes:
    return text.encode("utf-16-le")[: size - 2].ljust(size, b"\0")


def core() -> bytes:
    """TS_UD_CS_CORE (2.2.1.3.2) of an mstsc of Windows 10, in its full length."""
    return (
        struct.pack("<IHHHHII", 0x00080011, 1280, 800, 0xCA01, 0xAA03, 0x409, 19041)
        + utf16("CLIENT", 32)
        + struct.pack("<III", 4, 0, 12)
        + bytes(64)
        + struct.pack("<HHIHHH", 0xCA01, 1, 0, 24, 0xF, 0x7EF)
        + utf16("00000-000-0000000-00000", 64)
        + struct.pack("<BBI", 6, 0, 1)  # connectionType LAN, serverSelectedProtocol SSL
        + struct.pack("<IIHII", 339, 212, 0, 100, 100)
    )


def block(kind: int, data: bytes) -> bytes:
    return struct.pack("<HH", kind, 4 + len(data)) + data


def connect_initial(methods: int) -> bytes:
    network = struct.pack("<I", len(CHANNELS)) + b"".join(
        n.encode().ljust(8, b"\0") + struct.pack("<I", 0xC0A00000) for n in CHANNELS
    )
    blocks = (
        block(0xC001, core())
        + block(0xC004, struct.pack("<II", 0x15, 0))
        + block(0xC002, struct.pack("<II", methods, 0))
        + block(0xC003, network)
        + block(0xC006, bytes(4))  # CS_MCS_MSGCHANNEL
        + block(0xC00A, struct.pack("<I", 1))  # CS_MULTITRANSPORT
    )
    conference = bytes.fromhex("000800100001c00044756361") + struct.pack(">H", 0x8000 | len(blocks)) + blocks
    gcc = bytes.fromhex("000500147c0001") + struct.pack(">H", 0x8000 | len(conference)) + conference
    domains = bytes.fromhex(
        "0401010401010101ff"
        "30190201220201020201000201010201000201010202ffff020102"
        "301902010102010102010102010102010002010102020420020102"
        "301c0202ffff0202fc170202ffff0201010201000201010202ffff020102"
    )
    body = domains + b"\x04\x82" + struct.pack(">H", len(gcc)) + gcc
    return tpkt(b"\x02\xf0\x80\x7f\x65\x82" + struct.pack(">H", len(body)) + body)


class Mstsc:
    """One connection."""

    async def connect(
        self, port: int, *, user: str = "john", password: str = "secret", domain: str = "", methods: int = 0
    ) -> None:
        """Up to the Demand Active PDU; every deviation from the document is an AssertionError."""
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        cookie = b"Cookie: mstshash=john\r\n"
        self.writer.write(
            tpkt(bytes((14 + len(cookie), 0xE0, 0, 0, 0, 0, 0)) + cookie + struct.pack("<BBHI", 1, 0, 8, OFFERED))
        )
        confirm = await self.pdu()
        kind, _, length, selected = struct.unpack_from("<BBHI", confirm, 11)
        assert (confirm[5], kind, length, selected) == (0xD0, 2, 8, 1)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        await self.writer.start_tls(context)

        self.writer.write(connect_initial(methods))
        response = await self.pdu()
        assert response[7:9] == b"\x7f\x66"
        blocks = self._blocks(response)
        version, requested = struct.unpack_from("<II", blocks[0x0C01])
        assert version >= 0x00080001
        assert requested == OFFERED  # 3.2.5.3.4: anything else ends the connection
        assert struct.unpack_from("<II", blocks[0x0C02]) == (0, 0)  # under TLS no encryption of RDP's own
        global_channel, count = struct.unpack_from("<HH", blocks[0x0C03])
        ids = struct.unpack_from(f"<{count}H", blocks[0x0C03], 4)
        assert count == len(CHANNELS)

        self.writer.write(tpkt(bytes.fromhex("02f0800401000100")))  # erect domain
        self.writer.write(tpkt(bytes.fromhex("02f08028")))  # attach user
        attached = await self.pdu()
        assert attached[7:9] == b"\x2e\0"
        self.user = struct.unpack_from(">H", attached, 9)[0]
        for channel in (self.user + 1001, global_channel, *ids):
            self.writer.write(tpkt(b"\x02\xf0\x80\x38" + struct.pack(">HH", self.user, channel)))
            joined = await self.pdu()
            assert joined[7:9] == b"\x3e\0"
            assert struct.unpack_from(">HH", joined, 9) == (self.user, channel)
        self.channel = global_channel

        texts = [text.encode("utf-16-le") for text in (domain, user, password, "", "")]
        address = utf16("192.0.2.7", 20)
        extended = struct.pack("<HH", 2, len(address)) + address + struct.pack("<H", 4) + utf16("C", 4) + bytes(172 + 8 + 2)
        info = (
            struct.pack("<II5H", 0, 0x1 | 0x2 | 0x10 | 0x100, *map(len, texts))
            + b"".join(t + b"\0\0" for t in texts)
            + extended
        )
        self.send(struct.pack("<HH", 0x40, 0) + info)

    async def demand_active(self) -> bytes:
        """Licensing, then the Demand Active PDU's content."""
        while True:
            data = SendData.parse(await self.pdu())
            assert data, "not MCS data"
            if int.from_bytes(data.payload[:2], "little") & 0x80 and int.from_bytes(data.payload[:2], "little") != len(
                data.payload
            ):
                if data.payload[4] == 1:  # a licence request: answered with "new licence request" cut to what is looked at
                    self.send(struct.pack("<HHBBH", 0x80, 0, 0x13, 0x83, 4 + 16) + bytes(16))
                continue
            total, kind = struct.unpack_from("<HH", data.payload)
            assert total == len(data.payload)
            assert kind & 0xF == 1, "the first share PDU is a Demand Active"
            return data.payload

    def send(self, payload: bytes) -> None:
        self.writer.write(SendData(b"\x64" + struct.pack(">HHB", self.user, self.channel, 0x70), payload).pack())

    async def pdu(self) -> bytes:
        async with asyncio.timeout(20):
            data = await self.reader.readexactly(2)
            while (length := frame_length(data)) is None:
                data += await self.reader.readexactly(1)
            return data + await self.reader.readexactly(length - len(data))

    @staticmethod
    def _blocks(response: bytes) -> dict[int, bytes]:
        at = response.index(b"McDn") + 4
        at += 2 if response[at] & 0x80 else 1
        blocks = {}
        while at < len(response):
            kind, length = struct.unpack_from("<HH", response, at)
            blocks[kind] = response[at + 4 : at + length]
            at += length
        return blocks
