"""The MCS Connect-Initial and Connect-Response PDUs (MS-RDPBCGR 2.2.1.3, 2.2.1.4): what the front changes in them on their way.

The front is the one that encrypts, and xrdp behind it must not: the viewer's offer is taken out of the first PDU; the protocols that the
viewer had requested (it compares them), and with Standard RDP Security our random number and public key, are put into the second.

xrdp 0.10 cannot change the size of a viewer before its dynamic channels are up (`dynamic_channels` says more), so the viewer is said to
have the guest's size, and one without dynamic channels to have them; its answer must not name the channel that it did not ask for.
"""

import struct
from dataclasses import dataclass, field

from teleport.vrde.rdp.pdu import RdpError, tpkt

CS_CORE, CS_SECURITY, CS_NETWORK = 0xC001, 0xC002, 0xC003
SC_CORE, SC_SECURITY, SC_NETWORK = 0x0C01, 0x0C02, 0x0C03
SUPPORT_ERROR_INFO = 0x1  # of earlyCapabilityFlags (2.2.1.3.2)
DYNAMIC_CHANNELS = b"drdynvc\0"  # the static channel that dynamic ones go through (MS-RDPEDYC)
MOST_CHANNELS = 31
_EARLY_CAPABILITIES_AT = 140  # in TS_UD_CS_CORE, without its head
_SIZE_AT = 4  # likewise
_CHANNEL_INITIALIZED = 0x80000000  # CHANNEL_DEF's options (2.2.1.3.4.1)
_X224_DATA = b"\x02\xf0\x80"
_REQUEST = b"\x7f\x65", b"Duca"  # the MCS PDU's tag, the H.221 key before the blocks
_RESPONSE = b"\x7f\x66", b"McDn"

Block = tuple[int, bytes]


def _ber(tag: bytes, content: bytes) -> bytes:
    if len(content) < 0x80:
        return tag + bytes((len(content),)) + content
    return tag + struct.pack(">BH", 0x82, len(content)) + content


def _ber_head(data: bytes, at: int) -> tuple[int, int]:
    """(start of the content, its length) of the BER element whose length byte is at `at`."""
    if at >= len(data):
        raise RdpError("a BER element without an end")
    first = data[at]
    if first < 0x80:
        return at + 1, first
    size = first & 0x7F
    if not 1 <= size <= 3 or at + 1 + size > len(data):
        raise RdpError("a BER length beyond measure")
    return at + 1 + size, int.from_bytes(data[at + 1 : at + 1 + size], "big")


def _per_bytes(data: bytes, at: int) -> int:
    """How many bytes the PER length at `at` takes."""
    if at >= len(data):
        raise RdpError("a PER length without an end")
    return 2 if data[at] & 0x80 else 1


def _per(length: int) -> bytes:
    return struct.pack(">H", 0x8000 | length)


_GCC_LENGTH_AT = 7  # in the GCC PDU (T.124): behind the object's key and the choice


@dataclass
class _Conference:
    """One of the two PDUs taken apart: `before` are the MCS elements before the user data, `head` the GCC PDU up to its blocks' length."""

    tag: bytes
    before: bytes
    head: bytes
    blocks: list[Block] = field(default_factory=list)

    @classmethod
    def parse(cls, pdu: bytes, tag: bytes, key: bytes) -> "_Conference":
        """Raises RdpError."""
        if pdu[4:9] != _X224_DATA + tag:
            raise RdpError("not the MCS PDU that is due")
        start, _ = _ber_head(pdu, 9)
        at = start
        while True:  # the user data is what reaches to the end
            content, length = _ber_head(pdu, at + 1)
            if content + length >= len(pdu):
                break
            at = content + length
        if content + length != len(pdu) or pdu[at] != 0x04:
            raise RdpError("an MCS PDU that lies about its length")
        gcc = pdu[content:]
        key_at = gcc.find(key)
        if key_at < 0:
            raise RdpError("no conference user data")
        length_at = key_at + len(key)
        conference = cls(tag, pdu[start:at], gcc[:length_at])
        at = length_at + _per_bytes(gcc, length_at)
        while at + 4 <= len(gcc):
            kind, length = struct.unpack_from("<HH", gcc, at)
            if length < 4 or at + length > len(gcc):
                raise RdpError("a conference block that lies about its length")
            conference.blocks.append((kind, gcc[at + 4 : at + length]))
            at += length
        return conference

    def first(self, wanted: int) -> bytes:
        """The content of the first block of a kind; b"" without one."""
        return next((data for kind, data in self.blocks if kind == wanted), b"")

    def pack(self) -> bytes:
        """The whole PDU."""
        blocks = b"".join(struct.pack("<HH", kind, 4 + len(data)) + data for kind, data in self.blocks)
        head = self.head
        if self.tag == _REQUEST[0]:
            rest = head[_GCC_LENGTH_AT + _per_bytes(head, _GCC_LENGTH_AT) :]
            head = head[:_GCC_LENGTH_AT] + _per(len(rest) + 2 + len(blocks)) + rest
        # The length in a response is 0x2a from every server, whatever follows: viewers skip it (and count on one byte).
        return tpkt(_X224_DATA + _ber(self.tag, self.before + _ber(b"\x04", head + _per(len(blocks)) + blocks)))


@dataclass(frozen=True)
class Answer:
    """xrdp's Connect-Response as the viewer is to get it, and the MCS channel that dynamic ones go through between xrdp and us."""

    pdu: bytes
    dynamic_channel: int


@dataclass(frozen=True)
class Offer:
    """A viewer's Connect-Initial: the encryption methods that it offers (TS_UD_CS_SEC, 2.2.1.3.3), its static channels (8 bytes each), and
    whether it understands the Set Error Info PDU."""

    pdu: bytes
    methods: int
    channels: tuple[bytes, ...]
    knows_error_info: bool

    @classmethod
    def parse(cls, pdu: bytes) -> "Offer":
        """Raises RdpError."""
        conference = _Conference.parse(pdu, *_REQUEST)
        security = conference.first(CS_SECURITY)
        methods = struct.unpack_from("<II", security) if len(security) >= 8 else ()
        early = conference.first(CS_CORE)[_EARLY_CAPABILITIES_AT : _EARLY_CAPABILITIES_AT + 2]
        return cls(
            pdu,
            methods=methods[0] | methods[1] if methods else 0,
            channels=tuple(name.lower() for name, _ in _channels(conference.first(CS_NETWORK))),
            knows_error_info=bool(int.from_bytes(early, "little") & SUPPORT_ERROR_INFO),
        )

    @property
    def has_dynamic_channels(self) -> bool:
        """Whether the viewer knows them."""
        return DYNAMIC_CHANNELS in self.channels

    def for_xrdp(self, size: tuple[int, int] | None) -> bytes:
        """The PDU as xrdp is to get it: nothing encrypted, in the guest's size in pixels if known, and with dynamic channels.

        Raises RdpError for a viewer whose channels leave no room for them.
        """
        conference = _Conference.parse(self.pdu, *_REQUEST)
        blocks = [(kind, _edited(kind, data, size)) for kind, data in conference.blocks]
        if not self.has_dynamic_channels:
            if len(self.channels) >= MOST_CHANNELS:
                raise RdpError(f"{MOST_CHANNELS} channels, and not the one for dynamic ones")
            channels = [*_channels(conference.first(CS_NETWORK)), (DYNAMIC_CHANNELS, _CHANNEL_INITIALIZED)]
            network = struct.pack("<I", len(channels)) + b"".join(struct.pack("<8sI", *each) for each in channels)
            blocks = [*(each for each in blocks if each[0] != CS_NETWORK), (CS_NETWORK, network)]
        conference.blocks = blocks
        return conference.pack()

    def answer(self, connect_response: bytes, *, requested: int | None = None, security: bytes | None = None) -> Answer:
        """What becomes of xrdp's Connect-Response.

        `requested` goes into SC_CORE's clientRequestedProtocols (2.2.1.4.2; None: the viewer did not negotiate), `security` is
        SC_SECURITY's content (TS_UD_SC_SEC1, 2.2.1.4.3; None: as xrdp has it). A channel that only xrdp was told of is left out.
        Raises RdpError.
        """
        conference = _Conference.parse(connect_response, *_RESPONSE)
        io_channel, numbers = _numbers(conference.first(SC_NETWORK))
        asked = self.channels if self.has_dynamic_channels else (*self.channels, DYNAMIC_CHANNELS)
        if len(numbers) != len(asked):
            raise RdpError("an answer about other channels than those asked for")
        edited = {SC_NETWORK: _network(io_channel, numbers[: len(self.channels)])}
        if requested is not None:
            edited[SC_CORE] = conference.first(SC_CORE)[:4] + struct.pack("<I", requested)
        if security is not None:
            edited[SC_SECURITY] = security
        conference.blocks = [(kind, edited.get(kind, data)) for kind, data in conference.blocks]
        return Answer(conference.pack(), numbers[asked.index(DYNAMIC_CHANNELS)])


def _edited(kind: int, data: bytes, size: tuple[int, int] | None) -> bytes:
    if kind == CS_SECURITY and len(data) >= 8:
        return bytes(8) + data[8:]
    if kind == CS_CORE and size and len(data) >= _SIZE_AT + 4:
        return data[:_SIZE_AT] + struct.pack("<HH", *size) + data[_SIZE_AT + 4 :]
    return data


def _channels(network: bytes) -> list[tuple[bytes, int]]:
    """TS_UD_CS_NET's names, of 8 bytes, and options (2.2.1.3.4). Raises RdpError."""
    if not network:
        return []
    count = int.from_bytes(network[:4], "little")
    if count > MOST_CHANNELS or len(network) < 4 + 12 * count:
        raise RdpError("a list of channels that lies about its length")
    return [struct.unpack_from("<8sI", network, 4 + 12 * n) for n in range(count)]


def _numbers(network: bytes) -> tuple[int, tuple[int, ...]]:
    """TS_UD_SC_NET's I/O channel and the others (2.2.1.4.4). Raises RdpError."""
    if len(network) < 4:
        raise RdpError("an answer without channels")
    io_channel, count = struct.unpack_from("<HH", network)
    if len(network) < 4 + 2 * count:
        raise RdpError("a list of channels that lies about its length")
    return io_channel, struct.unpack_from(f"<{count}H", network, 4)


def _network(io_channel: int, numbers: tuple[int, ...]) -> bytes:
    padding = bytes(2) if len(numbers) % 2 else b""
    return struct.pack(f"<HH{len(numbers)}H", io_channel, len(numbers), *numbers) + padding
