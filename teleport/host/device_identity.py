"""What a block device or LUN calls itself, the same on every host that sees it: `teleport.preflight.device`, `teleport.preflight.lun`.

Names that differ prove that they are two. A name that two share proves something only if it was made for that disk alone: iSCSI
servers call their LUNs alike by default, and a clone like its original.
"""

import asyncio
import os
import re
import shutil
import socket
from pathlib import Path

from blake3 import blake3

from teleport.errors import StorageError
from teleport.host.storage_tools import output_of
from teleport.machines.passwords import password_descriptor
from teleport.machines.remote_media import IscsiLun, NbdExport, parse
from teleport.preflight.device import Device
from teleport.preflight.lun import RemoteDisk

_SECONDS = 10.0
# Serial numbers that servers make up from a LUN's number (tgt's "beaf11", IET's, "MYSERIAL   0" of FreeBSD's ctld) or from a word of
# their configuration (SCST's eight hexadecimal digits): a clone of the server has them too. Nor does one character repeated name a disk.
_DEFAULT_SERIAL = re.compile(r"beaf.*|iet\b.*|myserial.*|[0-9a-f]{0,8}|.{0,3}|(.)\1*", re.IGNORECASE | re.DOTALL)
_LUN_ITSELF = re.compile(
    r"Association:\(0\)"
)  # SPC-4, 7.8.6: 0 is the logical unit, others are the port and the device it is seen by
_MULTIPATH = "mpath-"  # device-mapper's UUID of a multipath device: its disk has the name
_WORLD_WIDE_NAMES = ("device/wwid", "wwid")  # SCSI's and NVMe's, in a disk's folder of sysfs


def device_identity(device_number: int, *, sysfs: Path = Path("/sys")) -> Device:
    """What a block device is called by the kernel."""
    folder = (sysfs / f"dev/block/{os.major(device_number)}:{os.minor(device_number)}").resolve()
    mapped = _word(folder / "dm/uuid")
    name = "" if mapped.startswith(_MULTIPATH) else mapped
    if number := _word(folder / "partition"):
        name, folder = f"partition {number}", folder.parent
    return Device(here=f"{_boot()}/{_within_one_boot(folder, device_number)}", name=name, lies_on=tuple(sorted(_disks(folder))))


def _disks(folder: Path) -> set[str]:
    """The world-wide names of the disks that a device lies on."""
    below = [each.resolve() for each in (folder / "slaves").glob("*")]
    if below:
        return {name for each in below for name in _disks(each.parent if (each / "partition").exists() else each)}
    return {name for name in [next(filter(None, (_word(folder / each) for each in _WORLD_WIDE_NAMES)), "")] if name}


def _within_one_boot(folder: Path, device_number: int) -> str:
    """Its number; a loop device's is the file behind it, which another loop device may have too."""
    if backing := _word(folder / "loop/backing_file"):
        try:
            status = Path(backing).stat()
        except OSError:
            pass  # a file that is gone, or in another namespace
        else:
            return f"file/{status.st_dev}:{status.st_ino}+{_word(folder / 'loop/offset')}"
    return f"block/{os.major(device_number)}:{os.minor(device_number)}"


def _word(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


async def remote_identity(url: str, *, password_file: str, initiator: str) -> str:
    """Where a LUN or an NBD export is as this host sees it and what it calls itself, as text (`RemoteDisk`); "" for NFS, where a
    file's own folder holds the proof. Raises TimeoutError."""
    remote = parse(url)
    if isinstance(remote, IscsiLun):
        serial, designators = await _lun_pages(remote, password_file=password_file, initiator=initiator)
        disk = RemoteDisk(
            kind="iscsi",
            target=f"{remote.target.lower()}/{remote.lun}",
            port=remote.port,
            addresses=await _addresses(remote.server),
            host=_this_host(),
            name=lun_name(serial_page=serial, designator_page=designators),
            own=has_own_serial(serial),
        )
    elif isinstance(remote, NbdExport):
        addresses = await _addresses(remote.server)
        disk = RemoteDisk(kind="nbd", target=remote.export, port=remote.port, addresses=addresses, host=_this_host())
    else:
        return ""
    return disk.text


async def _addresses(server: str) -> tuple[str, ...]:
    """What a server's name stands for here; nothing when that cannot be found out. Raises TimeoutError."""
    async with asyncio.timeout(_SECONDS):
        try:
            found = await asyncio.get_running_loop().getaddrinfo(server, None, type=socket.SOCK_STREAM)
        except OSError:
            return ()
    return tuple(sorted({str(address[4][0]) for address in found}))


def _this_host() -> str:
    """Where loopback addresses mean one place: this boot of this kernel, and this network namespace of it."""
    return f"{_boot()}/{Path('/proc/self/ns/net').stat().st_ino}"


async def _lun_pages(lun: IscsiLun, *, password_file: str, initiator: str) -> tuple[str, str]:
    """What iscsi-inq prints of a LUN's serial number (VPD page 0x80) and designators (0x83); "" without libiscsi's iscsi-inq, or when
    the target does not tell. Raises TimeoutError."""
    if shutil.which("iscsi-inq") is None:
        return "", ""
    environment = {}
    if password_file:
        descriptor = password_descriptor(Path(password_file))
        try:
            password = os.pread(descriptor, 4096, 0).decode(errors="replace")
        finally:
            os.close(descriptor)
        # libiscsi reads these; only this user can see a process' environment.
        environment = {"LIBISCSI_CHAP_USERNAME": lun.user, "LIBISCSI_CHAP_PASSWORD": password}
    bare = IscsiLun(server=lun.server, target=lun.target, lun=lun.lun, port=lun.port).url
    name = str(lun.node(initiator=initiator)["initiator-name"])
    pages = []
    for page in ("128", "131"):
        words = ["-i", name, "-e", "1", "-c", page, bare]
        try:
            pages.append(await output_of("iscsi-inq", words, what=bare, timeout_seconds=_SECONDS, environment=environment))
        except StorageError:
            pages.append("")
    return pages[0], pages[1]


def lun_name(*, serial_page: str, designator_page: str) -> str:
    """The LUN's name from iscsi-inq's text of both pages; "" when they tell nothing. What depends on the path to it is left out."""
    serial, own = _serial(serial_page), _own_designators(designator_page)
    told = [serial, *sorted(own)]
    return f"scsi:{blake3(repr(told).encode()).hexdigest(length=12)}" if any(told) else ""


def has_own_serial(page: str) -> bool:
    """Whether iscsi-inq's text of page 0x80 holds a serial number that the server was given for this LUN, no default.

    Designators don't count: iscsi-inq prints binary ones up to their first zero, and the others hold words of a configuration."""
    return _DEFAULT_SERIAL.fullmatch(_serial(page)) is None


def _serial(page: str) -> str:
    found = re.search(r"Unit Serial Number:\[(.*)\]", page)
    return found[1].strip() if found else ""


def _own_designators(page: str) -> list[str]:
    """The designators of the logical unit itself."""
    blocks = page.split("DEVICE DESIGNATOR #")[1:]
    return [block.partition("\n")[2].strip() for block in blocks if _LUN_ITSELF.search(block)]
