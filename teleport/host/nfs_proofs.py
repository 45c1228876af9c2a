"""The proof's file on an NFS server that only QEMU's own driver reaches: written and read with qemu-img and qemu-io.

These tools cannot remove a file, so that each side of a teleport has one name per image, which is written over: two hidden files of
512 bytes stay beside the image. What an old one holds fits no later commitment.
"""

import contextlib
import os
import re
from dataclasses import replace
from pathlib import PurePosixPath

from blake3 import blake3

from teleport.errors import StorageError
from teleport.host.storage import AttachedMedium, ask_tool
from teleport.machines.remote_media import NfsFile, parse
from teleport.preflight.proofs import SECRET_BYTES, Role

SECONDS = 10.0
_SECTOR_BYTES = 512
_DUMP = re.compile(r"^[0-9a-f]{8,}:  ((?:[0-9a-f]{2} )+)", re.MULTILINE)


def is_nfs(medium: AttachedMedium) -> bool:
    """Whether this kind of proof is for it."""
    return medium.path.startswith("nfs://")


def proof_name(medium: AttachedMedium, role: Role) -> str:
    """The name of that side's file."""
    return f".proof-{role.value}-{blake3(PurePosixPath(medium.path).name.encode()).hexdigest(length=12)}"


async def write(medium: AttachedMedium, name: str, secret: bytes) -> None:
    """Writes `secret` into the file `name` beside the image. Raises StorageError."""
    beside = _beside(medium, name)
    with contextlib.suppress(StorageError):  # it is there from an earlier teleport
        if await read(medium, name) is None:
            await _tool("qemu-img", ["create", "-q", "-f", "raw", beside.path, str(_SECTOR_BYTES)], beside, bare=True)
    descriptor = os.memfd_create("proof", 0)
    try:
        os.write(descriptor, secret.ljust(_SECTOR_BYTES, b"\0"))
        command = f"write -q -s /proc/self/fd/{descriptor} 0 {_SECTOR_BYTES}"
        await _tool("qemu-io", ["-c", command, "-c", "flush"], beside, descriptors=(descriptor,))
    finally:
        os.close(descriptor)
    if await read(medium, name) != secret:
        raise StorageError(
            medium.path, f"no proof of shared storage can be written beside it ({name})", "is the export read-only?"
        )


async def read(medium: AttachedMedium, name: str) -> bytes | None:
    """What the file `name` beside the image holds; None when there is none. Raises StorageError when the server doesn't answer."""
    beside = _beside(medium, name)
    try:
        output = await _tool("qemu-io", ["-r", "-U", "-c", f"read -v 0 {_SECTOR_BYTES}"], beside)
    except StorageError as error:
        if "NOENT" in error.why or "No such file" in error.why or "Failed to open" in error.why:
            return None
        raise
    dump = "".join(_DUMP.findall(output)).replace(" ", "")
    return bytes.fromhex(dump)[:SECRET_BYTES] if dump else None


def _beside(medium: AttachedMedium, name: str) -> AttachedMedium:
    image = parse(medium.path)
    assert isinstance(image, NfsFile)
    path = str(PurePosixPath(image.path).with_name(name))
    return replace(medium, path=NfsFile(server=image.server, path=path).url, format="raw")


async def _tool(
    program: str, words: list[str], medium: AttachedMedium, *, descriptors: tuple[int, ...] = (), bare: bool = False
) -> str:
    try:
        return await ask_tool(
            program, words, None if bare else medium, what=medium.path, timeout_seconds=SECONDS, descriptors=descriptors
        )
    except TimeoutError as error:
        raise StorageError(medium.path, "the storage does not answer") from error
