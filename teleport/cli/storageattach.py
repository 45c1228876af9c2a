"""`storageattach`: attaches, changes and detaches media."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import click

from teleport.cli.grammar import Verb, file_path, one_of, vm_argument, whole_number
from teleport.cli.home import store
from teleport.cli.live import require_at_rest
from teleport.cli.storagectl import entry
from teleport.errors import UsageError
from teleport.machines import media
from teleport.machines.controllers import BUSES
from teleport.machines.definition import Definition
from teleport.machines.options.option import checked, draft_of

TYPES = ("hdd", "dvddrive", "fdd")
_LATER = "Teleport does not have it yet"


class StorageAttach(Verb):
    """`storageattach`, with the reasons for what it doesn't take."""

    refused: ClassVar = MappingProxyType(
        {
            **dict.fromkeys(
                ("server", "target", "tport", "lun", "encodedlun", "username", "password", "initiator", "intnet"), _LATER
            ),
            **dict.fromkeys(("nonrotational", "discard", "hotpluggable", "bandwidthgroup", "tempeject", "passthrough"), _LATER),
            **dict.fromkeys(("setuuid", "setparentuuid"), "images have no UUIDs here"),
        }
    )


@click.command("storageattach", cls=StorageAttach)
@vm_argument()
@click.option("--storagectl", metavar="NAME", required=True, help="The controller, by name (or by its kind, e.g. sata).")
@click.option("--port", metavar="N", help="Its port.")
@click.option("--device", metavar="N", help="The device on that port (IDE has two).")
@click.option("--type", "kind", metavar="|".join(TYPES), help="What is attached.")
@click.option("--medium", metavar="none|emptydrive|FILE", help="An image; none detaches, emptydrive is a drive without one.")
@click.option("--mtype", metavar="normal", help="How the disk is written to.")
@click.option("--comment", metavar="TEXT", hidden=True, expose_value=False, callback=lambda *_: None)
def command(vm: str, **given: Any) -> None:
    """Attach, change or detach a medium."""
    home = store()
    found = home.find(vm)
    require_at_rest(found.paths, found.name, "storageattach")
    home.edit(found, lambda definition: changed(definition, given))


def changed(definition: Definition, given: Mapping[str, Any]) -> Definition:
    """The definition with that attachment made, changed or removed. Raises UsageError, NotFoundError or StorageError."""
    draft = draft_of(definition)
    controller = entry(draft, given["storagectl"])
    port, device = _place(controller, given)
    attachments = [each for each in controller["attachments"] if (each["port"], each["device"]) != (port, device)]
    old = next((each for each in controller["attachments"] if (each["port"], each["device"]) == (port, device)), None)
    medium = given["medium"]
    if medium is None and given["kind"] is None:
        raise UsageError(
            "storageattach", "neither --medium nor --type was given", "say what to attach, or --medium none to detach"
        )
    if given["mtype"] and given["mtype"].lower() != "normal":
        raise UsageError(
            "--mtype", f"{given['mtype']!r} would lose or share what is written, and cannot teleport", "use normal"
        )
    if medium is not None and medium.lower() == "none":
        if old is None:
            raise UsageError("storageattach --medium none", f"nothing is attached at port {port}, device {device}")
    else:
        attachments.append({"port": port, "device": device, **_drive(given, old)})
    controller["attachments"] = sorted(attachments, key=lambda each: (each["port"], each["device"]))
    return checked(draft, "storageattach")


def _place(controller: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[int, int]:
    bus = BUSES[controller["bus"]]
    ports = controller["port_count"]
    if given["port"] is None and ports > 1:
        raise UsageError(
            "--port", f"{controller['name']!r} has {ports} ports: say which", f"give a number from 0 to {ports - 1}"
        )
    if given["device"] is None and bus.devices_per_port > 1:
        raise UsageError("--device", "this controller has two devices a port: say which", "give 0 or 1")
    port = whole_number("--port", given["port"] or "0", 0, ports - 1)
    return port, whole_number("--device", given["device"] or "0", 0, bus.devices_per_port - 1)


def _drive(given: Mapping[str, Any], old: Mapping[str, Any] | None) -> dict[str, Any]:
    kind = one_of("--type", given["kind"], TYPES) if given["kind"] else None
    if kind is None:
        if old is None:
            raise UsageError("--type", "say what is attached", f"use {', '.join(TYPES)}")
        kind = old["type"]
    word = given["medium"] if given["medium"] is not None else "emptydrive"
    if word.lower() == "emptydrive":
        if kind == "hdd":
            raise UsageError("--medium", "a hard disk cannot be empty", "give an image")
        return {"type": kind, "medium": "", "format": ""}
    if word.lower() == "additions":
        raise UsageError("--medium additions", "there are no VirtualBox guest additions here")
    if word.lower().startswith("host:"):
        raise UsageError("--medium", "a drive of this host cannot be shared with another one", "give an image")
    return {"type": kind, **_image(file_path("--medium", word), kind)}


def _image(path: Path, kind: str) -> dict[str, Any]:
    """The medium's fields; its format is looked at once, here, and never again when the VM starts."""
    info = media.inspect(path, image_format="" if kind == "hdd" else "raw")
    if info.is_block_device:
        raise UsageError(f"medium {path}", "is a block device, which Teleport cannot attach yet", "use an image file")
    if kind == "hdd" and not info.can_teleport:
        word = media.format_word(info.format)
        click.echo(
            f"teleport: warning: {path} is {word}, and QEMU cannot teleport a VM that writes to {word}: "
            f"`teleport modifymedium {path} --format QCOW2` converts it",
            err=True,
        )
    return {"medium": str(path), "format": info.format}
