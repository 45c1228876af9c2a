"""The Client Info PDU (MS-RDPBCGR 2.2.1.11): the one place where a viewer says who it is, and the only one that the front rewrites.

xrdp gets the screen as the domain, a name and a password that mean nothing, and the autologon flag: it never sees the real ones.
"""

import struct
from dataclasses import dataclass, field, replace
from enum import IntFlag

from teleport.vrde.rdp.pdu import RdpError

SEC_INFO_PKT = 0x40
MOST_FIELD_BYTES = 1024


class InfoFlag(IntFlag):
    """TS_INFO_PACKET's flags that matter here (2.2.1.11.1.1)."""

    MOUSE = 0x1
    DISABLE_CTRL_ALT_DEL = 0x2
    AUTOLOGON = 0x8
    UNICODE = 0x10
    MAXIMIZE_SHELL = 0x20
    EXTENDED = 0x100  # INFO_ENABLEWINDOWSKEY; xrdp takes it to mean that a TS_EXTENDED_INFO_PACKET follows


# xrdp takes a login without these for one that it decrypted wrongly; not every viewer sets them.
_ALWAYS = InfoFlag.MOUSE | InfoFlag.DISABLE_CTRL_ALT_DEL | InfoFlag.UNICODE | InfoFlag.MAXIMIZE_SHELL
_NOBODY = "vm"  # the name and the password that xrdp gets


@dataclass(frozen=True)
class ClientInfo:
    """TS_INFO_PACKET with the basic security header before it. `rest` is the extended packet, unread."""

    codepage: int
    flags: int
    domain: str
    user: str
    password: str = field(repr=False)
    shell: str = ""
    folder: str = ""
    rest: bytes = b""

    @staticmethod
    def is_in(payload: bytes) -> bool:
        """Whether an MCS payload (decrypted, security header first) is one."""
        return len(payload) >= 22 and bool(int.from_bytes(payload[:2], "little") & SEC_INFO_PKT)

    @classmethod
    def parse(cls, payload: bytes) -> "ClientInfo":
        """Reads an MCS payload. Raises RdpError."""
        if not cls.is_in(payload):
            raise RdpError("not a Client Info PDU")
        codepage, flags, *sizes = struct.unpack_from("<II5H", payload, 4)
        encoding, zero_bytes = ("utf-16-le", 2) if flags & InfoFlag.UNICODE else ("cp1252", 1)
        at, texts = 22, []
        for size in sizes:  # the sizes leave out the terminating zero
            if size > MOST_FIELD_BYTES or at + size + zero_bytes > len(payload):
                raise RdpError("a Client Info PDU that lies about its lengths")
            texts.append(payload[at : at + size].decode(encoding, "replace").rstrip("\0"))
            at += size + zero_bytes
        domain, user, password, shell, folder = texts
        return cls(codepage, flags, domain, user, password, shell, folder, payload[at:])

    def pack(self) -> bytes:
        """The MCS payload."""
        encoding, zero = ("utf-16-le", b"\0\0") if self.flags & InfoFlag.UNICODE else ("cp1252", b"\0")
        raw = [text.encode(encoding, "replace") for text in (self.domain, self.user, self.password, self.shell, self.folder)]
        lengths = struct.pack("<II5H", self.codepage, self.flags, *map(len, raw))
        return struct.pack("<HH", SEC_INFO_PKT, 0) + lengths + b"".join(text + zero for text in raw) + self.rest

    def for_xrdp(self, screen: int) -> "ClientInfo":
        """What our xrdp is told: the screen, and to log in at once, which it does only for a name and (since 0.10) a password."""
        flags = self.flags | InfoFlag.AUTOLOGON | _ALWAYS
        if not self.rest:  # RDP 4 viewers set the flag without the packet, which xrdp then looks for
            flags &= ~InfoFlag.EXTENDED
        return replace(self, flags=flags, domain=f"@{screen}", user=_NOBODY, password=_NOBODY, shell="", folder="")


@dataclass(frozen=True)
class Logon:
    """Who a viewer says it is, and which of the guest's screens (from 1) it wants."""

    user: str
    password: str = field(repr=False)
    domain: str
    screen: int

    @classmethod
    def of(cls, info: ClientInfo) -> "Logon":
        r"""A domain that ends with ``@N`` names the screen; so does ``@N\name`` as the user (manual, 7.1.8)."""
        domain, user = info.domain, info.user
        if "\\" in user:
            before, _, user = user.partition("\\")
            domain = before or domain
        name, at, number = domain.rpartition("@")
        if at and number.isascii() and number.isdigit() and 0 < int(number) < 256:
            return cls(user, info.password, name, int(number))
        return cls(user, info.password, domain, 1)
