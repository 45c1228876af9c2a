"""What xrdp 0.10 needs to hear of dynamic channels (MS-RDPEDYC), without I/O.

It changes a viewer's size by what it sets up once they are there, and dies of the guest's first change where they are not
(neutrinolabs/xrdp#3672). Viewers that know their first version only are said to know the second, which differs in nothing that xrdp sends
(`VersionLift`). For those that know none (rdesktop -4), `conference` lets xrdp see the channel that carries them, and its words on that
channel are answered here (`StandIn`)::

    xrdp                                           here
      │─ Attach User Confirm (to the viewer too) ──▶│─ Channel Join Request ─▶ xrdp; its confirm stays here
      │─ DYNVC_CAPS 0x50, version ─────────────────▶│─ the same version
      │─ DYNVC_CREATE_REQ 0x1n, number, name ──────▶│─ made, for the size's channel; not there, for any other
      │─ data ─────────────────────────────────────▶│  nothing

MS-RDPEDYC 2.2; T.125 for the MCS PDUs.
"""

import struct
from dataclasses import dataclass

from teleport.vrde.rdp.pdu import SEND_DATA_REQUEST, RdpError, SendData, tpkt

SIZE_CHANNEL = b"Microsoft::Windows::RDS::DisplayControl"
_X224_DATA = b"\x02\xf0\x80"
_ATTACH_USER_CONFIRM, _CHANNEL_JOIN_REQUEST, _CHANNEL_JOIN_CONFIRM = 11, 14, 15  # the upper six bits of an MCS PDU's first byte
_FIRST_AND_LAST = 3  # of a static channel's chunk (MS-RDPBCGR 2.2.6.1.1)
_CREATE, _CAPABILITIES = 1, 5  # Cmd, the upper four bits
_CHUNK_HEAD_BYTES = 8  # length, flags
_NOT_THERE = 0xC0000225  # STATUS_NOT_FOUND


class VersionLift:
    """For one viewer; `channel` is the MCS channel that its dynamic ones go through. `is_done`: its later words need no look."""

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self.is_done = False

    def from_viewer(self, pdu: bytes) -> bytes:
        """A whole PDU as xrdp is to get it. Raises RdpError."""
        sent = SendData.parse(pdu)
        if sent is None or sent.channel != self._channel or self.is_done:
            return pdu
        self.is_done = True
        head, message = sent.payload[:_CHUNK_HEAD_BYTES], sent.payload[_CHUNK_HEAD_BYTES:]
        if message[:1] != bytes((_CAPABILITIES << 4,)) or message[2:4] != b"\1\0":
            return pdu
        return SendData(sent.head, head + message[:2] + b"\2\0" + message[4:]).pack()


@dataclass(frozen=True)
class Passed:
    """What becomes of a PDU of xrdp's: bytes for the viewer, and an answer for xrdp."""

    to_viewer: bytes = b""
    to_xrdp: bytes = b""


class StandIn:
    """One viewer's; `channel` is the MCS channel that only xrdp and we know of."""

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._user = b"\0\0"

    def from_xrdp(self, pdu: bytes) -> Passed:
        """Takes each whole PDU that comes from xrdp behind the Connect-Response. Raises RdpError."""
        if pdu[:1] != b"\3" or len(pdu) < 8 or pdu[4:7] != _X224_DATA:
            return Passed(pdu)
        kind = pdu[7] >> 2
        if kind == _ATTACH_USER_CONFIRM and len(pdu) >= 11:
            self._user = pdu[9:11]
            join = bytes((_CHANNEL_JOIN_REQUEST << 2,)) + self._user + struct.pack(">H", self._channel)
            return Passed(pdu, tpkt(_X224_DATA + join))
        if kind == _CHANNEL_JOIN_CONFIRM and int.from_bytes(pdu[11:13], "big") == self._channel:
            return Passed()
        sent = SendData.parse(pdu)
        if sent is None or sent.channel != self._channel:
            return Passed(pdu)
        answer = _answer(sent.payload)
        return Passed(to_xrdp=self._to_xrdp(answer) if answer else b"")

    def _to_xrdp(self, message: bytes) -> bytes:
        head = bytes((SEND_DATA_REQUEST,)) + self._user + struct.pack(">HB", self._channel, 0x70)
        return SendData(head, struct.pack("<II", len(message), _FIRST_AND_LAST) + message).pack()


def _answer(chunk: bytes) -> bytes:
    """What a viewer says to a chunk of the static channel; b"": nothing. What is asked here fits into one. Raises RdpError."""
    message = chunk[_CHUNK_HEAD_BYTES:]
    if len(message) < 2:
        return b""
    command, number_bytes = message[0] >> 4, (1, 2, 4, 4)[message[0] & 3]
    if command == _CAPABILITIES:
        if len(message) < 4:
            raise RdpError("dynamic channels of no version")
        return bytes((_CAPABILITIES << 4, 0)) + message[2:4]
    if command == _CREATE:
        number, name = message[1 : 1 + number_bytes], message[1 + number_bytes :].partition(b"\0")[0]
        status = 0 if name == SIZE_CHANNEL else _NOT_THERE
        return bytes((_CREATE << 4 | message[0] & 3,)) + number + struct.pack("<I", status)
    return b""
