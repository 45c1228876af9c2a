"""`list`: VMs, running VMs, OS types, CPU models, media, and facts about this host."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from teleport.cli.grammar import Verb
from teleport.cli.home import store
from teleport.cli.host_lists import bridgedifs, hostcpuids, hostinfo
from teleport.cli.live import live_state
from teleport.cli.vminfo import rows
from teleport.errors import UsageError
from teleport.machines import cpus, media, preferences, usb_host
from teleport.machines.definition import LEAST_MEMORY_MB, MOST_CPUS, MOST_MEMORY_MB, MOST_SERIAL_PORTS
from teleport.machines.ostypes import OS_TYPES
from teleport.machines.store import BrokenVm, StoredVm
from teleport.machines.vrde import MOST_MONITORS

# One thing of a list: as JSON shows it, in short, and at length.
Entry = tuple[dict[str, Any], list[str], list[str]]


def _vms(*, running: bool) -> Iterator[Entry]:
    for vm in store().all():
        if isinstance(vm, BrokenVm):
            if not running:
                fact = {"name": vm.name, "uuid": vm.uuid, "state": "inaccessible", "settings_file": str(vm.paths.definition)}
                click.echo(f"teleport: warning: VM {vm.name!r} {{{vm.uuid}}}: {vm.error}", err=True)
                yield fact | {"error": str(vm.error)}, [f'"<inaccessible>" {{{vm.uuid}}}'], [str(vm.error)]
            continue
        yield from _vm(vm, running=running)


def _vm(vm: StoredVm, *, running: bool) -> Iterator[Entry]:
    live = live_state(vm.paths)
    if running and not live.runs:
        return
    fact = {
        "name": vm.name,
        "uuid": vm.uuid,
        "state": live.state.value,
        "ostype": vm.definition.ostype,
        "memory_mb": vm.definition.machine.memory_mb,
        "cpus": vm.definition.machine.cpus,
        "settings_file": str(vm.paths.definition),
    }
    yield fact, [f'"{vm.name}" {{{vm.uuid}}}'], [each.human() for each in rows(vm, live) if each.label and each.value]


def _ostypes() -> Iterator[Entry]:
    for each in OS_TYPES.values():
        fact = {
            "id": each.id,
            "description": each.description,
            "family": each.family,
            "family_description": each.family_description,
            "64_bit": each.is_64_bit,
            "memory_mb": each.memory_mb,
            "nictype": each.nic_model,
            "chipset": each.chipset,
        }
        lines = [
            f"ID:          {each.id}",
            f"Description: {each.description}",
            f"Family ID:   {each.family}",
            f"Family Desc: {each.family_description}",
            f"64 bit:      {'true' if each.is_64_bit else 'false'}",
        ]
        longer = [f"Memory:      {each.memory_mb} MB", f"NIC type:    {each.nic_model}", f"Chipset:     {each.chipset}"]
        yield fact, [*lines, ""], [*lines, *longer, ""]


def _profiles() -> Iterator[Entry]:
    for name in cpus.PROFILES:
        yield {"name": name}, [name], [name]


def _media(kind: str) -> Iterator[Entry]:
    """Images that are attached to VMs, each once."""
    seen: dict[str, tuple[str, list[str]]] = {}
    for vm in store().all():
        for controller in vm.definition.controllers if isinstance(vm, StoredVm) else ():
            for each in controller.attachments:
                if each.type == kind and each.medium:
                    seen.setdefault(each.medium, (each.format, []))[1].append(vm.name)
    for path, (image_format, names) in sorted(seen.items()):
        there = Path(path).exists()
        fact = {"location": path, "format": media.format_word(image_format), "accessible": there, "used_by": names}
        lines = [
            f"State:          {'created' if there else 'inaccessible'}",
            f"Location:       {path}",
            f"Storage format: {media.format_word(image_format)}",
            f"In use by VMs:  {', '.join(names)}",
            "",
        ]
        yield fact, lines, lines


def _usbhost() -> Iterator[Entry]:
    for each in usb_host.host_devices():
        device = each.device
        fact = {
            "uuid": each.uuid,
            "vendor_id": f"{device.vendor_id:04x}",
            "product_id": f"{device.product_id:04x}",
            "revision": f"{device.revision:04x}",
            "port": each.place,
            "speed_mbit_s": each.speed,
            "manufacturer": device.manufacturer,
            "product": device.product,
            "serial_number": device.serial_number,
            "address": each.address,
            "state": "Busy" if each.in_use else "Available",
        }
        lines = [
            f"UUID:               {each.uuid}",
            f"VendorId:           0x{device.vendor_id:04x} ({device.vendor_id:04X})",
            f"ProductId:          0x{device.product_id:04x} ({device.product_id:04X})",
            f"Revision:           {device.revision >> 8:x}.{device.revision & 0xFF:02x} ({device.revision:04X})",
            f"Port:               {each.place}",
            f"USB speed:          {each.speed} Mbit/s",
            f"Manufacturer:       {device.manufacturer}",
            f"Product:            {device.product}",
            f"SerialNumber:       {device.serial_number}",
            f"Address:            {each.address}",
            f"Current State:      {fact['state']}",
            "",
        ]
        yield fact, lines, lines


def _intnets() -> Iterator[Entry]:
    """The networks that this home's VMs share: what `--intnet1` names."""
    users: dict[str, list[str]] = {}
    for vm in store().all():
        for nic in vm.definition.nics if isinstance(vm, StoredVm) else ():
            if nic.attachment == "intnet":
                users.setdefault(nic.network, []).append(vm.name)
    for name, names in sorted(users.items()):
        lines = [f"Name:        {name}", f"Used by VMs: {', '.join(dict.fromkeys(names))}", ""]
        yield {"name": name, "used_by": list(dict.fromkeys(names))}, lines, lines


def _systemproperties() -> Iterator[Entry]:
    home = store()
    fact = {
        "minimum_guest_memory_mb": LEAST_MEMORY_MB,
        "maximum_guest_memory_mb": MOST_MEMORY_MB,
        "maximum_guest_cpus": MOST_CPUS,
        "maximum_guest_monitors": MOST_MONITORS,
        "maximum_serial_ports": MOST_SERIAL_PORTS,
        "default_machine_folder": str(home.default_base_folder),
        "default_hard_disk_format": "QCOW2",
        "vrde_auth_library": preferences.read(home.home).vrde_auth_library,
    }
    lines = [
        f"Minimum guest RAM size:          {LEAST_MEMORY_MB} Megabytes",
        f"Maximum guest RAM size:          {MOST_MEMORY_MB} Megabytes",
        f"Maximum guest CPU count:         {MOST_CPUS}",
        f"Maximum guest monitor count:     {MOST_MONITORS}",
        f"Maximum Serial Port count:       {MOST_SERIAL_PORTS}",
        f"Default machine folder:          {fact['default_machine_folder']}",
        "Default hard disk format:        QCOW2",
        f"VRDE auth library:               {fact['vrde_auth_library']}",
    ]
    yield fact, lines, lines


def _formats() -> Iterator[Entry]:
    for word, name in media.FORMATS.items():
        can = name in media.MIGRATABLE
        yield {"format": word, "can_teleport": can}, [f"{word:<8}{'can' if can else 'cannot'} teleport"], [word]


_LISTS: dict[str, Callable[[], Iterator[Entry]]] = {
    "vms": lambda: _vms(running=False),
    "runningvms": lambda: _vms(running=True),
    "ostypes": _ostypes,
    "cpu-profiles": _profiles,
    "hdds": lambda: _media("hdd"),
    "dvds": lambda: _media("dvddrive"),
    "floppies": lambda: _media("fdd"),
    "hddbackends": _formats,
    "hostinfo": hostinfo,
    "hostcpuids": hostcpuids,
    "systemproperties": _systemproperties,
    "usbhost": _usbhost,
    "bridgedifs": bridgedifs,
    "intnets": _intnets,
}


@click.command("list", cls=Verb)
@click.argument(
    "what", metavar="|".join(_LISTS), shell_complete=lambda _, __, begun: [each for each in _LISTS if each.startswith(begun)]
)
@click.option("-l", "--long", "at_length", is_flag=True, help="Everything about each.")
@click.option("-s", "--sorted", "in_order", is_flag=True, help="By name (VMs always are).")
@click.option("--json", "as_json", is_flag=True, help="As one JSON array.")
def command(*, what: str, at_length: bool, in_order: bool, as_json: bool) -> None:
    """List VMs, running VMs, OS types, media, and more."""
    if what.lower() not in _LISTS:
        raise UsageError("list", f"there is no list of {what!r}", f"use {', '.join(_LISTS)}")
    entries = list(_LISTS[what.lower()]())
    if in_order:
        entries.sort(key=lambda entry: str(entry[0].get("name") or entry[0].get("id") or entry[0].get("location")).lower())
    if as_json:
        click.echo(json.dumps([fact for fact, _, _ in entries], ensure_ascii=False))
        return
    for _, short, full in entries:
        for line in full if at_length else short:
            click.echo(line)
        if at_length and what.lower().endswith("vms"):
            click.echo("")
