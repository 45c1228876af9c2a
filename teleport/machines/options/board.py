"""General settings, board, CPU, graphics, boot."""

import re
from dataclasses import replace
from typing import Any

from teleport.machines import cpus, ostypes
from teleport.machines.arguments.screens import video_memory_mb
from teleport.machines.definition import (
    BOOT_DEVICES,
    LEAST_MEMORY_MB,
    MOST_CPUS,
    MOST_MEMORY_MB,
    Definition,
)
from teleport.machines.options.cpuid import CPUID, PROCESSOR
from teleport.machines.options.kinds import FILE, FOLDER, SWITCH, Kind, choice, number, text
from teleport.machines.options.option import Draft, Option, field
from teleport.machines.vrde import MOST_MONITORS

GENERAL, SYSTEM, BOOT, SCREEN = "General", "System", "Boot", "Screen"


def _row(name: str, kind: Kind, where: str, *, label: str, about: str, group: str, **more: Any) -> Option:
    section, _, attribute = where.rpartition(".")
    get, put = field(section, attribute)
    return Option(name=name, where=where, kind=kind, label=label, about=about, get=get, set=put, group=group, **more)


def _boot_get(definition: Definition, number: int) -> str:
    return definition.machine.boot[number - 1]


def _boot_set(draft: Draft, number: int, value: str) -> None:
    boot = list(draft["machine"]["boot"])
    boot[number - 1] = value
    draft["machine"]["boot"] = tuple(boot)


def _version(given: Any) -> str:
    if not re.fullmatch(r"[0-9]+\.[0-9]+", given[0]):
        raise ValueError(f"{given[0]!r} is not a version of QEMU's machines such as 10.0")
    return str(given[0])


def _os(given: Any) -> str:
    return ostypes.os_type(given[0]).id


def _has_screen(definition: Definition, _: int) -> bool:
    return definition.machine.graphics != "none"


def _set_monitors(draft: Draft, _: int, value: int) -> None:
    draft["vrde"] = replace(draft["vrde"], monitors=value)


def _given(path: str) -> str:
    """Where the file is may differ; that it has the same content is looked at with the media."""
    return "direct boot" if path else "none"


_PROFILE = Kind(metavar="MODEL", parse=lambda given: cpus.checked_profile(given[0]), show=str, choices=cpus.PROFILES)

OPTIONS = (
    _row(
        "name",
        text("NAME"),
        "name",
        label="Name",
        about="the VM's name",
        group=GENERAL,
        hardware=False,
    ),
    _row(
        "uuid",
        text("UUID"),
        "uuid",
        label="UUID",
        about="the VM's own UUID",
        group=GENERAL,
        hardware=False,
        key="UUID",
    ),
    _row(
        "ostype",
        Kind(metavar="ID", parse=_os, show=str, choices=tuple(ostypes.OS_TYPES)),
        "ostype",
        label="Guest OS",
        about="the guest's operating system, for people only (`createvm --ostype` chose the defaults)",
        group=GENERAL,
        hardware=False,
    ),
    _row(
        "description",
        text(),
        "description",
        label="Description",
        about="a text about the VM",
        group=GENERAL,
        hardware=False,
        live=True,
    ),
    _row(
        "machineversion",
        Kind(metavar="N.N", parse=_version, show=str),
        "machine.version",
        label="Machine version",
        about="the version of QEMU's machine that the guest sees, pinned when the VM is made",
        group=SYSTEM,
    ),
    _row(
        "chipset",
        choice("piix3", "ich9", also={"pc": "piix3", "q35": "ich9"}),
        "machine.chipset",
        label="Chipset",
        about="piix3 (QEMU's pc) or ich9 (q35)",
        group=SYSTEM,
    ),
    _row(
        "firmware",
        choice(
            "bios",
            "efi",
            also={"efi64": "efi"},
            refused={"efi32": "Debian's EFI firmware is for 64-bit guests"},
        ),
        "machine.firmware",
        label="Firmware",
        about="what boots the guest: bios (SeaBIOS) or efi (OVMF, with variables of the VM's own)",
        group=SYSTEM,
    ),
    _row(
        "memory",
        number(LEAST_MEMORY_MB, MOST_MEMORY_MB, "MB", unit="MB"),
        "machine.memory_mb",
        label="Memory size",
        about="the guest's RAM in megabytes",
        group=SYSTEM,
        unit="MB",
    ),
    _row(
        "ram",
        choice("shared", "private", "hugepages"),
        "machine.ram",
        label="RAM backing",
        about="shared: in a memfd, so that a teleport on one host copies nothing; private: QEMU's own; "
        "hugepages: in 2 MB pages that the host has set aside",
        group=SYSTEM,
        hardware=False,
    ),
    _row(
        "acpi",
        SWITCH,
        "machine.acpi",
        label="ACPI",
        about="ACPI tables (chipset ich9 always has them)",
        group=SYSTEM,
    ),
    _row(
        "ioapic",
        SWITCH,
        "machine.ioapic",
        label="I/O APIC",
        about="interrupt controllers beyond the PIC",
        group=SYSTEM,
    ),
    _row(
        "hpet",
        SWITCH,
        "machine.hpet",
        label="HPET",
        about="high precision event timer",
        group=SYSTEM,
    ),
    _row(
        "rtcuseutc",
        SWITCH,
        "machine.rtc_utc",
        label="RTC in UTC",
        about="the hardware clock runs in UTC (else in the host's local time)",
        group=SYSTEM,
    ),
    _row(
        "accelerator",
        choice("auto", "kvm", "tcg"),
        "machine.accelerator",
        label="Accelerator",
        about="how QEMU runs the guest; auto follows TELEPORT_ACCELERATOR and the host",
        group=SYSTEM,
        hardware=False,
    ),
    _row(
        "cpus",
        number(1, MOST_CPUS),
        "machine.cpus",
        label="Number of CPUs",
        about="virtual CPUs",
        group=PROCESSOR,
    ),
    _row(
        "cpu-profile",
        _PROFILE,
        "cpu.profile",
        label="CPU profile",
        about="the CPU model that the guest sees, by QEMU's name (never the host's own)",
        group=PROCESSOR,
        key="cpu-profile",
    ),
    _row(
        "cpuid-portability-level",
        number(0, cpus.MOST_PORTABLE),
        "cpu.portability_level",
        label="CPUID Portability Level",
        about="0: all features of the model; 1 to 3 take away ever older ones, for very different hosts",
        group=PROCESSOR,
    ),
    *CPUID,
    _row(
        "pae",
        SWITCH,
        "cpu.pae",
        label="PAE",
        about="physical address extension (64-bit guests need it)",
        group=PROCESSOR,
    ),
    _row(
        "longmode",
        SWITCH,
        "cpu.long_mode",
        label="Long mode",
        about="64-bit mode",
        group=PROCESSOR,
    ),
    Option(
        name="boot",
        where="machine.boot",
        kind=choice("none", "floppy", "dvd", "disk", "net"),
        label="Boot device",
        about="what the guest boots from, in this order; devices of a kind that isn't named are not tried",
        get=_boot_get,
        set=_boot_set,
        group=BOOT,
        most=BOOT_DEVICES,
    ),
    _row(
        "kernel",
        FILE,
        "machine.kernel",
        label="Kernel",
        about="a Linux kernel to boot directly",
        group=BOOT,
        hardware_value=lambda definition, _: _given(definition.machine.kernel),
    ),
    _row(
        "initrd",
        FILE,
        "machine.initrd",
        label="Initial RAM disk",
        about="its initrd",
        group=BOOT,
        hardware_value=lambda definition, _: _given(definition.machine.initrd),
    ),
    _row(
        "append",
        text(),
        "machine.append",
        label="Kernel command line",
        about="its command line",
        group=BOOT,
    ),
    _row(
        "graphicscontroller",
        choice(
            "none",
            "vboxvga",
            "vmsvga",
            "virtio",
            also={"vga": "vboxvga", "std": "vboxvga"},
            refused={"vboxsvga": "QEMU has no such adapter"},
        ),
        "machine.graphics",
        label="Graphics controller",
        about="vboxvga (QEMU's standard VGA with VESA modes), vmsvga (VMware's SVGA II), virtio, or none",
        group=SCREEN,
    ),
    _row(
        "vram",
        number(1, 256, "MB", unit="MB"),
        "machine.vram_mb",
        label="VRAM size",
        about="video memory in megabytes; the guest gets the next power of two",
        group=SCREEN,
        unit="MB",
        relevant=_has_screen,
        hardware_value=lambda definition, _: str(video_memory_mb(definition.machine.vram_mb)),
    ),
    Option(
        name="monitorcount",
        where="vrde.monitors",
        kind=number(1, MOST_MONITORS, "N"),
        label="Monitor count",
        about="the guest's screens; a viewer chooses one by the domain @N",
        get=lambda definition, _: definition.vrde.monitors,
        set=_set_monitors,
        group=SCREEN,
        relevant=_has_screen,
    ),
    _row(
        "tpm-type",
        choice(
            "none",
            "1.2",
            "2.0",
            refused={
                "host": "the host's TPM cannot move to another host; 1.2 and 2.0 are emulated",
                "swtpm": "1.2 and 2.0 are emulated by a swtpm of the VM's own",
            },
        ),
        "machine.tpm",
        label="TPM",
        about="a Trusted Platform Module of the VM's own (swtpm), whose content moves with the guest",
        group=SYSTEM,
    ),
    _row(
        "guest-agent",
        SWITCH,
        "machine.guest_agent",
        label="Guest agent",
        about="channels to the agents in the guest: qemu-guest-agent for --vrdeauthtype guest, spice-vdagent for --clipboard",
        group=SYSTEM,
        also=("guestagent",),
    ),
    _row(
        "ownerfolder",
        FOLDER,
        "owner_folder",
        label="Owner record",
        about="where both ends of a teleport note who runs the guest (default: beside the first disk's image file)",
        group=GENERAL,
        hardware=False,
    ),
)
