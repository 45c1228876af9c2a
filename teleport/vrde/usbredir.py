"""The usbredir protocol, pure: a device's end stays with its viewer while the guest's end changes with each teleport.

(usbredir's docs/usb-redirection-protocol.md, version 0.7; all numbers little-endian.)

::

    host (the viewer's computer)        Redirection                    guest (a QEMU, or another host's front)
      │◀─ hello ───────────────────────────│                              │
      │── hello ──────────────────────────▶│                              │
      │── interface, endpoint info ───────▶│ kept                         │
      │── device_connect ─────────────────▶│ kept: `device`               │
      │                                    │◀───────────────── attach ────│ plugged in
      │                                    │── hello ────────────────────▶│
      │                                    │◀─────────────────── hello ───│
      │                                    │── what was kept ────────────▶│
      │◀══════════════════ requests and answers, unchanged ══════════════▶│
      │                                    │◀───────────────── detach ────│ unplugged
      │◀─ streams stopped, requests        │
      │   cancelled, reset ────────────────│   then another guest may come

Capabilities are agreed with the host once, so that both guests must know them: those that every QEMU since 2.4 has. Answers to requests
of a guest that has gone never reach the next one: a host answers each exactly once, also those that are cancelled.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

from teleport.errors import ProtocolError
from teleport.machines.usb_filters import UsbDevice

VERSION = b"teleport"
_HELLO_BYTES = 64  # of the version's text, before the capabilities
MOST_CONTROL_BYTES = 1 << 16
MOST_DATA_BYTES = (16 << 20) + 64  # of one transfer: Linux' own limit for a bulk transfer, and a head
MOST_UNANSWERED = 1 << 14  # requests of guests; the next one is refused
MOST_STREAMS = 1 << 10
_FIRST_ID = 0x7FFF0000  # of packets of our own: guests count from 0, or use addresses


class Kind(IntEnum):
    """The packets that mean something to us."""

    HELLO = 0
    DEVICE_CONNECT = 1
    DEVICE_DISCONNECT = 2
    RESET = 3
    INTERFACE_INFO = 4
    EP_INFO = 5
    START_ISO = 12
    STOP_ISO = 13
    START_INTERRUPT = 15
    STOP_INTERRUPT = 16
    CANCEL = 21
    FILTER_REJECT = 22
    FILTER_FILTER = 23
    DISCONNECT_ACK = 24
    START_BULK = 25
    STOP_BULK = 26
    CONTROL = 100
    BULK = 101
    INTERRUPT = 103


class Capability(IntFlag):
    """Bits of hello's first word."""

    CONNECT_DEVICE_VERSION = 1 << 1
    EP_INFO_MAX_PACKET_SIZE = 1 << 4
    IDS_64_BITS = 1 << 5
    BULK_LENGTH_32_BITS = 1 << 6
    BULK_RECEIVING = 1 << 7


OURS = (
    Capability.CONNECT_DEVICE_VERSION
    | Capability.EP_INFO_MAX_PACKET_SIZE
    | Capability.IDS_64_BITS
    | Capability.BULK_LENGTH_32_BITS
    | Capability.BULK_RECEIVING
)


class Speed(IntEnum):
    """device_connect's."""

    LOW = 0
    FULL = 1
    HIGH = 2
    SUPER = 3


@dataclass(frozen=True)
class Packet:
    """One packet. `identifier` pairs an answer with its request."""

    kind: int
    identifier: int
    body: bytes = b""

    def pack(self, *, wide: bool) -> bytes:
        """Its bytes; `wide`: with identifiers of 64 bits."""
        return struct.pack("<IIQ" if wide else "<III", self.kind, len(self.body), self.identifier) + self.body


class PacketReader:
    """Cuts a stream into packets. `wide` may change between two of them (hello settles it)."""

    def __init__(self) -> None:
        self.wide = False
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Packet]:
        """The packets that are whole now. Raises ProtocolError for one that is too long."""
        self._buffer += data
        while (packet := self._next()) is not None:
            yield packet

    def _next(self) -> Packet | None:
        head = 16 if self.wide else 12
        if len(self._buffer) < 8:
            return None
        kind, length = struct.unpack_from("<II", self._buffer)
        most = MOST_CONTROL_BYTES if kind < Kind.CONTROL else MOST_DATA_BYTES
        if length > most:
            raise ProtocolError("usbredir", f"a packet of kind {kind} has {length} bytes, more than {most}")
        if len(self._buffer) < head + length:
            return None
        (identifier,) = struct.unpack_from("<Q" if self.wide else "<I", self._buffer, 8)
        body = bytes(self._buffer[head : head + length])
        del self._buffer[: head + length]
        return Packet(kind, identifier, body)


def hello(capabilities: int) -> Packet:
    """A hello with one word of capabilities."""
    return Packet(Kind.HELLO, 0, VERSION.ljust(_HELLO_BYTES, b"\0") + struct.pack("<I", capabilities))


def capabilities_of(packet: Packet) -> int:
    """The first word of a hello; 0 for a peer from before there were any. Raises ProtocolError when it is no hello."""
    if packet.kind != Kind.HELLO or len(packet.body) < _HELLO_BYTES:
        raise ProtocolError("usbredir", "the other side does not begin with hello: it is no usbredir peer")
    return int.from_bytes(packet.body[_HELLO_BYTES : _HELLO_BYTES + 4], "little")


@dataclass(frozen=True)
class Connected:
    """What device_connect says."""

    device: UsbDevice
    speed: Speed

    @classmethod
    def parse(cls, body: bytes) -> "Connected":
        """Raises ProtocolError."""
        if len(body) not in (8, 10):
            raise ProtocolError("usbredir", f"device_connect has {len(body)} bytes, not 8 or 10")
        speed, _, _, _, vendor, product = struct.unpack_from("<4B2H", body)
        revision = int.from_bytes(body[8:10], "little")
        try:
            return cls(UsbDevice(vendor, product, revision), Speed(speed))
        except ValueError as error:
            raise ProtocolError("usbredir", f"a device of unknown speed {speed}") from error


@dataclass
class Output:
    """What is to be sent on."""

    to_host: bytes = b""
    to_guest: bytes = b""

    def __add__(self, other: "Output") -> "Output":
        return Output(self.to_host + other.to_host, self.to_guest + other.to_guest)


# Requests that a host answers by one packet: guest's kind → the answer's.
_ANSWERS = {6: 8, 7: 8, 9: 11, 10: 11, Kind.CONTROL: Kind.CONTROL, Kind.BULK: Kind.BULK, Kind.INTERRUPT: Kind.INTERRUPT}
_KEPT = (Kind.INTERFACE_INFO, Kind.EP_INFO)
_STARTS = {Kind.START_ISO: Kind.STOP_ISO, Kind.START_INTERRUPT: Kind.STOP_INTERRUPT, Kind.START_BULK: Kind.STOP_BULK}
_STREAM_ANSWERS = (14, 17, 27)
_HOSTS_OWN = (Kind.FILTER_FILTER, Kind.DISCONNECT_ACK)  # of capabilities that we don't announce
_INPUT = 0x80


@dataclass
class Redirection:
    """One device between its host and whatever guest has it. Methods raise ProtocolError: the connection is then of no use."""

    device: Connected | None = None
    _agreed: int = 0
    _host: PacketReader = field(default_factory=PacketReader)
    _host_said_hello: bool = False
    _guest: PacketReader | None = None
    _guest_said_hello: bool = False
    _kept: dict[int, bytes] = field(default_factory=dict)
    _waiting: set[tuple[int, int]] = field(default_factory=set)  # (answer's kind, identifier)
    _stale: set[tuple[int, int]] = field(default_factory=set)
    _streams: dict[bytes, int] = field(default_factory=dict)  # the endpoint → what stops it
    _next_id: int = _FIRST_ID

    @staticmethod
    def begin() -> bytes:
        """What the host hears first."""
        return hello(OURS).pack(wide=False)

    # -- the guest's end

    def attach(self) -> bytes:
        """A guest is there, and the host has said hello: what the guest hears first."""
        self._guest, self._guest_said_hello = PacketReader(), False
        return hello(self._agreed).pack(wide=False)

    def detach(self) -> bytes:
        """The guest has gone: what the host is told, so that the device is as if it were plugged in anew."""
        if self._guest is None:
            return b""
        self._guest = None
        told = [Packet(stop, self._own_id(), body) for body, stop in self._streams.items()]
        told += [Packet(Kind.CANCEL, number) for kind, number in self._waiting if kind >= Kind.CONTROL]
        self._stale |= self._waiting
        self._waiting, self._streams = set(), {}
        return b"".join(each.pack(wide=self._host.wide) for each in (*told, Packet(Kind.RESET, self._own_id())))

    def from_guest(self, data: bytes) -> Output:
        """Bytes of the guest."""
        out = Output()
        if self._guest is None:
            return out
        for packet in self._guest.feed(data):
            if not self._guest_said_hello:
                missing = self._agreed & ~capabilities_of(packet)
                if missing:
                    raise ProtocolError("usbredir", f"the guest's side lacks {Capability(missing)!r}", "it needs QEMU 10")
                self._guest_said_hello, self._guest.wide = True, bool(self._agreed & Capability.IDS_64_BITS)
                out.to_guest += self._introduction()
            elif packet.kind not in (Kind.HELLO, Kind.FILTER_FILTER, Kind.FILTER_REJECT):
                self._note_request(packet)
                out.to_host += packet.pack(wide=self._host.wide)
        return out

    def _introduction(self) -> bytes:
        assert self._guest is not None
        if self.device is None:
            return b""
        packets = [Packet(kind, 0, self._kept[kind]) for kind in (*_KEPT, Kind.DEVICE_CONNECT) if kind in self._kept]
        return b"".join(each.pack(wide=self._guest.wide) for each in packets)

    def _note_request(self, packet: Packet) -> None:
        kind, body = packet.kind, packet.body
        if len(self._waiting) + len(self._stale) >= MOST_UNANSWERED or len(self._streams) >= MOST_STREAMS:
            raise ProtocolError("usbredir", "the guest's side asks for more than a device answers")
        if (answer := _ANSWERS.get(kind)) is not None:
            self._waiting.add((answer, packet.identifier))
        elif kind in _STARTS and body:
            # start_iso: endpoint, packets, urbs; start_interrupt: endpoint; start_bulk: stream, bytes, endpoint, transfers
            stopped = body[:1] if kind != Kind.START_BULK else body[:4] + body[8:9]
            self._streams[stopped] = _STARTS[Kind(kind)]
        elif kind in _STARTS.values():
            self._streams.pop(body, None)

    def _own_id(self) -> int:
        self._next_id += 1
        return self._next_id

    # -- the host's end

    def from_host(self, data: bytes) -> Output:
        """Bytes of the host."""
        out = Output()
        for packet in self._host.feed(data):
            if not self._host_said_hello:
                self._agreed = capabilities_of(packet) & OURS
                self._host_said_hello, self._host.wide = True, bool(self._agreed & Capability.IDS_64_BITS)
                continue
            out += self._one_from_host(packet)
        return out

    def _one_from_host(self, packet: Packet) -> Output:
        kind = packet.kind
        if kind == Kind.HELLO or kind in _HOSTS_OWN:
            return Output()
        if kind in _KEPT:
            self._kept[kind] = packet.body
        elif kind == Kind.DEVICE_CONNECT:
            self.device = Connected.parse(packet.body)
            self._kept[kind] = packet.body
        elif kind == Kind.DEVICE_DISCONNECT:
            self.device = None
            self._kept.clear()
        elif _is_answer(packet):
            answer = (kind, packet.identifier)
            if answer in self._stale:
                self._stale.discard(answer)
                return Output()
            self._waiting.discard(answer)
        elif kind in _STREAM_ANSWERS and _FIRST_ID < packet.identifier <= self._next_id:
            return Output()  # to what we ourselves told it
        if self._guest is None or not self._guest_said_hello:
            return Output()
        return Output(to_guest=packet.pack(wide=self._guest.wide))


def _is_answer(packet: Packet) -> bool:
    """Whether its identifier is one of the guest's: what a device sends unasked on an interrupt endpoint has the host's own."""
    if packet.kind == Kind.INTERRUPT:
        return bool(packet.body) and not packet.body[0] & _INPUT
    return packet.kind in _ANSWERS.values()
