"""Changes to a machine that runs, through QMP. Each function makes the machine what the definition says, from any state in between.

So what failed half-way is undone by the same function with the definition as it was, and a successor of an agent that died in the
middle finishes by the one on the disk.

- An adapter's backend is plugged out of its hub and another one in (see `teleport.machines.arguments.network`).
- A medium is opened under another node name before the old one is let go: a file that is missing or locked changes nothing.
"""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from teleport.errors import HypervisorError, StateError
from teleport.host.guest import QmpGuest
from teleport.host.monitors import COMMAND_SECONDS, STORAGE_SECONDS, QemuGoneError
from teleport.host.taps import open_tap
from teleport.machines.adapters import Nic
from teleport.machines.arguments.network import (
    backend_id,
    forward_command,
    has_link,
    netdevs,
    plug_id,
    port_id,
    release_command,
    taps,
)
from teleport.machines.arguments.storage import block_node, node_name, secret_id
from teleport.machines.definition import Definition
from teleport.machines.live import DrivePlace
from teleport.machines.passwords import read_password

_EJECT_SECONDS = 2.0
_LOOK_SECONDS = 0.02


async def on_hub(guest: QmpGuest, number: int) -> bool:
    """Whether the adapter can get another backend while its machine runs."""
    return f" {port_id(number)}:" in await guest.hmp("info network")


async def plug(guest: QmpGuest, definition: Definition, number: int) -> None:
    """Adapter `number` gets the other end that the definition says, its forwarded ports and its link.

    Raises HypervisorError: no such bridge, not the right to use it, a port that is busy.
    """
    nic = definition.nic(number)
    for each in (plug_id(number), backend_id(number)):
        await _unless_missing(guest, "netdev_del", id=each)
    tap_name = ""
    for tap in taps(definition):
        if tap.number == number:
            tap_name = tap.name
            descriptor = open_tap(tap)
            try:
                await guest.give_fd(tap_name, descriptor)
            finally:
                os.close(descriptor)
    for backend in netdevs(nic, tap_fd=tap_name):
        await guest.execute("netdev_add", timeout_seconds=COMMAND_SECONDS, **backend)
    await _open_ports(guest, nic, nic.forwards if nic.attachment == "nat" else ())
    await set_link(guest, nic)


async def set_link(guest: QmpGuest, nic: Nic) -> None:
    """The guest sees a carrier, or none."""
    await guest.execute("set_link", name=f"nic{nic.number}", up=has_link(nic))


async def set_forwards(guest: QmpGuest, old: Nic, new: Nic) -> None:
    """Forwarded ports of an adapter behind NAT: the connections of those that stay go on. Raises HypervisorError when one is busy."""
    if new.attachment != "nat":
        return
    for each in old.forwards:
        if each not in new.forwards:
            await guest.hmp(release_command(new.number, each))
    await _open_ports(guest, new, tuple(each for each in new.forwards if each not in old.forwards))


async def _open_ports(guest: QmpGuest, nic: Nic, forwards: Any) -> None:
    for each in forwards:
        if said := (await guest.hmp(forward_command(nic.number, each))).strip():
            raise HypervisorError(
                f"natpf{nic.number} {each.name}",
                f"{each.protocol} port {each.host_port} of this host cannot be had: {said}",
                "it may be in use: `ss -lnp` says by what",
            )


async def insert(guest: QmpGuest, definition: Definition, place: DrivePlace, *, force: bool) -> None:
    """The drive there gets the definition's medium, or none.

    Without `force` a guest that has locked the drive is asked to let it go, and StateError is raised. Raises HypervisorError when the
    medium cannot be opened; then nothing was changed.
    """
    attachment = place.of(definition)
    assert attachment is not None, "the definition has the drive"
    device = node_name(place.bus, attachment)
    before = await node_in(guest, definition, place)
    fresh = f"{device}-2" if before == device else device
    if attachment.medium:
        await _forget(guest, fresh)
        if attachment.password_file:
            password = read_password(Path(attachment.password_file)).decode()
            await guest.execute("object-add", qom_type="secret", id=secret_id(fresh), data=password)
        try:
            node = block_node(fresh, attachment, initiator=definition.uuid)
            await guest.execute("blockdev-add", timeout_seconds=STORAGE_SECONDS, **node)
            await _swap(guest, device, before, fresh, force=force)
        except BaseException:
            await _forget(guest, fresh)
            raise
    else:
        await _swap(guest, device, before, "", force=force)
    if before:
        await _forget(guest, before)


async def _swap(guest: QmpGuest, device: str, before: str, fresh: str, *, force: bool) -> None:
    await guest.execute("blockdev-open-tray", id=device, force=force)
    deadline = asyncio.get_running_loop().time() + _EJECT_SECONDS
    # A locked drive answers too, and has only asked its guest: one that does not use the medium opens it by itself.
    while (await _drive(guest, device)).get("tray_open") is False:  # None: a floppy has no tray
        if asyncio.get_running_loop().time() > deadline:
            raise StateError(f"drive {device}", "the guest uses its medium", "unmount it in the guest, or give --forceunmount")
        await asyncio.sleep(_LOOK_SECONDS)
    try:
        await guest.execute("blockdev-remove-medium", id=device)
        if fresh:
            try:
                await guest.execute("blockdev-insert-medium", id=device, node_name=fresh)
            except HypervisorError:
                if before:
                    await guest.execute("blockdev-insert-medium", id=device, node_name=before)
                raise
    finally:
        await guest.execute("blockdev-close-tray", id=device)


async def has_medium(guest: QmpGuest, definition: Definition, place: DrivePlace) -> bool:
    """Whether the file that the drive has is the definition's. A medium of the network is never said to be."""
    attachment = place.of(definition)
    assert attachment is not None, "the definition has the drive"
    drive = await _drive(guest, node_name(place.bus, attachment))
    return str(drive.get("inserted", {}).get("file", "")) == attachment.medium


async def node_in(guest: QmpGuest, definition: Definition, place: DrivePlace) -> str:
    """The block node that the drive has now; "" for an empty one."""
    attachment = place.of(definition)
    assert attachment is not None, "the definition has the drive"
    return str((await _drive(guest, node_name(place.bus, attachment))).get("inserted", {}).get("node-name", ""))


async def _drive(guest: QmpGuest, device: str) -> Mapping[str, Any]:
    """`query-block`'s word on one drive. Its `qdev` is the id, or the path of the device of that id (a floppy's)."""
    for each in await guest.execute("query-block"):
        if str(each.get("qdev", "")).rsplit("/", 1)[-1] == device:
            found: Mapping[str, Any] = each
            return found
    raise HypervisorError(f"drive {device}", "QEMU has none of that name")


async def _forget(guest: QmpGuest, node: str) -> None:
    """A medium that is in no drive is closed, and its password with it."""
    await _unless_missing(guest, "blockdev-del", node_name=node)
    await _unless_missing(guest, "object-del", id=secret_id(node))


async def _unless_missing(guest: QmpGuest, command: str, **arguments: str) -> None:
    try:
        await guest.execute(command, timeout_seconds=COMMAND_SECONDS, **arguments)
    except QemuGoneError:
        raise
    except HypervisorError as error:
        if not any(word in error.why for word in ("not found", "Failed to find", "Cannot find")):
            raise
