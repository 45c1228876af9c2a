"""What `list` says about this host: hostinfo, hostcpuids, bridgedifs, as VBoxManage prints them."""

import datetime
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from teleport.machines.host_cpuid import host_leaves

Entry = tuple[dict[str, Any], list[str], list[str]]  # as in `teleport.cli.listing`
_YES_NO = {True: "yes", False: "no"}
_PRESENT = Path("/sys/devices/system/cpu/present")
_NETWORK = Path("/sys/class/net")


def hostinfo() -> Iterator[Entry]:
    """This host. `processors` in JSON holds one object for each that is online."""
    yield host_facts(
        cpuinfo=Path("/proc/cpuinfo").read_text(errors="replace"),
        meminfo=Path("/proc/meminfo").read_text(),
        present=_PRESENT.read_text() if _PRESENT.exists() else "",
        now=datetime.datetime.now(datetime.UTC),
    )


def host_facts(*, cpuinfo: str, meminfo: str, present: str, now: datetime.datetime) -> Entry:
    """From /proc/cpuinfo, /proc/meminfo and the kernel's list of CPUs (`0-3,6`; "" where it has none)."""
    processors = [
        {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in block.splitlines())}
        for block in cpuinfo.strip().split("\n\n")
        if block.startswith("processor")
    ]
    online = len(processors) or os.cpu_count() or 1
    cores = len({(each.get("physical id", "0"), each.get("core id", each["processor"])) for each in processors}) or online
    flags = set(" ".join(f"{each.get('flags', '')} {each.get('vmx flags', '')}" for each in processors[:1]).split())
    memory = {line.partition(":")[0]: int(line.split()[1]) >> 10 for line in meminfo.splitlines()}
    total = _count(present) or online
    known = [
        {"speed_mhz": round(float(each.get("cpu MHz", 0))), "description": each.get("model name", "")} for each in processors
    ]
    fact = {
        "host_time": now.strftime("%Y-%m-%dT%H:%M:%S.%f000Z"),
        "processors_online": online,
        "processors": total,
        "cores_online": cores,
        "cores": max(cores, total * cores // online),
        "hw_virtualization": bool(flags & {"vmx", "svm"}),
        "pae": "pae" in flags,
        "long_mode": "lm" in flags,
        "nested_paging": bool(flags & {"ept", "npt"}),
        "processor_list": known,
        "memory_mb": memory.get("MemTotal", 0),
        "memory_available_mb": memory.get("MemAvailable", 0),
        "system": platform.system(),
        "release": platform.release(),
    }
    lines = [
        *("Host Information:", ""),
        f"Host time: {fact['host_time']}",
        f"Processor online count: {online}",
        f"Processor count: {total}",
        f"Processor online core count: {cores}",
        f"Processor core count: {fact['cores']}",
        f"Processor supports HW virtualization: {_YES_NO[bool(fact['hw_virtualization'])]}",
        f"Processor supports PAE: {_YES_NO[bool(fact['pae'])]}",
        f"Processor supports long mode: {_YES_NO[bool(fact['long_mode'])]}",
        f"Processor supports nested paging: {_YES_NO[bool(fact['nested_paging'])]}",
    ]
    for number, each in enumerate(known):
        lines.append(f"Processor#{number} speed: {_speed(each['speed_mhz'])}")
        lines.append(f"Processor#{number} description: {each['description'] or 'unknown'}")
    lines += [
        f"Memory size: {fact['memory_mb']} MByte",
        f"Memory available: {fact['memory_available_mb']} MByte",
        f"Operating system: {fact['system']}",
        f"Operating system version: {fact['release']}",
    ]
    return fact, lines, lines


def _speed(mhz: object) -> str:
    return f"{mhz} MHz" if mhz else "unknown"


def _count(ranges: str) -> int:
    """How many numbers the kernel's list `0-3,6` names."""
    parts = [part.split("-") for part in ranges.strip().split(",") if part]
    return sum(int(ends[-1]) - int(ends[0]) + 1 for ends in parts)


def bridgedifs() -> Iterator[Entry]:
    """The bridges of this host: what `--bridgeadapter1` can name."""
    yield from bridges(_NETWORK)


def bridges(folder: Path) -> Iterator[Entry]:
    """From the kernel's folder of network devices."""
    for each in sorted(path.parent for path in folder.glob("*/bridge")):
        up = int((each / "flags").read_text(), 16) & 1  # IFF_UP
        address = (each / "address").read_text().strip()
        ports = sorted(port.name for port in (each / "brif").iterdir())
        fact = {"name": each.name, "hardware_address": address, "up": bool(up), "ports": ports}
        lines = [
            f"Name:            {each.name}",
            f"HardwareAddress: {address}",
            f"Status:          {'Up' if up else 'Down'}",
            f"Ports:           {', '.join(ports)}".rstrip(),
            "",
        ]
        yield fact, lines, lines


def hostcpuids() -> Iterator[Entry]:
    """The table of CPUID leaves; in JSON one object a leaf, numbers as in the table."""
    heading = ["Host CPUIDs:", "", "Leaf no.  EAX      EBX      ECX      EDX"]
    for each in host_leaves():
        fact = {name: f"{value:08x}" for name, value in vars(each).items()}
        line = f"{each.leaf:08x}  {each.eax:08x} {each.ebx:08x} {each.ecx:08x} {each.edx:08x}"
        yield fact, [*heading, line], [*heading, line]
        heading = []
