"""The guest speaks to its TPM 2.0: commands as bytes to /dev/tpm0 (TCG: TPM 2.0 Library, part 3), answers as hexadecimal digits."""

import struct

from tests.harness.guest import GuestConsole

_WITH_SESSION = 0x8002
# the empty password's session, which authorizes everything in a TPM that nobody owns (TPM_RS_PW)
_PASSWORD = struct.pack(">IIHBH", 9, 0x40000009, 0, 1, 0)
_OWNER, _SHA256, _PCR, _INDEX = 0x40000001, 0x000B, 16, 0x01500001
_OWNER_AND_AUTH_MAY_READ_AND_WRITE = 0x00060006 | 0x02000000
SECRET = b"TELEPORT"


def _command(code: int, body: bytes) -> bytes:
    return struct.pack(">HII", _WITH_SESSION, 10 + len(body), code) + body


def _ask(console: GuestConsole, command: bytes) -> bytes:
    text = "".join(f"\\{byte:03o}" for byte in command)
    answer = console.run(
        f"exec 5<>/dev/tpm0; printf '{text}' >&5; "
        "busybox dd bs=4096 count=1 <&5 2>/dev/null | busybox hexdump -v -e '1/1 \"%02x\"'; exec 5>&-"
    )
    got = bytes.fromhex(answer)
    assert int.from_bytes(got[6:10], "big") == 0, answer
    return got


def extend(console: GuestConsole) -> None:
    """PCR 16 of the guest takes in a digest."""
    _ask(console, _command(0x182, struct.pack(">I", _PCR) + _PASSWORD + struct.pack(">IH", 1, _SHA256) + b"\x42" * 32))


def extend_1(console: GuestConsole) -> None:
    """The same for a TPM 1.2 (TPM_Extend of TPM Main, part 3, which nobody need be authorized for)."""
    _ask(console, struct.pack(">HIII", 0x00C1, 34, 0x14, _PCR) + b"\x42" * 20)


def pcr(console: GuestConsole) -> str:
    """What PCR 16 holds."""
    return console.run(
        f"cd /sys/class/tpm/tpm0; busybox cat pcr-sha256/{_PCR} 2>/dev/null || busybox cat pcr-sha1/{_PCR}; cd /"
    )


def store(console: GuestConsole) -> None:
    """A place in NVRAM is made, and SECRET written there."""
    place = struct.pack(">HIHIHH", 14, _INDEX, _SHA256, _OWNER_AND_AUTH_MAY_READ_AND_WRITE, 0, len(SECRET))
    _ask(console, _command(0x12A, struct.pack(">I", _OWNER) + _PASSWORD + struct.pack(">H", 0) + place))
    written = struct.pack(">H", len(SECRET)) + SECRET + struct.pack(">H", 0)
    _ask(console, _command(0x137, struct.pack(">II", _INDEX, _INDEX) + _PASSWORD + written))


def stored(console: GuestConsole) -> bool:
    """Whether NVRAM holds SECRET."""
    read = struct.pack(">II", _INDEX, _INDEX) + _PASSWORD + struct.pack(">HH", len(SECRET), 0)
    return SECRET in _ask(console, _command(0x14E, read))
