"""What a definition points at outside itself: media, and the folder of the owner record."""

from dataclasses import dataclass
from pathlib import Path

from teleport.machines.arguments.storage import node_name
from teleport.machines.definition import Definition


@dataclass(frozen=True)
class Medium:
    """One file that the VM uses.

    `node` is QEMU's block node ("" for a kernel or initrd), `kind` hdd, dvddrive, fdd, kernel or initrd; `path` "" is an
    empty drive.
    """

    node: str
    path: str
    format: str
    read_only: bool
    kind: str
    password_file: str = ""


def media(definition: Definition) -> tuple[Medium, ...]:
    """All media in controller order, then the files of a direct kernel boot."""
    found = [
        Medium(
            node=node_name(controller.bus, each),
            path=each.medium,
            format=each.format,
            read_only=each.is_read_only,
            kind=each.type,
            password_file=each.password_file,
        )
        for controller in definition.ordered_controllers()
        for each in controller.ordered()
    ]
    boot_files = (("kernel", definition.machine.kernel), ("initrd", definition.machine.initrd))
    found += [Medium(node="", path=path, format="raw", read_only=True, kind=kind) for kind, path in boot_files if path]
    return tuple(found)


def owner_record_folder(definition: Definition) -> Path | None:
    """Where both sides agree who runs the guest: the folder that the definition names, or ``<image file>.teleport`` beside the
    first writable disk in controller order. None when there is neither."""
    if definition.owner_folder:
        return Path(definition.owner_folder)
    disk = next((each for each in media(definition) if each.kind == "hdd" and not each.read_only and each.path), None)
    return Path(f"{disk.path}.teleport") if disk else None
