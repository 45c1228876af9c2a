"""What one side finds out about its own media: usable or why not, format, sizes, snapshots, and for what is only read its content.

All access is bounded: dead storage hangs whoever touches it, so that every look runs in a thread of its own or in a `qemu-img`
that is given up after a time-out.
"""

import asyncio
import contextlib
import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blake3 import blake3

from teleport.errors import StorageError
from teleport.host.bounded import in_thread
from teleport.host.device_identity import device_identity, remote_identity
from teleport.host.storage_tools import output_of
from teleport.machines.passwords import password_file
from teleport.machines.remote_media import is_url, tool_words
from teleport.model import MediumFact

LOOK_SECONDS = 10.0
DIGEST_SECONDS = 120.0  # 1 GiB from a slow network share
WHOLE_DIGEST_BYTES = 1 << 30  # larger ones are sampled
_CHUNK_BYTES = 4 << 20
_SAMPLE_BYTES = 64 << 10
_SAMPLES = 512
_END_BYTES = 1 << 20
# Device nodes: where a disk keeps what tells it from another lies densely at its start.
_DEVICE_SAMPLE_BYTES = 4096
_DEVICE_DENSE_SAMPLES = 64
_DEVICE_SPARSE_SAMPLES = 64
_MIB = 1 << 20
_DUMP_LINE = re.compile(r"[0-9a-f]{8,}:  (?P<bytes>(?:[0-9a-f]{2} )+)")  # qemu-io's dump: offset, 16 bytes, as text


@dataclass(frozen=True)
class AttachedMedium:
    """A medium as the definition has it, with a `node` of its own.

    `path` is a file, a device node or a URL (`teleport.machines.remote_media`; "" for an empty drive); `format` "" is probed. The
    proof of shared storage goes into `<image>.teleport` beside a file; `proof_folder` is for devices and URLs, which have no
    beside. `password_file` and `initiator` are for iSCSI.
    """

    node: str
    kind: str
    format: str
    read_only: bool
    path: str
    proof_folder: str = ""
    password_file: str = ""
    initiator: str = "look"

    @property
    def is_url(self) -> bool:
        """Reached through one of QEMU's own network drivers (nfs://, iscsi://), not through a filesystem of this host."""
        return is_url(self.path)


async def media_facts(media: Sequence[AttachedMedium]) -> tuple[MediumFact, ...]:
    """The facts of all media, in their order; the proofs are added by `teleport.host.storage_proofs`. Raises nothing: what is
    wrong with a medium stands in its `problem`."""
    return tuple(await asyncio.gather(*(medium_fact(medium) for medium in media)))


async def medium_fact(medium: AttachedMedium) -> MediumFact:
    """One medium's facts."""
    fact = MediumFact(
        node=medium.node,
        kind=medium.kind,
        format=medium.format,
        read_only=medium.read_only,
        virtual_size_bytes=0,
        size_bytes=0,
        path=medium.path,
    )
    if not medium.path:
        return fact
    try:
        if not medium.is_url:
            fact = await in_thread(lambda: _looked_at(fact), timeout_seconds=LOOK_SECONDS, name="look at a medium")
        fact = _with_image(fact, await image_info(medium))
        if medium.is_url:
            fact = replace(fact, content=await url_samples(medium, fact.virtual_size_bytes))
            name = await remote_identity(medium.path, password_file=medium.password_file, initiator=medium.initiator)
            fact = replace(fact, identity=name)
        elif medium.read_only:
            content = await in_thread(lambda: content_digest(Path(medium.path)), timeout_seconds=DIGEST_SECONDS, name="digest")
            fact = replace(fact, content=content)
        elif await _is_device(Path(medium.path)):
            samples = await in_thread(lambda: device_samples(Path(medium.path)), timeout_seconds=LOOK_SECONDS, name="samples")
            fact = replace(fact, content=samples)
    except TimeoutError:
        return replace(fact, problem=f"{medium.path}: the storage does not answer")
    except StorageError as error:
        return replace(fact, problem=str(error))
    except OSError as error:
        return replace(fact, problem=f"{medium.path}: {error.strerror or error}")
    return fact


async def content_again(medium: AttachedMedium, fact: MediumFact) -> str:
    """The content of a device or URL that `fact` has samples of, once more; "" for others. Raises StorageError."""
    if not fact.content.startswith("samples:"):
        return ""
    try:
        if medium.is_url:
            return await url_samples(medium, fact.virtual_size_bytes)
        return await in_thread(lambda: device_samples(Path(medium.path)), timeout_seconds=LOOK_SECONDS, name="samples")
    except TimeoutError as error:
        raise StorageError(medium.path, "the storage does not answer") from error
    except OSError as error:
        raise StorageError(medium.path, error.strerror or str(error)) from error


async def _is_device(path: Path) -> bool:
    return stat.S_ISBLK((await in_thread(path.stat, timeout_seconds=LOOK_SECONDS, name="look at a medium")).st_mode)


def _looked_at(fact: MediumFact) -> MediumFact:
    """Size and identity of a file or device node. Raises StorageError when this user cannot use it, with the reason."""
    path = Path(fact.path)
    try:
        status = path.stat()
    except FileNotFoundError as error:
        reason = "is a link to a file that is missing" if path.is_symlink() else "no such file"
        raise StorageError(fact.path, reason) from error
    except PermissionError as error:
        raise StorageError(fact.path, "a folder on the way to it is closed to this user") from error
    if stat.S_ISDIR(status.st_mode):
        raise StorageError(fact.path, "is a folder, not an image")
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        raise StorageError(fact.path, "is neither a file nor a block device")
    flags = os.O_RDONLY if fact.read_only else os.O_RDWR  # opening says more than access(): read-only mounts, network storage
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        doing = "read" if fact.read_only else "written"
        raise StorageError(fact.path, f"cannot be {doing} by this user: {error.strerror}") from error
    try:
        size_bytes = os.lseek(descriptor, 0, os.SEEK_END)  # a device node's st_size is 0
    finally:
        os.close(descriptor)
    return replace(fact, size_bytes=size_bytes, identity=_identity(status))


def _identity(status: os.stat_result) -> str:
    """The very same file or device within one boot of one kernel; equal ones are the same, unequal ones may be the same all the
    same (two mounts of one share)."""
    if stat.S_ISBLK(status.st_mode):
        return device_identity(status.st_rdev).text
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{os.major(status.st_dev)}:{os.minor(status.st_dev)}/{status.st_ino}"


# -- qemu-img


async def image_info(medium: AttachedMedium, *, timeout_seconds: float = LOOK_SECONDS) -> Mapping[str, Any]:
    """`qemu-img info` as JSON, without locks (-U), so that a running guest's image can be looked at.

    Raises StorageError in qemu-img's words, TimeoutError.
    """
    output = await ask_tool(
        "qemu-img", ["info", "-U", "--output=json"], medium, what=medium.path, timeout_seconds=timeout_seconds
    )
    information = json.loads(output)
    if not isinstance(information, dict):
        raise StorageError(medium.path, "qemu-img says nothing about it")
    return information


async def ask_tool(
    program: str,
    words: Sequence[str],
    medium: AttachedMedium | None,
    *,
    what: str,
    timeout_seconds: float,
    descriptors: Sequence[int] = (),
) -> str:
    """Runs one of QEMU's tools, about one medium (None: `words` say all); it inherits `descriptors`.

    Raises StorageError in its words, TimeoutError.
    """
    if medium is None:
        return await output_of(program, words, what=what, timeout_seconds=timeout_seconds, descriptors=descriptors)
    if not medium.is_url:
        image = [*(["-f", medium.format] if medium.format else []), medium.path]
        return await output_of(program, [*words, *image], what=what, timeout_seconds=timeout_seconds, descriptors=descriptors)
    with password_file(medium.password_file) as (secret, secrets):
        image = tool_words(medium.path, image_format=medium.format, initiator=medium.initiator, secret_file=secret)
        return await output_of(
            program,
            [*words, *image],
            what=what,
            timeout_seconds=timeout_seconds,
            descriptors=(*descriptors, *secrets),
        )


def _with_image(fact: MediumFact, information: Mapping[str, Any]) -> MediumFact:
    """Adds what qemu-img says. Raises StorageError for an image that its own header calls corrupt."""
    data = information.get("format-specific", {}).get("data", {})
    if data.get("corrupt"):
        raise StorageError(fact.path, "the image is marked as corrupt", f"qemu-img check {fact.path}")
    size_bytes = int(information["virtual-size"])
    return replace(
        fact,
        format=str(information["format"]),
        virtual_size_bytes=size_bytes,
        size_bytes=fact.size_bytes or size_bytes,
        snapshots=tuple(sorted(str(snapshot["name"]) for snapshot in information.get("snapshots", ()))),
        backing=str(information.get("full-backing-filename") or information.get("backing-filename") or ""),
    )


# -- content

_digests: dict[tuple[str, int, int, int, int], str] = {}


def content_digest(path: Path) -> str:
    """blake3 of a file's content: whole up to 1 GiB ("blake3:…"), else both ends and 512 blocks between ("blake3-sampled:…").

    Remembered while path, device, inode, size and time of change stay what they are. Raises OSError.
    """
    with path.open("rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        key = (str(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if (known := _digests.get(key)) is not None:
            return known
        size_bytes = file.seek(0, os.SEEK_END)
        sampled = size_bytes > WHOLE_DIGEST_BYTES
        ranges = _sampled_ranges(size_bytes) if sampled else [(0, size_bytes)]
        hasher = blake3(size_bytes.to_bytes(8, "big"), max_threads=blake3.AUTO)
        for start, length in ranges:
            file.seek(start)
            left_bytes = length
            while left_bytes > 0:
                chunk = file.read(min(left_bytes, _CHUNK_BYTES))
                if not chunk:
                    raise OSError(f"it became shorter while it was read: it had {size_bytes} bytes")
                hasher.update(chunk)
                left_bytes -= len(chunk)
    digest = f"{'blake3-sampled' if sampled else 'blake3'}:{hasher.hexdigest()}"
    if not stat.S_ISBLK(status.st_mode):  # a device has no time of change
        _digests[key] = digest
    return digest


def _sampled_ranges(size_bytes: int) -> list[tuple[int, int]]:
    """(start, length) of the parts of a large file that stand for it: evenly spaced, and both ends."""
    step = size_bytes // _SAMPLES
    blocks = [(number * step, _SAMPLE_BYTES) for number in range(1, _SAMPLES)]
    return [(0, _END_BYTES), *blocks, (size_bytes - _END_BYTES, _END_BYTES)]


def device_samples(path: Path) -> str:
    """Digests of small blocks of a device node ("samples:d1,d2,…"): dense over its first 64 MiB, then spread, and its end.

    Nothing can be written beside an LV or a LUN, and two of them may share the folder that was named for the proof: their content
    tells them apart (`teleport.preflight.storage.same_samples`). Raises OSError.
    """
    with path.open("rb", buffering=0) as file:
        size_bytes = file.seek(0, os.SEEK_END)
        # What this host wrote may not be there yet, what it read earlier may be older than what another one has written since.
        with contextlib.suppress(OSError):
            os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        digests = []
        for start in _device_offsets(size_bytes):
            block = os.pread(file.fileno(), _DEVICE_SAMPLE_BYTES, start)
            digests.append(blake3(block).hexdigest(length=8) if block.strip(b"\0") else "-")
    return "samples:" + ",".join(digests)


async def url_samples(medium: AttachedMedium, size_bytes: int, *, timeout_seconds: float = LOOK_SECONDS) -> str:
    """The same samples of what only QEMU's own drivers reach (iscsi://, nfs://), read without locks by `qemu-io`.

    They are of the disk as a guest sees it, of `size_bytes` (an image file grows while it is written); digests are of qemu-io's dump
    of the blocks. Raises StorageError, TimeoutError.
    """
    offsets = _device_offsets(size_bytes)
    words = ["-r", "-U"]
    for start in offsets:
        words += ["-c", f"read -v {start} {min(_DEVICE_SAMPLE_BYTES, size_bytes - start)}"]
    output = await ask_tool("qemu-io", words, medium, what=medium.path, timeout_seconds=timeout_seconds)
    digests, dump = [], blake3()
    empty = True
    for line in output.splitlines():
        if line.startswith("read "):  # "read 4096/4096 bytes at offset 0", behind the block's dump
            digests.append("-" if empty else dump.hexdigest(length=8))
            dump, empty = blake3(), True
        elif match := _DUMP_LINE.match(line):
            dump.update(match["bytes"].encode())
            empty = empty and not match["bytes"].strip("0 ")
    if len(digests) != len(offsets):
        raise StorageError(medium.path, "cannot be read", output.strip().splitlines()[-1] if output.strip() else "")
    return "samples:" + ",".join(digests)


def _device_offsets(size_bytes: int) -> list[int]:
    """Where to look: superblocks lie just behind a partition's start, which is at a multiple of 1 MiB by custom."""
    last = max(0, size_bytes - _DEVICE_SAMPLE_BYTES)
    dense = [number * _MIB + extra for number in range(_DEVICE_DENSE_SAMPLES) for extra in (0, _DEVICE_SAMPLE_BYTES)]
    spread = [last * number // _DEVICE_SPARSE_SAMPLES // 4096 * 4096 for number in range(1, _DEVICE_SPARSE_SAMPLES)]
    return sorted({offset for offset in (*dense, *spread, last) if offset <= last})
