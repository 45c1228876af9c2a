"""Controllers and drives. A drive, its block node and the node of its file are named by its place: `sata-0-0`, `sata-0-0-file`."""

import json

from teleport.machines.arguments.boot import boot_indexes
from teleport.machines.arguments.places import IDE, SATA, VIRTIO_BLK_FIRST, VIRTIO_SCSI, slot
from teleport.machines.controllers import Bus
from teleport.machines.definition import Attachment, Chipset, Controller, Definition


def node_name(bus: Bus, attachment: Attachment) -> str:
    """The block node (and QEMU's device id) of the drive at this place, e.g. ``sata-0-0``."""
    return f"{bus}-{attachment.port}-{attachment.device}"


def storage_arguments(definition: Definition) -> list[str]:
    """Controllers by bus, their drives by port and device, however the definition orders them."""
    arguments: list[str] = []
    indexes = boot_indexes(definition)
    for controller in definition.ordered_controllers():
        arguments += _controller(controller.bus, definition.machine.chipset)
        for each in controller.ordered():
            if each.medium:
                arguments += ["-blockdev", json.dumps(_block_node(controller.bus, each), separators=(",", ":"))]
            properties = _drive(controller, each, definition.machine.chipset)
            place = (controller.bus, each.port, each.device)
            if place in indexes:
                properties += f",bootindex={indexes[place]}"
            arguments += ["-device", properties]
    return arguments


def _controller(bus: Bus, chipset: Chipset) -> list[str]:
    """What must be added for this bus; `pc` has PIIX3 IDE built in, `q35` AHCI."""
    match bus, chipset:
        case "ide", "ich9":
            return ["-device", f"piix4-ide,id=pide,addr={slot(IDE)}"]
        case "sata", "piix3":
            return ["-device", f"ich9-ahci,id=sata,addr={slot(SATA)}"]
        case "virtio-scsi", _:
            return ["-device", f"virtio-scsi-pci,id=vscsi,addr={slot(VIRTIO_SCSI)}"]
        case _:
            return []


def _block_node(bus: Bus, attachment: Attachment) -> dict[str, object]:
    """The medium as a block node; the format is named, never probed (a guest could write another one's header)."""
    name = node_name(bus, attachment)
    read_only = attachment.type == "dvddrive"
    return {
        "driver": attachment.format,
        "node-name": name,
        "read-only": read_only,
        **({} if read_only else {"discard": "unmap"}),
        "file": {
            "driver": "file",
            "node-name": f"{name}-file",
            "filename": attachment.medium,
            "read-only": read_only,
            **({} if read_only else {"discard": "unmap"}),
        },
    }


def _drive(controller: Controller, attachment: Attachment, chipset: Chipset) -> str:
    """The drive as the guest sees it; its serial number is its place, so that it is the same on both sides."""
    name = node_name(controller.bus, attachment)
    port, device = attachment.port, attachment.device
    is_disk = attachment.type == "hdd"
    match controller.bus:
        case "ide":
            model = f"ide-{'hd' if is_disk else 'cd'},bus={'ide' if chipset == 'piix3' else 'pide'}.{port},unit={device}"
        case "sata":
            model = f"ide-{'hd' if is_disk else 'cd'},bus={'sata' if chipset == 'piix3' else 'ide'}.{port},unit=0"
        case "virtio-scsi":
            model = f"scsi-{'hd' if is_disk else 'cd'},bus=vscsi.0,channel=0,scsi-id={port},lun=0"
        case "virtio-blk":
            model = f"virtio-blk-pci,addr={slot(VIRTIO_BLK_FIRST + port)}"
    drive = f",drive={name}" if attachment.medium else ""
    return f"{model},id={name}{drive},serial={name}"
