"""The MCS Connect-Initial and Connect-Response PDUs (MS-RDPBCGR 2.2.1.3, 2.2.1.4), as far as protection is settled in them.

The front is the one that encrypts, and xrdp behind it must not: the viewer's offer is taken out of the first PDU; the protocols that the
viewer had requested (it compares them), and with Standard RDP Security our random number and public key, are put into the second.
"""

import struct

from teleport.vrde.rdp.pdu import RdpError, tpkt

CS_CORE, CS_SECURITY, SC_CORE, SC_SECURITY = 0xC001, 0xC002, 0x0C01, 0x0C02
SUPPORT_ERROR_INFO = 0x1  # of earlyCapabilityFlags (2.2.1.3.2)
_EARLY_CAPABILITIES_AT = 140  # in TS_UD_CS_CORE, without its head
_X224_DATA = b"\x02\xf0\x80"


def _blocks_at(pdu: bytes, key: bytes) -> tuple[int, int]:
    """Where the PER length behind the H.221 key starts, and where the user data blocks do."""
    at = pdu.find(key)
    if at < 0 or at + 6 > len(pdu):
        raise RdpError("no conference user data")
    at += len(key)
    return at, at + (2 if pdu[at] & 0x80 else 1)


def _blocks(data: bytes) -> list[tuple[int, bytes]]:
    blocks, at = [], 0
    while at + 4 <= len(data):
        kind, length = struct.unpack_from("<HH", data, at)
        if length < 4 or at + length > len(data):
            raise RdpError("a conference block that lies about its length")
        blocks.append((kind, data[at + 4 : at + length]))
        at += length
    return blocks


def knows_error_info(connect_initial: bytes) -> bool:
    """Whether the viewer understands the Set Error Info PDU. Raises RdpError."""
    _, at = _blocks_at(connect_initial, b"Duca")
    core = next((data for kind, data in _blocks(connect_initial[at:]) if kind == CS_CORE), b"")
    flags = core[_EARLY_CAPABILITIES_AT : _EARLY_CAPABILITIES_AT + 2]
    return bool(int.from_bytes(flags, "little") & SUPPORT_ERROR_INFO)


def take_security_offer(connect_initial: bytes) -> tuple[bytes, int]:
    """The Connect-Initial with its encryption methods zeroed, and what they were (TS_UD_CS_SEC, 2.2.1.3.3). Raises RdpError."""
    _, at = _blocks_at(connect_initial, b"Duca")
    edited = bytearray(connect_initial)
    while at + 4 <= len(edited):
        kind, length = struct.unpack_from("<HH", edited, at)
        if length < 4 or at + length > len(edited):
            raise RdpError("a conference block that lies about its length")
        if kind == CS_SECURITY and length >= 12:
            methods, extended = struct.unpack_from("<II", edited, at + 4)
            edited[at + 4 : at + 12] = bytes(8)
            return bytes(edited), methods | extended
        at += length
    return connect_initial, 0


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


def for_viewer(connect_response: bytes, *, requested: int | None = None, security: bytes | None = None) -> bytes:
    """xrdp's Connect-Response as the viewer is to get it.

    `requested` goes into SC_CORE's clientRequestedProtocols (2.2.1.4.2; None: the viewer did not negotiate), `security` is SC_SECURITY's
    content (TS_UD_SC_SEC1, 2.2.1.4.3; None: as xrdp has it). Raises RdpError.
    """
    if connect_response[4:9] != _X224_DATA + b"\x7f\x66":
        raise RdpError("not an MCS Connect-Response")
    at, _ = _ber_head(connect_response, 9)
    start = at
    while at < len(connect_response) and connect_response[at] != 0x04:  # result, connect id, domain parameters, then user data
        content, length = _ber_head(connect_response, at + 1)
        at = content + length
    if at >= len(connect_response):
        raise RdpError("a Connect-Response without user data")
    before = connect_response[start:at]
    content, length = _ber_head(connect_response, at + 1)
    if content + length != len(connect_response):
        raise RdpError("a Connect-Response that lies about its length")
    conference = connect_response[content:]
    length_at, blocks_at = _blocks_at(conference, b"McDn")
    blocks = b""
    for kind, data in _blocks(conference[blocks_at:]):
        if kind == SC_CORE and requested is not None:
            content_of = data[:4] + struct.pack("<I", requested)
        elif kind == SC_SECURITY and security is not None:
            content_of = security
        else:
            content_of = data
        blocks += struct.pack("<HH", kind, 4 + len(content_of)) + content_of
    # The length that stands before McDn is 0x2a from every server, whatever follows: viewers skip it (and count on one byte).
    conference = conference[:length_at] + struct.pack(">H", 0x8000 | len(blocks)) + blocks
    return tpkt(_X224_DATA + _ber(b"\x7f\x66", before + _ber(b"\x04", conference)))
