"""What a VM is: the value that everything else is made from, checked whenever it is made.

- Frozen: a change makes a new value, validated whole (`teleport.machines.options` edits, `teleport.machines.store` keeps it).
- Closed: an unknown key is refused. There is a field only for what reaches the guest, the runner or the display.
- Pinned: `machine.version` is QEMU's machine version, written down at createvm, so that a newer QEMU makes the same machine.
- Names of values are VirtualBox's where it has them (`piix3`, `82540EM`, `IntelAhci`); `arguments.py` says what QEMU is given.

*Descriptive* settings may differ between the two ends of a teleport (`settings.py` lists what may not): names, the
description, the VM's own UUID, MAC addresses (the target takes the source's), serial ports' paths, host ports, the teleporter,
the display, paths of media (the media themselves are proved to be the same).
"""

from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from teleport.machines import cpus
from teleport.machines.adapters import Nic
from teleport.machines.controllers import BUSES, Bus
from teleport.machines.drives import Controller
from teleport.machines.fields import FilePath, Line, Name, Part, Text, Uuid, Vrde, require_unique
from teleport.machines.remote_media import needs_owner_folder
from teleport.machines.usb_filters import UsbFilter
from teleport.machines.vrde import AuthType, ClipboardMode, VrdeSettings, is_display_key

FORMAT = 1  # of the definition file; a reader refuses a newer one
MACHINE_VERSION = "10.0"  # the pin for new VMs: the oldest QEMU that Teleport takes, so that every host knows it
MOST_SERIAL_PORTS = 4
MOST_CPUS = 64
MOST_MEMORY_MB = 2_097_152  # VirtualBox's limit, 2 TB
LEAST_MEMORY_MB = 4
BOOT_DEVICES = 4

Chipset = Literal["piix3", "ich9"]
Firmware = Literal["bios", "efi"]
Ram = Literal["shared", "private", "hugepages"]
Tpm = Literal["none", "1.2", "2.0"]
Accelerator = Literal["auto", "kvm", "tcg"]
BootDevice = Literal["none", "floppy", "dvd", "disk", "net"]
Graphics = Literal["none", "vboxvga", "vmsvga", "virtio"]
SerialMode = Literal["disconnected", "file", "server", "client", "tcpserver", "tcpclient", "device"]
AudioDriver = Literal["none", "null"]
AudioController = Literal["ac97", "hda", "sb16"]


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
    guest_agent: bool = False
    tpm: Tpm = "none"

    @property
    def type(self) -> str:
        """QEMU's machine type with its version, e.g. ``pc-i440fx-10.0``."""
        return f"{'pc-i440fx' if self.chipset == 'piix3' else 'pc-q35'}-{self.version}"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.initrd and not self.kernel:
            raise ValueError("initrd needs a kernel: give --kernel too")
        if self.ram == "hugepages" and self.memory_mb % 2:
            raise ValueError("huge pages are of 2 MB each: --memory must be even, or --ram shared")
        if self.append and not self.kernel:
            raise ValueError("append is the command line of a kernel: give --kernel too")
        if self.cpus > 1 and not self.ioapic:
            raise ValueError("more than one CPU needs the I/O APIC: --ioapic on")
        if self.chipset == "ich9" and not self.acpi:
            raise ValueError("chipset ich9 always has ACPI: use --acpi on, or --chipset piix3")
        if self.chipset == "ich9" and not self.ioapic:
            raise ValueError("chipset ich9 needs the I/O APIC: use --ioapic on, or --chipset piix3")
        return self


class CpuidLeaf(Part):
    """What the guest reads in one CPUID leaf, as far as QEMU lets it be set (`teleport.machines.cpus`). `subleaf` -1: it has none."""

    leaf: Annotated[int, Field(ge=0, le=0xFFFFFFFF)]
    subleaf: Annotated[int, Field(ge=-1, le=0xFFFFFFFF)] = -1
    eax: Annotated[int, Field(ge=0, le=0xFFFFFFFF)] = 0
    ebx: Annotated[int, Field(ge=0, le=0xFFFFFFFF)] = 0
    ecx: Annotated[int, Field(ge=0, le=0xFFFFFFFF)] = 0
    edx: Annotated[int, Field(ge=0, le=0xFFFFFFFF)] = 0

    @model_validator(mode="after")
    def _known(self) -> Self:
        cpus.check_leaf(self.leaf, self.subleaf)
        cpus.check_values(self.leaf, edx=self.edx)
        return self


class Cpu(Part):
    """The virtual CPU: a model that QEMU names, so that it is the same on every host."""

    profile: Annotated[str, AfterValidator(cpus.checked_profile)] = cpus.DEFAULT_PROFILE
    portability_level: Annotated[int, Field(ge=0, le=cpus.MOST_PORTABLE)] = 0
    pae: bool = True
    long_mode: bool = True
    cpuid: Annotated[tuple[CpuidLeaf, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        require_unique("overrides of CPUID leaf", [f"{each.leaf:08x}:{each.subleaf}" for each in self.cpuid])
        return self


class Audio(Part):
    """A sound card. `driver` null: the guest has one, and this host plays nothing of it. `output`: viewers hear it;
    `input`: it hears them."""

    driver: AudioDriver = "none"
    controller: AudioController = "ac97"
    output: bool = True
    input: bool = False


class Usb(Part):
    """USB controllers (1.1, 2.0, 3.0), and whether mouse and keyboard are plugged into one."""

    ohci: bool = False
    ehci: bool = False
    xhci: bool = False
    mouse: Literal["ps2", "usb", "usbtablet"] = "ps2"
    keyboard: Literal["ps2", "usb"] = "ps2"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.mouse, self.keyboard) != ("ps2", "ps2") and not (self.ohci or self.ehci or self.xhci):
            raise ValueError("a USB mouse or keyboard needs a USB controller: --usb on, --usbehci on or --usbxhci on")
        return self


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
    audio: Audio = Audio()
    usb: Usb = Usb()
    teleporter: Teleporter = Teleporter()
    vrde: Vrde = Field(default_factory=VrdeSettings)
    extradata: dict[Name, Text] = Field(default_factory=dict)  # `setextradata`, without what the display's own settings hold
    controllers: Annotated[tuple[Controller, ...], Field(strict=False)] = ()
    nics: Annotated[tuple[Nic, ...], Field(strict=False)] = ()
    serial: Annotated[tuple[Serial, ...], Field(strict=False)] = ()
    usb_filters: Annotated[tuple[UsbFilter, ...], Field(strict=False)] = ()

    def _check_owner_folder(self) -> None:
        """QEMU's image locks hold on local files only; where nothing can be put beside a disk, its owner record needs a folder."""
        disks = (each.medium for c in self.controllers for each in c.attachments if each.type == "hdd")
        if not self.owner_folder and (disk := next((each for each in disks if needs_owner_folder(each)), None)):
            raise ValueError(
                f"two hosts could run the guest on {disk} at once, since no owner record can lie beside it: "
                "--ownerfolder names a folder for it that both hosts share (one of its own for this guest)"
            )

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
        require_unique("nics", [each.number for each in self.nics])
        require_unique("serial ports", [each.number for each in self.serial])
        require_unique("USB filters named", [each.name for each in self.usb_filters])
        require_unique("controllers named", [each.name for each in self.controllers])
        require_unique("controllers of bus", [each.bus for each in self.controllers])
        for each in self.nics:
            if each.attachment != "none" and not each.mac:
                raise ValueError(f"network adapter {each.number} has no MAC address: --macaddress{each.number} auto makes one")
        require_unique("adapters with MAC address", [each.mac for each in self.nics if each.attachment != "none"])
        used = [each for each in self.serial if each.enabled]
        require_unique("serial ports at I/O base", [hex(each.io_base) for each in used])
        taken = [f"{each.mode} {each.path}" for each in used if each.mode in ("server", "tcpserver", "device")]
        require_unique("serial ports with", taken)  # a second server at the same socket would take it from the first in silence
        places = [each.medium for c in self.controllers for each in c.attachments if each.type != "dvddrive" and each.medium]
        require_unique("attachments of the medium", places)
        self._check_owner_folder()
        if self.controller("usb") and not (self.usb.ehci or self.usb.xhci):
            raise ValueError("USB storage needs a fast USB controller: --usbehci on or --usbxhci on")
        if self.machine.graphics == "none" and self.vrde.enabled:
            raise ValueError("the remote display needs a graphics controller: --graphicscontroller vboxvga, or --vrde off")
        if self.vrde.auth_type is AuthType.GUEST and not self.machine.guest_agent:
            raise ValueError("--vrdeauthtype guest asks the agent in the guest: give --guest-agent on too")
        if self.vrde.clipboard is not ClipboardMode.DISABLED and not self.machine.guest_agent:
            raise ValueError("--clipboard needs a channel to the agent in the guest: give --guest-agent on too")
        if wrong := next(filter(is_display_key, self.extradata), None):
            raise ValueError(f"extradata {wrong!r} belongs to the display: `teleport setextradata` sets it in [vrde]")
        return self
