"""What a VM is: the value that everything else is made from, checked whenever it is made.

- Frozen: a change makes a new value, validated whole (`teleport.machines.options` edits, `teleport.machines.store` keeps it).
- Closed: an unknown key is refused. There is a field only for what reaches the guest, the runner or the display.
- Pinned: `machine.version` is QEMU's machine version, written down at createvm, so that a newer QEMU makes the same machine.
- Names of values are VirtualBox's where it has them (`piix3`, `82540EM`, `IntelAhci`); `arguments.py` says what QEMU is given.

*Descriptive* settings may differ between the two ends of a teleport (`settings.py` lists what may not): names, the
description, the VM's own UUID, MAC addresses (the target takes the source's), serial ports' paths, host ports, the teleporter,
the display, paths of media (the media themselves are proved to be the same).
"""

import re
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from teleport.errors import UsageError
from teleport.machines import cpus
from teleport.machines.controllers import BUSES, Bus, Chip, chip_of
from teleport.machines.vrde import VrdeSettings
from teleport.machines.vrde import from_dict as vrde_from_dict
from teleport.machines.vrde import to_dict as vrde_to_dict

FORMAT = 1  # of the definition file; a reader refuses a newer one
MACHINE_VERSION = "10.0"  # the pin for new VMs: the oldest QEMU that Teleport takes, so that every host knows it
MOST_NICS = 8
MOST_SERIAL_PORTS = 4
MOST_CPUS = 64
MOST_MEMORY_MB = 2_097_152  # VirtualBox's limit, 2 TB
LEAST_MEMORY_MB = 4
BOOT_DEVICES = 4
MAC_PREFIX = "08:00:27"  # VirtualBox's own block of addresses

Chipset = Literal["piix3", "ich9"]
Firmware = Literal["bios"]
Ram = Literal["shared", "private"]
Accelerator = Literal["auto", "kvm", "tcg"]
BootDevice = Literal["none", "floppy", "dvd", "disk", "net"]
Graphics = Literal["none", "vboxvga", "vmsvga"]
NicAttachment = Literal["none", "null", "nat"]
NicModel = Literal["Am79C970A", "82540EM", "82544GC", "82545EM", "82574L", "rtl8139", "vmxnet3", "virtio"]
SerialMode = Literal["disconnected", "file", "server", "client", "tcpserver", "tcpclient", "device"]
MediumType = Literal["hdd", "dvddrive", "fdd"]


def _text(value: str) -> str:
    """What can stand in a file and on a terminal: valid UTF-8 without NUL."""
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("is not valid UTF-8") from None
    return value


def _one_line(value: str) -> str:
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in value):
        raise ValueError("must not contain control characters or line breaks")
    return _text(value)


def _name(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return _one_line(value)


def _uuid(value: str) -> str:
    try:
        return str(UUID(value))
    except ValueError:
        raise ValueError("is not a UUID such as 8f3c2a1e-5d0b-4c76-9b1f-0a7d3e6c5b42") from None


def checked_mac(value: str) -> str:
    """A MAC address as we write it (``08:00:27:1a:2b:3c``), from any of the usual spellings. Raises ValueError."""
    if not value:
        return value
    digits = value.replace(":", "").replace("-", "").lower()
    if not re.fullmatch(r"[0-9a-f]{12}", digits):
        raise ValueError("is not a MAC address of 12 hexadecimal digits such as 0800271A2B3C")
    if int(digits[1], 16) & 1:
        raise ValueError("is a multicast address: its second digit must be even")
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2))


def _path(value: str) -> str:
    if value and not PurePosixPath(_one_line(value)).is_absolute():
        raise ValueError("must be an absolute path")
    return value


def _vrde(value: object) -> object:
    if not isinstance(value, dict):
        return value
    try:
        return vrde_from_dict(value)
    except UsageError as error:
        raise ValueError(str(error)) from error


Text = Annotated[str, AfterValidator(_text)]
Line = Annotated[str, AfterValidator(_one_line)]
Name = Annotated[str, AfterValidator(_name)]
Uuid = Annotated[str, AfterValidator(_uuid)]
Mac = Annotated[str, AfterValidator(checked_mac)]
FilePath = Annotated[str, AfterValidator(_path)]
Vrde = Annotated[VrdeSettings, BeforeValidator(_vrde), PlainSerializer(vrde_to_dict, when_used="json")]


class Part(BaseModel):
    """A section of a definition: frozen, closed, without conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)


class Machine(Part):
    """The board: what QEMU's `-machine`, `-m`, `-smp` and firmware make."""

    version: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+$")] = MACHINE_VERSION
    chipset: Chipset = "piix3"
    firmware: Firmware = "bios"
    memory_mb: Annotated[int, Field(ge=LEAST_MEMORY_MB, le=MOST_MEMORY_MB)] = 128
    ram: Ram = "shared"
    cpus: Annotated[int, Field(ge=1, le=MOST_CPUS)] = 1
    acpi: bool = True
    ioapic: bool = True
    hpet: bool = False
    rtc_utc: bool = False
    boot: Annotated[tuple[BootDevice, ...], Field(strict=False, min_length=BOOT_DEVICES, max_length=BOOT_DEVICES)] = (
        "floppy",
        "dvd",
        "disk",
        "none",
    )
    graphics: Graphics = "vboxvga"
    vram_mb: Annotated[int, Field(ge=1, le=256)] = 16
    accelerator: Accelerator = "auto"
    kernel: FilePath = ""
    initrd: FilePath = ""
    append: Line = ""

    @property
    def type(self) -> str:
        """QEMU's machine type with its version, e.g. ``pc-i440fx-10.0``."""
        return f"{'pc-i440fx' if self.chipset == 'piix3' else 'pc-q35'}-{self.version}"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.initrd and not self.kernel:
            raise ValueError("initrd needs a kernel: give --kernel too")
        if self.append and not self.kernel:
            raise ValueError("append is the command line of a kernel: give --kernel too")
        if self.cpus > 1 and not self.ioapic:
            raise ValueError("more than one CPU needs the I/O APIC: --ioapic on")
        if self.chipset == "ich9" and not self.acpi:
            raise ValueError("chipset ich9 always has ACPI: use --acpi on, or --chipset piix3")
        if self.chipset == "ich9" and not self.ioapic:
            raise ValueError("chipset ich9 needs the I/O APIC: use --ioapic on, or --chipset piix3")
        return self


class Cpu(Part):
    """The virtual CPU: a model that QEMU names, so that it is the same on every host."""

    profile: Annotated[str, AfterValidator(cpus.checked_profile)] = cpus.DEFAULT_PROFILE
    pae: bool = True
    long_mode: bool = True


class Attachment(Part):
    """A drive at one place of a controller. `medium` "" is an empty drive; `format` is never probed when the VM starts."""

    port: Annotated[int, Field(ge=0)]
    device: Annotated[int, Field(ge=0)] = 0
    type: MediumType
    medium: FilePath = ""
    format: Literal["", "qcow2", "raw", "vdi", "vmdk", "vpc", "vhdx", "qcow", "parallels"] = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.type == "hdd" and not self.medium:
            raise ValueError("a hard disk needs a medium")
        if bool(self.medium) != bool(self.format):
            raise ValueError("medium and format go together")
        if self.type != "hdd" and self.format not in ("", "raw"):
            raise ValueError("a CD or floppy image is raw")
        return self


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


class Nic(Part):
    """A network adapter; a number that the definition doesn't list has none."""

    number: Annotated[int, Field(ge=1, le=MOST_NICS)]
    attachment: NicAttachment = "none"
    model: NicModel = "82540EM"
    mac: Mac = ""


class Serial(Part):
    """A serial port (UART). `path` is a file, socket, device, port or HOST:PORT by `mode`; it is descriptive."""

    number: Annotated[int, Field(ge=1, le=MOST_SERIAL_PORTS)]
    enabled: bool = False
    io_base: Annotated[int, Field(ge=0x100, le=0xFFF8)] = 0x3F8
    irq: Annotated[int, Field(ge=0, le=15)] = 4
    mode: SerialMode = "disconnected"
    path: Line = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.mode == "disconnected") == bool(self.path):
            raise ValueError(f"serial port {self.number}: mode {self.mode} {'takes no' if self.path else 'needs a'} path")
        if self.mode in ("file", "server", "client", "device") and not PurePosixPath(self.path).is_absolute():
            raise ValueError(f"serial port {self.number}: {self.path!r} must be an absolute path")
        return self


class Teleporter(Part):
    """Whether the VM waits for a teleport when it is started, and where. Port 0 picks a free one; address "" is loopback."""

    enabled: bool = False
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    address: Line = ""
    password: Line = ""
    password_file: FilePath = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.password and self.password_file:
            raise ValueError("the teleporter has a password and a password file: keep one of them")
        return self


class Definition(Part):
    """One VM."""

    format: Annotated[int, Field(ge=1, le=FORMAT)] = FORMAT
    name: Name
    uuid: Uuid
    ostype: Name = "Other"
    description: Text = ""
    owner_folder: FilePath = ""  # of the owner record, where no writable disk file can have it beside itself
    machine: Machine = Machine()
    cpu: Cpu = Cpu()
    teleporter: Teleporter = Teleporter()
    vrde: Vrde = Field(default_factory=VrdeSettings)
    controllers: Annotated[tuple[Controller, ...], Field(strict=False)] = ()
    nics: Annotated[tuple[Nic, ...], Field(strict=False)] = ()
    serial: Annotated[tuple[Serial, ...], Field(strict=False)] = ()

    @property
    def memory_bytes(self) -> int:
        """The guest's RAM."""
        return self.machine.memory_mb << 20

    def nic(self, number: int) -> Nic:
        """Adapter `number` (1-based); one that isn't there when the definition doesn't list it."""
        return next((each for each in self.nics if each.number == number), Nic(number=number))

    def serial_port(self, number: int) -> Serial:
        """Serial port `number` (1-based); a switched-off one when the definition doesn't list it."""
        return next((each for each in self.serial if each.number == number), Serial(number=number))

    def controller(self, bus: Bus) -> Controller | None:
        """The controller of that bus, if there is one."""
        return next((each for each in self.controllers if each.bus == bus), None)

    def ordered_controllers(self) -> tuple[Controller, ...]:
        """The controllers in the one order that everything uses, however the file orders them."""
        return tuple(sorted(self.controllers, key=lambda each: list(BUSES).index(each.bus)))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _unique("nics", [each.number for each in self.nics])
        _unique("serial ports", [each.number for each in self.serial])
        _unique("controllers named", [each.name for each in self.controllers])
        _unique("controllers of bus", [each.bus for each in self.controllers])
        for each in self.nics:
            if each.attachment != "none" and not each.mac:
                raise ValueError(f"network adapter {each.number} has no MAC address: --macaddress{each.number} auto makes one")
        _unique("adapters with MAC address", [each.mac for each in self.nics if each.attachment != "none"])
        used = [each for each in self.serial if each.enabled]
        _unique("serial ports at I/O base", [hex(each.io_base) for each in used])
        places = [each.medium for c in self.controllers for each in c.attachments if each.type != "dvddrive" and each.medium]
        _unique("attachments of the medium", places)
        if self.machine.graphics == "none" and self.vrde.enabled:
            raise ValueError("the remote display needs a graphics controller: --graphicscontroller vboxvga, or --vrde off")
        return self


def _unique(what: str, values: list[str] | list[int] | list[Bus]) -> None:
    for value in values:
        if list(values).count(value) > 1:
            raise ValueError(f"two {what} {value}")
