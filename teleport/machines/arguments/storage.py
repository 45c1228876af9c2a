"""Controllers and drives. A drive, its block node and the node of its file are named by its place: `sata-0-0`, `sata-0-0-file`."""

import json

from teleport.machines.arguments.boot import boot_indexes
from teleport.machines.arguments.launch import Launch, escaped
from teleport.machines.arguments.places import IDE, SAS, SATA, SCSI, VIRTIO_BLK_FIRST, VIRTIO_SCSI, slot
from teleport.machines.arguments.usb import storage_bus
from teleport.machines.controllers import Bus
from teleport.machines.definition import Chipset, Definition
from teleport.machines.drives import Attachment, Controller
from teleport.machines.remote_media import protocol_node

_SAS_ADDRESS = 0x5000C50015EA71A0  # an address of the kind that QEMU's own tests use; only seen within the guest


def node_name(bus: Bus, attachment: Attachment) -> str:
    """The block node (and QEMU's device id) of the drive at this place, e.g. ``sata-0-0``."""
    return f"{bus}-{attachment.port}-{attachment.device}"


def storage_arguments(definition: Definition, launch: Launch) -> list[str]:
    """Controllers by bus, their drives by port and device, however the definition orders them."""
    arguments: list[str] = []
    indexes = boot_indexes(definition)
    for controller in definition.ordered_controllers():
        arguments += _controller(controller.bus, definition.machine.chipset)
        for each in controller.ordered():
            if each.medium:
                name = node_name(controller.bus, each)
                if each.password_file:
                    place = escaped(launch.secret_files.get(name, each.password_file))
                    arguments += ["-object", f"secret,id={secret_id(name)},file={place}"]
                node = block_node(name, each, initiator=definition.uuid)
                arguments += ["-blockdev", json.dumps(node, separators=(",", ":"), ensure_ascii=False)]
            properties = _drive(definition, controller, each)
            where = (controller.bus, each.port, each.device)
            if where in indexes and controller.bus == "floppy":  # the controller boots, not the drive
                arguments += ["-global", f"isa-fdc.bootindex{'AB'[each.device]}={indexes[where]}"]
            elif where in indexes:
                properties += f",bootindex={indexes[where]}"
            arguments += ["-device", properties]
    return arguments


def _controller(bus: Bus, chipset: Chipset) -> list[str]:
    """What must be added for this bus; `pc` has PIIX3 IDE and a floppy controller built in, `q35` AHCI."""
    added = {
        ("ide", "ich9"): f"piix4-ide,id=pide,addr={slot(IDE)}",
        ("sata", "piix3"): f"ich9-ahci,id=sata,addr={slot(SATA)}",
        ("floppy", "ich9"): "isa-fdc,id=fdc",
        ("scsi", chipset): f"lsi53c895a,id=scsi,addr={slot(SCSI)}",
        ("sas", chipset): f"mptsas1068,id=sas,addr={slot(SAS)},sas_address={_SAS_ADDRESS:#x}",
        ("virtio-scsi", chipset): f"virtio-scsi-pci,id=vscsi,addr={slot(VIRTIO_SCSI)}",
    }.get((bus, chipset))
    return ["-device", added] if added else []


def ide_switches(definition: Definition) -> tuple[str, ...]:
    """Lines for the human monitor that switch on both channels of the IDE controller, before its machine runs for the first time.

    That is firmware's work: the bits "IDE decode enable" of registers 40h and 42h (Intel 82371AB, IDETIM). SeaBIOS does it, OVMF only
    for the controller that belongs to `pc` (tried), and Linux' ata_piix takes no channel that is off. Resets and teleports keep them.
    """
    machine = definition.machine
    if definition.controller("ide") is None or (machine.chipset, machine.firmware) != ("ich9", "efi"):
        return ()
    register = 0x80000000 | IDE << 11 | 0x40  # PCI's configuration mechanism 1: address port CF8h, data port CFCh
    return f"o /w 0xcf8 {register:#x}", "o /w 0xcfc 0x80008000", "o /w 0xcf8 0"


def secret_id(node: str) -> str:
    """QEMU's object with the password of that node's medium, and the descriptor's name where it comes through one."""
    return f"secret-{node}"


def block_node(name: str, attachment: Attachment, *, initiator: str) -> dict[str, object]:
    """The medium as a block node, for `-blockdev` and `blockdev-add`; the format is named, never probed (a guest could write another one's
    header)."""
    access = {"read-only": True} if attachment.is_read_only else {"read-only": False, "discard": "unmap"}
    secret = secret_id(name) if attachment.password_file else ""
    below = protocol_node(attachment.medium, initiator=initiator, secret=secret)
    file = {"driver": below["driver"], "node-name": f"{name}-file", **below, **access}
    return {"driver": attachment.format, "node-name": name, **access, "file": file}


def _drive(definition: Definition, controller: Controller, attachment: Attachment) -> str:
    """The drive as the guest sees it; its serial number is its place, so that it is the same on both sides."""
    on_pc = definition.machine.chipset == "piix3"
    name = node_name(controller.bus, attachment)
    port, device = attachment.port, attachment.device
    is_disk = attachment.type == "hdd"
    ide, scsi = f"ide-{'hd' if is_disk else 'cd'}", f"scsi-{'hd' if is_disk else 'cd'}"
    drive = f",drive={name}" if attachment.medium else ""
    common = f"id={name}{drive},serial={name}"
    match controller.bus:
        case "ide":
            model = f"{ide},bus={'ide' if on_pc else 'pide'}.{port},unit={device},{common}"
        case "sata":
            model = f"{ide},bus={'sata' if on_pc else 'ide'}.{port},unit=0,{common}"
        case "scsi":
            model = f"{scsi},bus=scsi.0,channel=0,scsi-id={port},lun=0,{common}"
        case "sas":  # without a WWN Linux sees no disk there
            model = f"{scsi},bus=sas.0,channel=0,scsi-id={port},lun=0,wwn={_SAS_ADDRESS + 1 + port:#x},{common}"
        case "virtio-scsi":
            model = f"{scsi},bus=vscsi.0,channel=0,scsi-id={port},lun=0,{common}"
        case "virtio-blk":
            model = f"virtio-blk-pci,addr={slot(VIRTIO_BLK_FIRST + port)},{common}"
        case "floppy":
            model = f"floppy{'' if on_pc else ',bus=fdc.0'},unit={device},id={name}{drive}"
        case "usb":  # ports 1 and 2 are for mouse and keyboard
            model = f"usb-storage,bus={storage_bus(definition)},port={3 + port},{common}"
    return model
