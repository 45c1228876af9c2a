"""Definitions that between them use everything a definition has: for golden argument lists, and for starts under real QEMU."""

from typing import Any, get_args

from teleport.machines.adapters import Forward, Nic, NicModel
from teleport.machines.controllers import BUSES, Bus
from teleport.machines.definition import Audio, AudioController, Chipset, Cpu, CpuidLeaf, Definition, Machine, Serial, Usb
from teleport.machines.drives import Attachment, Controller, MediumType
from teleport.machines.vrde import VrdeSettings

UUID = "8f3c2a1e-5d0b-4c76-9b1f-0a7d3e6c5b42"
CHIPSETS: tuple[Chipset, ...] = get_args(Chipset)


def controller(bus: Bus, *attachments: Attachment, **more: Any) -> Controller:
    kind = BUSES[bus]
    settings = {"name": f"my {bus}", "chip": kind.chips[0], "port_count": kind.default_ports} | more
    return Controller(bus=bus, attachments=attachments, **settings)


def drive(port: int, device: int, kind: MediumType, medium: str = "", image_format: Any = "") -> Attachment:
    return Attachment(port=port, device=device, type=kind, medium=medium, format=image_format)


def definition(**settings: Any) -> Definition:
    return Definition(**({"name": "S, the first ☃", "uuid": UUID} | settings))


def cases(media: str) -> dict[str, Definition]:
    """By name. `media` is a folder with disk.qcow2, "a,b.raw" and cd.iso in it, where sockets may be made."""
    qcow2, raw, iso = f"{media}/disk.qcow2", f"{media}/a,b.raw", f"{media}/cd.iso"
    found: dict[str, Definition] = {}
    for chipset in CHIPSETS:

        def machine(chipset: Chipset = chipset, **more: Any) -> Machine:
            return Machine(chipset=chipset, memory_mb=64, **more)

        found[f"{chipset}-bare"] = definition(machine=machine(graphics="none", rtc_utc=True))
        found[f"{chipset}-ide"] = definition(
            machine=machine(boot=("dvd", "disk", "none", "none")),
            controllers=(
                controller(
                    "ide", drive(0, 0, "hdd", qcow2, "qcow2"), drive(0, 1, "dvddrive", iso, "raw"), drive(1, 0, "dvddrive")
                ),
            ),
        )
        found[f"{chipset}-sata"] = definition(
            machine=machine(cpus=2, vram_mb=27, boot=("disk", "none", "none", "none")),
            controllers=(
                controller(
                    "sata",
                    drive(5, 0, "hdd", raw, "raw"),
                    drive(0, 0, "hdd", qcow2, "qcow2"),
                    drive(2, 0, "dvddrive", iso, "raw"),
                ),
            ),
        )
        found[f"{chipset}-virtio"] = definition(
            machine=machine(graphics="vmsvga", hpet=True),
            controllers=(
                controller("virtio-blk", drive(0, 0, "hdd", qcow2, "qcow2"), drive(7, 0, "hdd", raw, "raw"), bootable=False),
                controller("virtio-scsi", drive(3, 0, "dvddrive", iso, "raw")),
            ),
        )
        found[f"{chipset}-nics"] = definition(
            machine=machine(boot=("net", "disk", "none", "none")),
            nics=tuple(
                Nic(number=8 - at, attachment="nat", model=model, mac=f"08:00:27:00:00:0{at}")
                for at, model in enumerate(get_args(NicModel))
            ),
        )
        found[f"{chipset}-null-nic"] = definition(
            machine=machine(), nics=(Nic(number=2, attachment="null", model="virtio", mac="08:00:27:00:00:02"),)
        )
        found[f"{chipset}-serial"] = definition(
            machine=machine(),
            serial=(
                Serial(number=1, enabled=True, mode="file", path=f"{media}/serial,1"),
                Serial(number=2, enabled=True, io_base=0x2F8, irq=3, mode="server", path=f"{media}/s2"),
                Serial(number=3, enabled=True, io_base=0x3E8, irq=4),
                Serial(number=4, enabled=False, io_base=0x2E8, irq=3),
            ),
        )
        found[f"{chipset}-cpu"] = definition(machine=machine(cpus=4), cpu=Cpu(profile="Westmere", pae=True, long_mode=False))
        found[f"{chipset}-scsi"] = definition(
            machine=machine(),
            controllers=(
                controller("scsi", drive(0, 0, "hdd", qcow2, "qcow2"), drive(6, 0, "dvddrive", iso, "raw")),
                controller("sas", drive(0, 0, "hdd", raw, "raw"), drive(7, 0, "dvddrive")),
                controller("virtio-scsi", drive(255, 0, "dvddrive"), port_count=256),
            ),
        )
        found[f"{chipset}-floppy"] = definition(
            machine=machine(),
            controllers=(controller("floppy", drive(0, 1, "fdd"), drive(0, 0, "fdd", f"{media}/floppy.img", "raw")),),
        )
        found[f"{chipset}-usb"] = definition(
            machine=machine(),
            usb=Usb(ohci=True, ehci=True, xhci=True, mouse="usbtablet", keyboard="usb"),
            controllers=(controller("usb", drive(0, 0, "hdd", qcow2, "qcow2"), drive(3, 0, "hdd", raw, "raw")),),
        )
        found[f"{chipset}-ehci"] = definition(
            machine=machine(),
            usb=Usb(ehci=True, mouse="usb"),
            controllers=(controller("usb", drive(1, 0, "hdd", qcow2, "qcow2")),),
        )
        found[f"{chipset}-ohci"] = definition(machine=machine(), usb=Usb(ohci=True, mouse="usbtablet"))
        for card in get_args(AudioController):
            found[f"{chipset}-{card}"] = definition(machine=machine(), audio=Audio(driver="null", controller=card))
        found[f"{chipset}-microphone"] = definition(machine=machine(), audio=Audio(driver="null", input=True))
        found[f"{chipset}-virtio-vga"] = definition(machine=machine(graphics="virtio", vram_mb=64))
        found[f"{chipset}-screens"] = definition(machine=machine(), vrde=VrdeSettings(monitors=3))
        found[f"{chipset}-networks"] = definition(
            machine=machine(),
            nics=(
                Nic(number=1, attachment="intnet", network="lab, the first", mac="08:00:27:00:00:01", cable=False),
                Nic(
                    number=2,
                    attachment="nat",
                    mac="08:00:27:00:00:02",
                    forwards=(
                        Forward(name="ssh", host_address="127.0.0.1", host_port=42422, guest_port=22),
                        Forward(name="dns", protocol="udp", host_port=42453, guest_address="10.0.2.15", guest_port=53),
                    ),
                ),
            ),
        )
        found[f"{chipset}-agent"] = definition(machine=machine(guest_agent=True))
        found[f"{chipset}-tpm2"] = definition(machine=machine(tpm="2.0"))
        found[f"{chipset}-efi"] = definition(machine=machine(firmware="efi"))
        found[f"{chipset}-cpuid"] = definition(
            machine=machine(),
            cpu=Cpu(
                portability_level=2,
                cpuid=(CpuidLeaf(leaf=1, eax=0x000106E5, ebx=0x00100800, ecx=0x00882203, edx=0x078BFBFD),),
            ),
        )
    found["piix3-bridged"] = definition(
        machine=Machine(memory_mb=64), nics=(Nic(number=1, attachment="bridged", bridge="br0", mac="08:00:27:00:00:01"),)
    )
    found["piix3-tpm1"] = definition(machine=Machine(memory_mb=64, tpm="1.2"))
    found["piix3-old"] = definition(machine=Machine(memory_mb=64, acpi=False, ioapic=False), cpu=Cpu(pae=False))
    return found
