"""`list hostinfo` and `list hostcpuids`: VirtualBox's lines."""

import datetime
import json
import re
from pathlib import Path

from teleport.cli.host_lists import bridges, host_facts
from tests.unit.cli.run_cli import Cli

_CPU = """processor\t: {number}
model name\t: A CPU
physical id\t: 0
core id\t\t: {core}
cpu MHz\t\t: {mhz}
flags\t\t: fpu pae lm vmx
vmx flags\t: ept
"""
_MEMORY = "MemTotal:       16384000 kB\nMemAvailable:    8192000 kB\n"
_NOW = datetime.datetime(2026, 11, 24, 13, 0, tzinfo=datetime.UTC)


def test_hostinfo_is_written_as_virtualbox_writes_it() -> None:
    cpus = "\n".join(_CPU.format(number=number, core=number // 2, mhz=2400.1 * (number < 3)) for number in range(4))
    fact, lines, _ = host_facts(cpuinfo=cpus, meminfo=_MEMORY, present="0-3,5-8\n", now=_NOW)
    assert lines[:13] == [
        "Host Information:",
        "",
        "Host time: 2026-11-24T13:00:00.000000000Z",
        "Processor online count: 4",
        "Processor count: 8",
        "Processor online core count: 2",
        "Processor core count: 4",
        "Processor supports HW virtualization: yes",
        "Processor supports PAE: yes",
        "Processor supports long mode: yes",
        "Processor supports nested paging: yes",
        "Processor#0 speed: 2400 MHz",
        "Processor#0 description: A CPU",
    ]
    assert "Processor#3 speed: unknown" in lines
    assert "Memory size: 16000 MByte" in lines
    assert json.dumps(fact)


def test_a_host_without_those_words_is_shown_too() -> None:
    _, lines, _ = host_facts(cpuinfo="", meminfo=_MEMORY, present="", now=_NOW)
    assert "Processor supports HW virtualization: no" in lines


def test_hostcpuids_is_a_table_and_json(cli: Cli) -> None:
    lines = cli.ok("list", "hostcpuids").splitlines()
    assert lines[:3] == ["Host CPUIDs:", "", "Leaf no.  EAX      EBX      ECX      EDX"]
    assert all(re.fullmatch(r"[0-9a-f]{8}  [0-9a-f]{8} [0-9a-f]{8} [0-9a-f]{8} [0-9a-f]{8}", line) for line in lines[3:])
    table = json.loads(cli.ok("list", "hostcpuids", "--json"))
    assert len(table) == len(lines) - 3
    assert lines[3] == "{leaf}  {eax} {ebx} {ecx} {edx}".format(**table[0])


def test_bridges_are_listed_with_what_is_on_them(tmp_path: Path) -> None:
    for name, flags in (("br0", "0x1003"), ("lo", "0x9")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "flags").write_text(f"{flags}\n")
        (tmp_path / name / "address").write_text("02:00:00:00:00:01\n")
    (tmp_path / "br0/bridge").mkdir()
    (tmp_path / "br0/brif/eth0").mkdir(parents=True)
    ((fact, lines, _),) = bridges(tmp_path)
    assert fact == {"name": "br0", "hardware_address": "02:00:00:00:00:01", "up": True, "ports": ["eth0"]}
    assert lines[0].split() == ["Name:", "br0"]
