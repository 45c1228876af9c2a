"""What a block device or LUN calls itself, the same on every host that sees it.

Written as KIND:NAME; names of different kinds cannot be compared (`teleport.preflight.storage.other_identity`). A name that two
devices share proves nothing (test targets all call themselves alike), names that differ prove that they are two.
"""

import os
import re
import shutil
from pathlib import Path

from blake3 import blake3

from teleport.errors import StorageError
from teleport.host.storage_tools import output_of
from teleport.machines.passwords import password_descriptor
from teleport.machines.remote_media import IscsiLun, parse

_SECONDS = 10.0
_LUN_ITSELF = re.compile(
    r"Association:\(0\)"
)  # SPC-4, 7.8.6: 0 is the logical unit, others are the port and the device it is seen by
# Files of /sys/dev/block/MAJOR:MINOR that name a device: LVM's and multipath's UUID, SCSI's and NVMe's world-wide name.
_NAMES = (("dm", "dm/uuid"), ("wwid", "device/wwid"), ("wwid", "wwid"))


def device_identity(device_number: int, *, sysfs: Path = Path("/sys")) -> str:
    """A block device's own name; "" when it has none (a loop device, a virtual disk)."""
    folder = sysfs / f"dev/block/{os.major(device_number)}:{os.minor(device_number)}"
    for kind, name in _NAMES:
        try:
            text = (folder / name).read_text().strip()
        except OSError:
            continue
        if text:
            return f"{kind}:{text}"
    return ""


async def lun_identity(url: str, *, password_file: str, initiator: str) -> str:
    """The designators of an iSCSI LUN (VPD page 0x83) and its serial number (0x80), digested; "" without libiscsi's iscsi-inq, or
    when the target does not tell. Raises TimeoutError."""
    lun = parse(url)
    if not isinstance(lun, IscsiLun) or shutil.which("iscsi-inq") is None:
        return ""
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
    return lun_name(serial_page=pages[0], designator_page=pages[1])


def lun_name(*, serial_page: str, designator_page: str) -> str:
    """The LUN's name from iscsi-inq's text of both pages; "" when they tell nothing. What depends on the path to it is left out."""
    serial = re.search(r"Unit Serial Number:\[(.*)\]", serial_page)
    blocks = designator_page.split("DEVICE DESIGNATOR #")[1:]
    own = [block.partition("\n")[2].strip() for block in blocks if _LUN_ITSELF.search(block)]
    told = [serial[1].strip() if serial else "", *sorted(own)]
    return f"scsi:{blake3(repr(told).encode()).hexdigest(length=12)}" if any(told) else ""
