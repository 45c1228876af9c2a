"""`storageattach`: attaches, changes and detaches media."""

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import click

from teleport.cli.grammar import Verb, file_path, one_of, vm_argument, whole_number
from teleport.cli.home import store
from teleport.cli.live import live_state, require_changeable
from teleport.cli.live_change import change_live
from teleport.cli.storagectl import entry
from teleport.errors import UsageError
from teleport.machines import media, remote_media
from teleport.machines.controllers import BUSES
from teleport.machines.definition import Definition
from teleport.machines.options.option import checked, draft_of
from teleport.machines.remote_media import needs_owner_folder
from teleport.model import VmState

TYPES = ("hdd", "dvddrive", "fdd")
_HAS_GUEST = (VmState.RUNNING, VmState.PAUSED, VmState.TELEPORTING)


class StorageAttach(Verb):
    """`storageattach`, with the reasons for what it doesn't take."""

    refused: ClassVar = MappingProxyType(
        {
            "encodedlun": "--lun takes the number of the LUN, 0 to 255",
            "initiator": "each VM is an initiator of its own, named by its UUID: the target's list of initiators can name it",
            "intnet": "this host asks the target for its LUNs, over its own network",
            "password": "other users could read it in the list of processes: --passwordfile FILE names a file that holds it",
            "nonrotational": "a disk does not say whether it turns: the guest's own setting does (/sys/block/*/queue/rotational)",
            "discard": "always on: what the guest discards becomes free in its image",
            "hotpluggable": "hard disks are attached while the VM is off; CDs and floppies change while it runs",
            "bandwidthgroup": "disks and adapters have no groups here",
            "tempeject": "always on: what the guest ejects is there again when the VM is started anew",
            "passthrough": "a drive of this host could not go with the guest: give an image",
            **dict.fromkeys(("setuuid", "setparentuuid"), "images have no UUIDs here"),
        }
    )


@click.command("storageattach", cls=StorageAttach)
@vm_argument()
@click.option("--storagectl", metavar="NAME", required=True, help="The controller, by name (or by its kind, e.g. sata).")
@click.option("--port", metavar="N", help="Its port.")
@click.option("--device", metavar="N", help="The device on that port (IDE has two).")
@click.option("--type", "kind", metavar="|".join(TYPES), help="What is attached.")
@click.option(
    "--medium",
    metavar="none|emptydrive|iscsi|FILE|DEVICE|URL",
    help="An image, a block device, a LUN (iscsi, with --server and --target) or nfs://SERVER/PATH; "
    "none detaches, emptydrive is a drive without one.",
)
@click.option("--server", metavar="HOST", help="With --medium iscsi: the server's name or address.")
@click.option("--target", metavar="NAME", help="... the target's name, e.g. iqn.2026-11.org.example:disk.")
@click.option("--tport", metavar="N", help="... its TCP port (default 3260).")
@click.option("--lun", metavar="N", help="... the logical unit (default 0).")
@click.option("--username", metavar="NAME", help="... the user for CHAP.")
@click.option("--passwordfile", metavar="FILE", help="... the file whose first line is the user's password.")
@click.option(
    "--ownerfolder",
    metavar="FOLDER",
    help="Where both hosts note who runs the guest; needed for devices and URLs, since nothing can lie beside them.",
)
@click.option("--mtype", metavar="normal", help="How the disk is written to.")
@click.option("--forceunmount", "force", is_flag=True, help="Take a medium that the running guest uses.")
@click.option("--comment", metavar="TEXT", hidden=True, expose_value=False, callback=lambda *_: None)
def command(vm: str, *, force: bool, **given: Any) -> None:
    """Attach, change or detach a medium; while the VM runs, another one for its CD and floppy drives."""
    home = store()
    found = home.find(vm)
    if live_state(found.paths, found.name).state in _HAS_GUEST:
        change_live(found, "storageattach", lambda definition: changed(definition, given), force=force)
        return
    require_changeable(found.paths, found.name, "storageattach")
    home.edit(found, lambda definition: changed(definition, given))


def changed(definition: Definition, given: Mapping[str, Any]) -> Definition:
    """The definition with that attachment made, changed or removed. Raises UsageError, NotFoundError or StorageError."""
    draft = draft_of(definition)
    if given.get("ownerfolder"):
        draft["owner_folder"] = str(file_path("--ownerfolder", given["ownerfolder"]))
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
    if medium is None or medium.lower() != "none":  # none: nothing there afterwards, whatever was
        drive = _drive(given, old, initiator=definition.uuid)
        _require_owner_folder(drive, draft["owner_folder"])
        attachments.append({"port": port, "device": device, **drive})
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


def _require_owner_folder(drive: Mapping[str, Any], folder: str) -> None:
    """Raises UsageError for a disk that nothing can lie beside, when no folder was named for its owner record."""
    if drive["type"] == "hdd" and not folder and needs_owner_folder(drive["medium"]):
        raise UsageError(
            f"medium {drive['medium']}",
            "no owner record can lie beside it, and QEMU's locks hold on local files only: two hosts could run the guest at once",
            "--ownerfolder FOLDER names a folder for it that both hosts share (one of its own for this guest)",
        )


def _drive(given: Mapping[str, Any], old: Mapping[str, Any] | None, *, initiator: str) -> dict[str, Any]:
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
    url = _url(word, given)
    if url is not None:
        return {"type": kind, **_remote(url, kind, given, initiator=initiator)}
    return {"type": kind, **_image(file_path("--medium", word), kind)}


def _url(word: str, given: Mapping[str, Any]) -> remote_media.Remote | None:
    """The LUN or export that is meant; None for a file. Raises UsageError."""
    of_iscsi = [name for name in ("server", "target", "tport", "lun", "username") if given.get(name) is not None]
    if word.lower() == "iscsi":
        for name in ("server", "target"):
            if not given.get(name):
                raise UsageError(
                    "--medium iscsi", f"--{name} is missing", "give --server HOST --target IQN, and --lun if it isn't 0"
                )
        port = whole_number("--tport", given["tport"], 1, 65535) if given.get("tport") else remote_media.ISCSI_PORT
        lun = whole_number("--lun", given["lun"], 0, 255) if given.get("lun") else 0
        try:
            return remote_media.IscsiLun(
                server=given["server"], target=given["target"], lun=lun, port=port, user=given.get("username") or ""
            )
        except ValueError as error:
            raise UsageError("--medium iscsi", str(error)) from error
    if of_iscsi:
        raise UsageError(f"--{of_iscsi[0]}", "goes with --medium iscsi")
    if not remote_media.is_url(word):
        if given.get("passwordfile"):
            raise UsageError("--passwordfile", "goes with --medium iscsi and --username")
        return None
    try:
        return remote_media.parse(word)
    except ValueError as error:
        shown = re.sub(r"//[^/@]*@", "//…@", word)  # a password that was typed all the same is not repeated
        raise UsageError(f"--medium {shown}", str(error)) from error


def _remote(found: remote_media.Remote, kind: str, given: Mapping[str, Any], *, initiator: str) -> dict[str, Any]:
    """The fields of a medium that is reached over the network."""
    if kind == "fdd":
        raise UsageError("--type fdd", "a floppy image is a file", "give a file")
    password_file = str(file_path("--passwordfile", given["passwordfile"])) if given.get("passwordfile") else ""
    user = found.user if isinstance(found, remote_media.IscsiLun) else ""
    if bool(user) != bool(password_file):
        raise UsageError("--username, --passwordfile", "go together", "give both, or neither")
    is_raw = kind != "hdd" or isinstance(found, remote_media.IscsiLun)
    info = media.inspect_url(found.url, image_format="raw" if is_raw else "", initiator=initiator, password_file=password_file)
    _warn_of_format(found.url, info, kind)
    return {"medium": found.url, "format": info.format, "password_file": password_file}


def _image(path: Path, kind: str) -> dict[str, Any]:
    """The medium's fields; its format is looked at once, here, and never again when the VM starts."""
    probed = kind == "hdd" and not remote_media.is_device(str(path))
    info = media.inspect(path, image_format="" if probed else "raw")
    if info.is_block_device and not remote_media.is_device(str(path)):
        raise UsageError(f"medium {path}", "is a block device", "name it by its path in /dev")
    if info.is_block_device and kind == "fdd":
        raise UsageError("--type fdd", "a floppy image is a file", "give a file")
    _warn_of_format(str(path), info, kind)
    read_only = kind == "fdd" and not os.access(path, os.W_OK)
    if read_only:
        click.echo(f"teleport: {path} cannot be written here: the guest gets a write-protected floppy", err=True)
    return {"medium": str(path), "format": info.format, "read_only": read_only}


def _warn_of_format(place: str, info: media.MediumInfo, kind: str) -> None:
    if kind == "hdd" and not info.can_teleport:
        word = media.format_word(info.format)
        click.echo(
            f"teleport: warning: {place} is {word}, and QEMU cannot teleport a VM that writes to {word}: "
            f"`teleport modifymedium {shlex.quote(place)} --format QCOW2` converts it",
            err=True,
        )
