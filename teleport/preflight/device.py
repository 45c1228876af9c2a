"""Are two block devices (an LV, a LUN that the kernel attached, a partition of one) one disk? Only proof counts, as for URLs (`lun`).

Proof is a name that was made for this disk alone: the world-wide name of what it lies on (through LVM, multipath and partitions), within
one host the same device or the same file behind two loop devices; or that both sides attach it by the same path in /dev/disk/by-id,
where an administrator's rule can name what bears no name itself. A name that stands on the disk (LVM's UUIDs, MD's) is copied with it.
"""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from teleport.model import MediumFact

_PREFIX = "device:"
_BY_ID = "/dev/disk/by-id/"
# Links there that udev makes by itself of what stands on the disk, or of a serial number that many have.
_OF_CLONES = re.compile(r"(dm|lvm|md)-.*|.*QM[0-9]{5}(-part[0-9]+)?")
# World-wide names that are equal for every disk of their make: tgt's (its NAA has no maker), QEMU's default serial numbers and those
# that we give our guests' drives (their places), one character repeated.
_OF_MANY = re.compile(
    r"naa\.60{6}.*|t10\..*\s(?:QM[0-9]{5}|(?:ide|sata|scsi|sas|virtio-scsi|virtio-blk|usb)-[0-9]+-[0-9]+|beaf.*|(.)\1*)|t10\.\S*|[a-z0-9]+\.0*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Device:
    """One block device as one side sees it.

    `name` is what device-mapper calls it (but for multipath, which is only a way to a disk), with the partition's number; `lies_on`
    the world-wide names of the disks below; `here` names it within one boot of one kernel.
    """

    here: str
    name: str = ""
    lies_on: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """As `MediumFact.identity` carries it."""
        return _PREFIX + urlencode([("here", self.here), ("name", self.name), *(("on", each) for each in self.lies_on)])

    @property
    def words(self) -> str:
        """For people."""
        return " on ".join(filter(None, (self.name, ", ".join(self.lies_on)))) or "no name of its own"


def device(identity: str) -> Device | None:
    """What the other side's `MediumFact.identity` says; None for anything else."""
    if not identity.startswith(_PREFIX):
        return None
    pairs = parse_qsl(identity.removeprefix(_PREFIX), keep_blank_values=True)
    said = dict(pairs)
    if not {"here", "name"} <= said.keys() <= {"here", "name", "on"}:
        return None
    return Device(here=said["here"], name=said["name"], lies_on=tuple(sorted(value for key, value in pairs if key == "on")))


def other_device(here: Device, there: Device) -> bool:
    """Whether their names say that they are two."""
    if here.here == there.here:
        return False
    return any(ours and theirs and ours != theirs for ours, theirs in ((here.name, there.name), (here.lies_on, there.lies_on)))


def not_one_device(here: MediumFact, there: MediumFact) -> str:
    """Why two device nodes are not proved to be one disk, with what would prove it; "" when it is proved."""
    ours, theirs = device(here.identity), device(there.identity)
    if ours is None or theirs is None:
        return "one side has a device there, the other has none: attach the same on both sides"
    if other_device(ours, theirs):
        return "another disk: it calls itself otherwise"
    own_link = here.path.startswith(_BY_ID) and not _OF_CLONES.fullmatch(here.path.removeprefix(_BY_ID))
    one_path = here.path == there.path and own_link
    on_one_disk = ours.lies_on == theirs.lies_on and any(not _OF_MANY.fullmatch(each) for each in ours.lies_on)
    if ours.here == theirs.here or one_path or (ours.name == theirs.name and on_one_disk):
        return ""
    return (
        "not proved to be the same disk, it may be a clone: its disk has no name of its own (LVM's is copied with it). Give it the same "
        "link in /dev/disk/by-id on both hosts (a udev rule) and attach it by that"
    )
