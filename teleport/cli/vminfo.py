"""A VM as `showvminfo` shows it: rows from the table of options, its storage, and what it is doing now."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from teleport.cli.live import LiveState
from teleport.errors import StorageError
from teleport.machines.controllers import BUSES
from teleport.machines.options import OPTIONS
from teleport.machines.ostypes import OS_TYPES
from teleport.machines.snapshots import Snapshot, Tree, read_tree
from teleport.machines.store import StoredVm

_WIDTH = 34
_LIVE_LABELS = {  # for people; what is not named here is shown by its key
    "teleportprogress": "Teleporting in",
    "vrdeport": "VRDE port",
    "vrdefingerprint": "VRDE fingerprint",
    "vrdeviewers": "VRDE viewers",
    "vrdelimit": "VRDE limit",
    "vrdeproblem": "VRDE problem",
}


@dataclass(frozen=True)
class Row:
    """One line: `label` for people ("": not for them), `key` for programs, with VirtualBox's names where they exist. `quoted`: text, not
    a number. `bare`: the key is never quoted, as VirtualBox does with a snapshot's. `shown`: the value for people ("": as it is)."""

    label: str
    key: str
    value: str
    quoted: bool = True
    bare: bool = False
    shown: str = ""

    def human(self) -> str:
        """As `showvminfo` prints it."""
        return f"{self.label + ':':<{_WIDTH}} {self.shown or self.value}"

    def machine(self) -> str:
        """As `showvminfo --machinereadable` prints it: KEY=VALUE with text in quotes, quotes and line breaks escaped."""
        key = f'"{self.key}"' if not self.bare and (" " in self.key or "-" in self.key) else self.key
        if not self.quoted:
            return f"{key}={self.value}"
        escaped = self.value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'{key}="{escaped}"'


def rows(vm: StoredVm, live: LiveState) -> Iterator[Row]:
    """Everything about a VM, in VirtualBox's order: who it is, its settings, its storage, its state."""
    # what is so now (an address that is bound) stands instead of what was asked for
    now = dict(live.details)
    yield from (replace(row, value=str(now.pop(row.key)), shown="") if row.key in now else row for row in _settings(vm))
    yield from _storage(vm)
    yield from _usb_filters(vm)
    yield from _state(vm, live, now)
    yield from _snapshots(vm)


def _snapshots(vm: StoredVm) -> Iterator[Row]:
    try:
        tree = read_tree(vm.paths)
    except StorageError as error:  # the rest can still be shown
        yield Row("Snapshots", "SnapshotError", str(error))
        return
    if tree.snapshots:
        yield Row("Snapshots", "", "\n" + "\n".join(snapshot_lines(tree)))
    yield from snapshot_rows(tree)


def snapshot_lines(tree: Tree) -> Iterator[str]:
    """The tree for people; the VM goes on from the one with the star."""
    for depth, _, each in _walk(tree, "", ""):
        star = " *" if each.uuid == tree.current else ""
        yield f"{'   ' * (depth + 1)}Name: {each.name} (UUID: {each.uuid}){star}"
        if each.description:
            yield f"{'   ' * (depth + 1)}Description: {each.description}"


def snapshot_rows(tree: Tree) -> Iterator[Row]:
    """The tree for programs: the nodes `""`, `-1`, `-1-2` of VirtualBox."""
    for _, node, each in _walk(tree, "", ""):
        yield Row("", f"SnapshotName{node}", each.name, bare=True)
        yield Row("", f"SnapshotUUID{node}", each.uuid, bare=True)
        if each.description:
            yield Row("", f"SnapshotDescription{node}", each.description, bare=True)
        if each.uuid == tree.current:
            yield Row("", "CurrentSnapshotName", each.name)
            yield Row("", "CurrentSnapshotUUID", each.uuid)
            yield Row("", "CurrentSnapshotNode", f"SnapshotName{node}")


def _walk(tree: Tree, parent: str, node: str, depth: int = 0) -> Iterator[tuple[int, str, Snapshot]]:
    """Depth, VirtualBox's node ("", "-1", "-1-2"), snapshot."""
    for number, each in enumerate(tree.children(parent), start=1):
        own = f"{node}-{number}" if parent else ("" if number == 1 else f"-{number}")
        yield depth, own, each
        yield from _walk(tree, each.uuid, own, depth + 1)


def _settings(vm: StoredVm) -> Iterator[Row]:
    for option in OPTIONS:
        for number in option.numbers:
            if not option.shown or not option.relevant(vm.definition, number):
                continue
            label = f"{option.label} {number}" if option.most else option.label
            value = option.text(vm.definition, number)
            if option.name == "ostype" and value in OS_TYPES:
                value = OS_TYPES[value].description
            elif option.name == "uart":
                value = value.replace(" ", ",")
            elif option.name == "uartmode":
                value = value.replace(" ", ",", 1)
            machine_value = option.machine_words.get(value, value)
            yield Row(label, option.machine_key(number), machine_value, option.kind.quoted, shown=f"{value}{option.unit}")
    yield from (Row("", f"natnet{nic.number}", "nat") for nic in vm.definition.nics if nic.attachment == "nat")
    forwards = [each for nic in vm.definition.nics for each in nic.forwards]
    for number, each in enumerate(forwards):
        ends = f"{each.host_address},{each.host_port},{each.guest_address},{each.guest_port}"
        yield Row(f"NAT rule {number}", f"Forwarding({number})", f"{each.name},{each.protocol},{ends}")
    for name, value in vm.definition.vrde.properties.items():
        yield Row(f"VRDE property {name}", f"vrdeproperty[{name}]", value)
    has_password = bool(vm.definition.teleporter.password or vm.definition.teleporter.password_file)
    yield Row("Teleporter Password", "teleporterpassword", "set" if has_password else "")


def _storage(vm: StoredVm) -> Iterator[Row]:
    controllers = vm.definition.controllers
    for number, controller in enumerate(controllers):
        kind = BUSES[controller.bus]
        title = f"Storage Controller {number}"
        yield Row(f"{title} Name", f"storagecontrollername{number}", controller.name)
        yield Row(f"{title} Type", f"storagecontrollertype{number}", controller.chip)
        yield Row(f"{title} Instance", f"storagecontrollerinstance{number}", "0")
        yield Row(f"{title} Max Ports", f"storagecontrollermaxportcount{number}", str(kind.most_ports))
        yield Row(f"{title} Ports", f"storagecontrollerportcount{number}", str(controller.port_count))
        yield Row(f"{title} Bootable", f"storagecontrollerbootable{number}", "on" if controller.bootable else "off")
    for controller in controllers:
        taken = {(each.port, each.device): each for each in controller.attachments}
        for port in range(controller.port_count):
            for device in range(BUSES[controller.bus].devices_per_port):
                each = taken.get((port, device))
                value = (each.medium or "emptydrive") if each else "none"
                yield Row(f"{controller.name} ({port}, {device})", f"{controller.name}-{port}-{device}", value)
                if each:
                    yield Row("  type", f"{controller.name}-type-{port}-{device}", each.type)


def _usb_filters(vm: StoredVm) -> Iterator[Row]:
    """VirtualBox's keys, counted from 1 as it does (`usbfilter` itself counts from 0)."""
    for number, each in enumerate(vm.definition.usb_filters, 1):
        fields = {
            "Active": "on" if each.active else "off",
            "Name": each.name,
            "VendorId": each.vendor_id,
            "ProductId": each.product_id,
            "Revision": each.revision,
            "Manufacturer": each.manufacturer,
            "Product": each.product,
            "Remote": each.remote,
            "SerialNumber": each.serial_number,
        }
        for name, value in fields.items():
            yield Row(f"USB filter {number} {name}", f"USBFilter{name}{number}", value)


def _state(vm: StoredVm, live: LiveState, details: Mapping[str, str | int]) -> Iterator[Row]:
    yield Row("State", "VMState", live.state.value)
    for key, value in details.items():
        yield Row(_LIVE_LABELS.get(key, f"  {key}"), key, str(value), quoted=isinstance(value, str))
    yield Row("Settings file", "CfgFile", str(vm.paths.definition))
    yield Row("Log file", "LogFile", str(vm.paths.log))
