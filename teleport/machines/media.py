"""Images on disk: making, looking at, resizing, converting and deleting them with qemu-img.

Nothing here overwrites a file. A new image is made under a temporary name and gets its own only when it is whole, so that a power
cut leaves it there whole or not at all.
"""

import contextlib
import json
import os
import secrets
import shutil
import stat
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from teleport.errors import BusyError, HypervisorError, NotFoundError, StorageError, UsageError
from teleport.machines import passwords, remote_media
from teleport.machines.files import sync_folder

Format = Literal["qcow2", "raw", "vdi", "vmdk", "vpc", "vhdx", "qcow", "parallels"]
Variant = Literal["standard", "fixed"]
# VirtualBox's words → QEMU's format.
FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "QCOW2": "qcow2",
        "RAW": "raw",
        "VDI": "vdi",
        "VMDK": "vmdk",
        "VHD": "vpc",
        "VHDX": "vhdx",
    }
)
# The others are refused by QEMU when it is asked to migrate (machines.md).
MIGRATABLE: frozenset[str] = frozenset({"qcow2", "raw"})
LEAST_BYTES = 1 << 20
MOST_BYTES = 2 << 50  # VirtualBox's limit for its own format, 2 PB
_SECTOR_BYTES = 512
_QUICK_SECONDS = 60.0
_INSTALL = "install Debian's qemu-utils, version 10.0 or newer"
_OPTIONS: Mapping[tuple[Format, Variant], str] = MappingProxyType(
    {
        ("qcow2", "fixed"): "preallocation=falloc",
        ("raw", "fixed"): "preallocation=falloc",
        ("vdi", "fixed"): "static=on",
        ("vpc", "fixed"): "subformat=fixed",
        ("vpc", "standard"): "force_size=on",
        ("vhdx", "fixed"): "subformat=fixed",
    }
)


@dataclass(frozen=True)
class MediumInfo:
    """What an image is: sizes in bytes, `backing` the image below ("" if none), `snapshots` the names of internal ones."""

    path: Path
    format: str
    virtual_bytes: int
    actual_bytes: int
    backing: str = ""
    snapshots: tuple[str, ...] = ()
    encrypted: bool = False
    is_block_device: bool = False

    @property
    def can_teleport(self) -> bool:
        """Whether QEMU can migrate a VM that writes to it."""
        return self.format in MIGRATABLE


def format_word(qemu_format: str) -> str:
    """QEMU's format in VirtualBox's words."""
    return next((word for word, name in FORMATS.items() if name == qemu_format), qemu_format.upper())


def create_disk(path: Path, *, size_bytes: int, image_format: Format = "qcow2", variant: Variant = "standard") -> MediumInfo:
    """Makes an empty disk. Raises UsageError when the file exists or the size cannot be had, StorageError when it cannot be written."""
    if not LEAST_BYTES <= size_bytes <= MOST_BYTES or size_bytes % _SECTOR_BYTES:
        raise UsageError(
            f"--size of {path}", "a disk has 1 MB to 2 PB, in whole sectors of 512 bytes", "give the size in megabytes"
        )
    options = _creation_options(image_format, variant)
    with _new_file(path) as fresh:
        words = ["create", "-q", "-f", image_format, *(["-o", options] if options else []), "--", str(fresh), str(size_bytes)]
        run_tool(words, what=f"making the disk {path}", seconds=None)
    return inspect(path, image_format=image_format)


def inspect(path: Path, *, image_format: str = "") -> MediumInfo:
    """Looks at an image, also at one that is in use. `image_format` "" lets qemu-img find it out."""
    kind = _kind(path)
    words = ["info", "-U", "--output=json", *(["-f", image_format] if image_format else []), "--", str(path)]
    raw = json.loads(run_tool(words, what=f"looking at {path}"))
    return MediumInfo(
        path=path,
        format=raw["format"],
        virtual_bytes=raw["virtual-size"],
        actual_bytes=raw.get("actual-size", 0),
        backing=raw.get("full-backing-filename", raw.get("backing-filename", "")),
        snapshots=tuple(each["name"] or each["id"] for each in raw.get("snapshots", ())),
        encrypted=bool(raw.get("encrypted", False)),
        is_block_device=stat.S_ISBLK(kind),
    )


def inspect_url(url: str, *, image_format: str, initiator: str, password_file: str = "") -> MediumInfo:
    """Looks at a medium that QEMU reaches by a driver of its own. `image_format` "" lets qemu-img find it out."""
    with passwords.password_file(password_file) as (secret, descriptors):
        image = remote_media.tool_words(url, image_format=image_format, initiator=initiator, secret_file=secret)
        words = ["info", "-U", "--output=json", *image]
        raw = json.loads(run_tool(words, what=f"looking at {url}", descriptors=descriptors))
    return MediumInfo(
        path=Path(url),
        format=raw["format"],
        virtual_bytes=raw["virtual-size"],
        actual_bytes=raw.get("actual-size", 0),
        backing=raw.get("full-backing-filename", raw.get("backing-filename", "")),
        snapshots=tuple(each["name"] or each["id"] for each in raw.get("snapshots", ())),
    )


def resize(path: Path, *, size_bytes: int) -> MediumInfo:
    """Makes a disk bigger. Smaller is refused: it would cut off what is stored there."""
    info = inspect(path)
    if size_bytes < info.virtual_bytes:
        raise UsageError(
            f"--resize of {path}",
            f"it has {info.virtual_bytes >> 20} MB, and making it smaller would cut off its end",
            "clone what is in it to a smaller disk instead",
        )
    require_unused(path, info.format)
    if size_bytes % _SECTOR_BYTES or size_bytes > MOST_BYTES:
        raise UsageError(f"--resize of {path}", "a disk has 1 MB to 2 PB, in whole sectors of 512 bytes")
    run_tool(["resize", "-q", "-f", info.format, "--", str(path), str(size_bytes)], what=f"resizing {path}")
    try:
        make_durable(path)
    except OSError as error:
        raise StorageError(f"resizing {path}", error.strerror or str(error), "check that storage") from error
    return inspect(path)


def clone(
    source: Path,
    target: Path,
    *,
    image_format: Format = "qcow2",
    variant: Variant = "standard",
    source_format: str = "",
) -> MediumInfo:
    """Copies a disk into a new file, in any format. The source must not be in use; `source_format` "" lets qemu-img find it out."""
    info = inspect(source, image_format=source_format)
    require_unused(source, info.format)
    options = _creation_options(image_format, variant)
    with _new_file(target) as fresh:
        words = ["convert", "-q", "-f", info.format, "-O", image_format, *(["-o", options] if options else [])]
        run_tool([*words, "--", str(source), str(fresh)], what=f"copying {source} to {target}", seconds=None)
    return inspect(target, image_format=image_format)


def convert(path: Path, *, image_format: Format, note: Callable[[str], object]) -> MediumInfo:
    """Changes a disk's format under its own name: a whole copy replaces it at once. Snapshots would be lost: refused.

    `note` tells a format to whoever keeps the disk's. It is called before the disk is replaced, unless that becomes a raw one: cut off
    between the two, the disk is no image of the noted format, and QEMU says so; any content would be a raw one.
    """
    info = inspect(path)
    if info.format == image_format:
        note(image_format)
        return info
    if info.snapshots or info.backing:
        raise UsageError(
            f"converting {path}",
            f"it has {'snapshots' if info.snapshots else f'the backing file {info.backing}'}, which would be lost",
            "use clonemedium, which leaves it as it is",
        )
    require_unused(path, info.format)
    fresh = path.with_name(f".{path.name[:180]}.{secrets.token_hex(4)}.new")
    try:
        words = ["convert", "-q", "-f", info.format, "-O", image_format, "--", str(path), str(fresh)]
        run_tool(words, what=f"converting {path}", seconds=None)
        make_durable(fresh)
        shutil.copymode(path, fresh)
        try:
            if image_format != "raw":
                note(image_format)
            fresh.replace(path)
        except (OSError, StorageError):
            with contextlib.suppress(StorageError):
                note(info.format)
            raise
        sync_folder(path.parent)
        if image_format == "raw":
            note(image_format)
    except OSError as error:
        raise StorageError(f"converting {path}", error.strerror or str(error), "check free space and permissions") from error
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
    return inspect(path, image_format=image_format)


def delete(path: Path) -> None:
    """Deletes an image that nobody uses, and the owner record beside it."""
    _kind(path)
    require_unused(path, inspect(path).format)
    try:
        path.unlink()
        record = path.with_name(f"{path.name}.teleport")
        if record.is_dir() and not record.is_symlink():
            shutil.rmtree(record)
        sync_folder(path.parent)
    except OSError as error:
        raise StorageError(f"deleting {path}", error.strerror or str(error), "check permissions") from error


def _creation_options(image_format: Format, variant: Variant) -> str:
    if variant == "fixed" and (image_format, variant) not in _OPTIONS:
        raise UsageError(
            "--variant Fixed", f"{format_word(image_format)} images grow as they are written", "use another format"
        )
    return _OPTIONS.get((image_format, variant), "")


def _kind(path: Path) -> int:
    """The file's mode. Raises NotFoundError or StorageError."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise NotFoundError(
            f"medium {path}", "there is no such file", "give the path of an image, or make one by createmedium"
        ) from None
    except OSError as error:
        raise StorageError(f"medium {path}", error.strerror or str(error), "check its path and permissions") from error
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise UsageError(f"medium {path}", "is neither a file nor a block device")
    return mode


def require_unused(path: Path, image_format: str) -> None:
    """QEMU's image lock: held by whoever runs a VM with it (on local files)."""
    words = ["info", "--output=json", "-f", image_format, "--", str(path)]
    result = _run(words, seconds=_QUICK_SECONDS)
    if result.returncode and "lock" in result.stderr:
        raise BusyError(f"medium {path}", "a running VM uses it", "power that VM off first")


@contextlib.contextmanager
def _new_file(path: Path) -> Any:
    """A temporary beside `path` that becomes `path` when the block ends well and nobody took that name meanwhile."""
    if path.is_symlink() or path.exists():
        raise UsageError(f"medium {path}", "the file exists already, and nothing is overwritten", "choose another name")
    if not path.parent.is_dir():
        raise StorageError(f"medium {path}", f"there is no folder {path.parent}", "make that folder first")
    fresh = path.with_name(f".{path.name[:180]}.{secrets.token_hex(4)}.new")
    try:
        yield fresh
        make_durable(fresh)
        _give_name(fresh, path)
        sync_folder(path.parent)
    except FileExistsError:
        raise UsageError(f"medium {path}", "somebody made that file meanwhile", "choose another name") from None
    except OSError as error:
        raise StorageError(f"medium {path}", error.strerror or str(error), "check free space and permissions") from error
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)


def _give_name(fresh: Path, path: Path) -> None:
    """A hard link takes a name only when it is free; where there are none, an exclusive empty file holds the name."""
    try:
        path.hardlink_to(fresh)
    except FileExistsError:
        raise
    except OSError:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        fresh.replace(path)


def make_durable(path: Path) -> None:
    """Its content is on the storage. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _run(words: Sequence[str], *, seconds: float | None, descriptors: Sequence[int] = ()) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"LC_ALL": "C"}
    try:
        return subprocess.run(
            ["qemu-img", *words],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=seconds,
            check=False,
            env=environment,
            pass_fds=descriptors,
        )
    except FileNotFoundError:
        raise HypervisorError("qemu-img", "is not installed", _INSTALL) from None
    except subprocess.TimeoutExpired:
        raise StorageError(
            f"qemu-img {words[0]}", f"gave no answer for {seconds:.0f} s", "is that storage reachable?"
        ) from None


def run_tool(
    words: Sequence[str], *, what: str, seconds: float | None = _QUICK_SECONDS, descriptors: Sequence[int] = ()
) -> str:
    """One command of qemu-img; its output. Raises StorageError in its words."""
    result = _run(words, seconds=seconds, descriptors=descriptors)
    if result.returncode:
        lines = result.stderr.strip().splitlines() or [f"qemu-img ended with {result.returncode}"]
        reason = lines[0].removeprefix("qemu-img: ").removeprefix(f"Could not open '{words[-1]}': ")
        hint = _INSTALL if "option" in reason and "unrecognized" in reason else ""
        raise StorageError(what, reason, hint)
    return result.stdout
