"""Storage controllers and what is attached to them, as a definition has them."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from teleport.machines.controllers import BUSES, Bus, Chip, chip_of
from teleport.machines.fields import FilePath, Name, Part, absolute_path
from teleport.machines.remote_media import canonical, is_url

MediumType = Literal["hdd", "dvddrive", "fdd"]


def _medium(value: str) -> str:
    return canonical(value) if is_url(value) else absolute_path(value)


# An absolute path, or the URL of a LUN or an NFS export (remote_media).
MediumPlace = Annotated[str, AfterValidator(_medium)]


class Attachment(Part):
    """A drive at one place of a controller. `medium` "" is an empty drive; `format` is never probed when the VM starts.

    `password_file` holds the CHAP password of an iSCSI medium whose URL names a user; `read_only` is a floppy that cannot be written.
    """

    port: Annotated[int, Field(ge=0)]
    device: Annotated[int, Field(ge=0)] = 0
    type: MediumType
    medium: MediumPlace = ""
    password_file: FilePath = ""
    read_only: bool = False
    format: Literal["", "qcow2", "raw", "vdi", "vmdk", "vpc", "vhdx", "qcow", "parallels"] = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.type == "hdd" and not self.medium:
            raise ValueError("a hard disk needs a medium")
        if bool(self.medium) != bool(self.format):
            raise ValueError("medium and format go together")
        if self.type != "hdd" and self.format not in ("", "raw"):
            raise ValueError("a CD or floppy image is raw")
        if self.type == "fdd" and is_url(self.medium):
            raise ValueError("a floppy image is a file")
        if self.read_only and self.type != "fdd":
            raise ValueError("only a floppy is read-only by choice: a CD always is, a hard disk never")
        has_user = self.medium.startswith("iscsi://") and "@" in self.medium
        if has_user != bool(self.password_file):
            raise ValueError("the user of an iSCSI medium and its password file go together")
        return self

    @property
    def is_read_only(self) -> bool:
        """Whether QEMU opens the medium for reading only."""
        return self.read_only or self.type == "dvddrive"


class Controller(Part):
    """A storage controller; one of each bus, so that the place of a device depends on the bus alone and never on an order."""

    name: Name
    bus: Bus
    chip: Chip
    port_count: Annotated[int, Field(ge=1)]
    bootable: bool = True
    attachments: Annotated[tuple[Attachment, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        bus = BUSES[self.bus]
        chip = chip_of(self.chip)
        if chip.bus != self.bus:
            raise ValueError(f"controller {self.name!r}: {self.chip} is no {self.bus} controller, use {' or '.join(bus.chips)}")
        if not bus.least_ports <= self.port_count <= bus.most_ports:
            raise ValueError(
                f"controller {self.name!r}: port_count must be from {bus.least_ports} to {bus.most_ports} for {self.bus}"
            )
        taken: set[tuple[int, int]] = set()
        for each in self.attachments:
            where = f"controller {self.name!r}, port {each.port}, device {each.device}"
            if each.port >= self.port_count:
                raise ValueError(f"{where}: the port must be from 0 to {self.port_count - 1}")
            if each.device >= bus.devices_per_port:
                raise ValueError(f"{where}: the device must be from 0 to {bus.devices_per_port - 1}")
            if (each.port, each.device) in taken:
                raise ValueError(f"{where} is taken twice")
            if each.type not in bus.types:
                raise ValueError(f"{where}: {self.bus} takes {' or '.join(bus.types)}, not {each.type}")
            taken.add((each.port, each.device))
        return self

    def ordered(self) -> tuple[Attachment, ...]:
        """The attachments by port and device, however the file orders them."""
        return tuple(sorted(self.attachments, key=lambda each: (each.port, each.device)))
