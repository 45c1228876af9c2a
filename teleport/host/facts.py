"""What a live QEMU is, asked through QMP: the second comparison of the preflight.

QEMU itself compares neither devices nor CPUs when it migrates (machines.md: a guest that moves to another CPU model panics or
hangs), so we ask both machines and compare. The target is asked while it waits for the stream (`-S -incoming defer`): it has no
BARs and no bus numbers yet and its block nodes are inactive; what depends on that is left out (see `teleport.preflight.qtree`).
"""

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from teleport.errors import HypervisorError
from teleport.model import Fact
from teleport.preflight.cpuid import feature_names
from teleport.preflight.qtree import device_facts, parse_qtree

# Of the machine object: what the guest can see. `firmware` is a file name and the file travels with the guest: see below.
_MACHINE_PROPERTIES = (
    "acpi",
    "hpet",
    "i8042",
    "nvdimm",
    "pic",
    "pit",
    "smbios-entry-point-type",
    "smm",
    "vmport",
    "max-ram-below-4g",
)
_CPU_PROPERTIES = ("vendor", "family", "model", "stepping", "model-id", "level", "xlevel", "phys-bits")
_RAM_BLOCK = re.compile(r"\s*(?P<name>.*?)\s+(?P<page>\d+ [KMG]?i?B)\s+0x[0-9a-f]+\s+0x[0-9a-f]+\s+0x(?P<total>[0-9a-f]+)\s.*")


# Runs one QMP command: its name, and QAPI's arguments by their own names. Raises HypervisorError with QEMU's words.
Execute = Callable[..., Awaitable[Any]]


async def live_facts(execute: Execute) -> tuple[Fact, ...]:
    """The facts of one live machine, in no particular order.

    Areas: machine, memory, cpu, device, property, block; "host" and "descriptive" for what may differ. Takes about 40 commands
    of half a millisecond. Raises HypervisorError when QEMU is gone or doesn't know a command that every QEMU 10 knows.
    """
    return (
        *await _machine(execute),
        *await _cpu(execute),
        *await _memory(execute),
        *device_facts(parse_qtree(await _hmp(execute, "info qtree"))),
        *await _block(execute),
    )


async def _hmp(execute: Execute, line: str) -> str:
    return str(await execute("human-monitor-command", **{"command-line": line}))


async def _property(execute: Execute, path: str, name: str) -> Any:
    """A QOM property; None where this machine has none of that name."""
    try:
        return await execute("qom-get", path=path, property=name)
    except HypervisorError as error:
        if "not found" in error.why:  # "Property 'pc-q35-10.0-machine.pit' not found"; a dead QEMU says something else
            return None
        raise


async def _machine(execute: Execute) -> list[Fact]:
    version = await execute("query-version")
    number = version["qemu"]
    kvm = await execute("query-kvm")
    machine = str(await execute("qom-get", path="/machine", property="type")).removesuffix("-machine")
    facts = [
        Fact("host", "qemu", "version", f"{number['major']}.{number['minor']}.{number['micro']} {version['package']}".strip()),
        Fact("machine", "", "accelerator", "kvm" if kvm["enabled"] else "tcg"),
        Fact("machine", "", "type", machine),
    ]
    for name in _MACHINE_PROPERTIES:
        if (value := await _property(execute, "/machine", name)) is not None:
            facts.append(Fact("machine", "", name, _text(value)))
    # Firmware travels with the guest as memory, so that another build of it may stand on the target's disk; its size may not
    # differ, and does not: it is a block of memory below.
    facts.append(Fact("descriptive", "firmware", "file", _text(await _property(execute, "/machine", "firmware") or "")))
    return facts


async def _cpu(execute: Execute) -> list[Fact]:
    slots = await execute("query-hotpluggable-cpus")
    cpus = await execute("query-cpus-fast")
    smp = await execute("qom-get", path="/machine", property="smp")
    topology = ", ".join(
        f"{name} {smp[name]}" for name in ("sockets", "dies", "modules", "cores", "threads", "maxcpus") if name in smp
    )
    models = Counter(str(slot["type"]).removesuffix("-x86_64-cpu") for slot in slots if "qom-path" in slot)
    facts = [
        Fact("cpu", "", "count", str(len(cpus)), f"--cpus {len(cpus)}"),
        Fact("cpu", "", "topology", topology),
        Fact("cpu", "", "model", ", ".join(sorted(models))),
    ]
    first = cpus[0]["qom-path"]
    for name in _CPU_PROPERTIES:
        if (value := await _property(execute, first, name)) is not None:
            facts.append(Fact("cpu", "", f"cpuid {name}", _text(value)))
    if (words := await _property(execute, first, "feature-words")) is not None:
        facts.append(Fact("cpu", "", "features", " ".join(feature_names(words))))
    return facts


async def _memory(execute: Execute) -> list[Fact]:
    size_bytes = (await execute("query-memory-size-summary"))["base-memory"]
    slots = await execute("qom-get", path="/machine", property="memory")
    facts = [
        Fact("memory", "", "size", _mebibytes(size_bytes), f"--memory {size_bytes >> 20}"),
        Fact("memory", "", "hotplug", f"{slots.get('slots', 0)} slots up to {_mebibytes(slots.get('max-size', size_bytes))}"),
    ]
    for device in await execute("query-memory-devices"):
        data = device["data"]
        name = str(data.get("id") or f"{device['type']}@{data.get('addr', data.get('memaddr', 0)):#x}")
        facts.append(Fact("memory", name, "type", str(device["type"])))
        facts.extend(Fact("memory", name, key, _text(data[key])) for key in ("size", "addr", "slot", "node") if key in data)
    facts.extend(ram_block_facts(await _hmp(execute, "info ramblock")))
    return facts


def ram_block_facts(text: str) -> Iterable[Fact]:
    """The blocks of memory that a migration sends by name, from `info ramblock`: RAM, video memory, firmware, each with its size.

    A device's option ROM is left out: it has the size of its property `romsize`. Page sizes may differ (huge pages).
    """
    for line in text.splitlines()[1:]:
        match = _RAM_BLOCK.fullmatch(line)
        if match and not ("/" in match["name"] and match["name"].endswith(".rom")):
            yield Fact("memory", match["name"], "bytes", str(int(match["total"], 16)))


async def _block(execute: Execute) -> list[Fact]:
    """Each drive's medium as its top node sees it. `write-cache` is the guest's own choice at run time."""
    facts = []
    for drive in await execute("query-block"):
        subject = drive_name(drive)
        inserted = drive.get("inserted")
        facts.append(Fact("block", subject, "medium", "present" if inserted else "empty"))
        if inserted:
            facts.extend(Fact("block", subject, name, value) for name, value in medium_values(inserted).items())
    return facts


def drive_name(drive: Mapping[str, Any]) -> str:
    """The device's id where it has one: from `qdev`, an id or a QOM path, or the drive's own name."""
    path = str(drive.get("qdev") or drive.get("device") or "drive")
    return path.removeprefix("/machine/peripheral/").removesuffix("/virtio-backend").removeprefix("/machine/")


def medium_values(inserted: Mapping[str, Any]) -> dict[str, str]:
    """What must be the same of an inserted medium (QAPI BlockDeviceInfo): format, sizes, and what hides more data."""
    image = inserted["image"]
    return {
        "format": str(inserted["drv"]),
        "size": str(image["virtual-size"]),
        "read-only": "on" if inserted["ro"] else "off",
        "encrypted": "on" if inserted.get("encrypted") else "off",
        "snapshots": ", ".join(sorted(str(snapshot["name"]) for snapshot in image.get("snapshots", ()))),
        "backing": " ← ".join(_backing(image)),
    }


def _backing(image: Mapping[str, Any]) -> Sequence[str]:
    """The base files' names, the nearest first."""
    names = []
    while (nearer := image.get("backing-image")) is not None:
        names.append(str(nearer["filename"]).rsplit("/", 1)[-1])
        image = nearer
    if not names and image.get("backing-filename"):
        names.append(str(image["backing-filename"]).rsplit("/", 1)[-1])
    return names


def _mebibytes(size_bytes: int) -> str:
    return f"{size_bytes >> 20} MiB" if size_bytes % (1 << 20) == 0 else f"{size_bytes} bytes"


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)
