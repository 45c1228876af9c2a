"""What CPUID tells the guest is what its settings say, bit by bit, before a move and after it."""

import asyncio
import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from teleport.machines.arguments import Launch, qemu_arguments
from teleport.machines.cpus import FOLLOWING, MOST_PORTABLE, portable_features
from teleport.machines.definition import Cpu, CpuidLeaf, Definition, Machine, Serial
from teleport.preflight.cpuid import FEATURE_NAMES, Word, feature_names
from tests.harness.scene import until
from tests.integration.test_live_facts import qemu
from tests.integration.test_machines import OTHER_UUID, media, running
from tests.unit.machines.cases import controller, definition, drive

pytestmark = pytest.mark.qemu
__all__ = ["media"]

# A boot sector that asks CPUID for each (leaf, subleaf) of the table behind it, again twice a second, and writes what comes (EAX, EBX,
# ECX, EDX) to the first serial port.
ASKER = bytes.fromhex(
    "31c08ed88ed0bc007cfcbe4f7c66ad6683f8ff74316689c566ad6689c16689e80fa26652665166536650bf100089e3bafd03eca82074fb8a07baf803ee434f75"
    "ee83c410ebc7b90900fbf4e2fcebbb"
)
WORDS = tuple(FEATURE_NAMES)
REGISTERS = ("EAX", "EBX", "ECX", "EDX")
# The highest leaves of each kind: above them CPUID says again what the highest basic one says.
LIMITS = (0, 0x80000000, 0xC0000000)
ANSWER_BYTES = 16 * (len(LIMITS) + len(WORDS))
BASE = Cpu(profile="Nehalem")


def _named(word: Word) -> dict[str, int]:
    """The mask of each name in this word that can be set."""
    return {name: 1 << bit for bit, name in enumerate(FEATURE_NAMES[word].split()) if name not in FOLLOWING}


NAMES = {name for word in WORDS for name in _named(word)}


def _leaves(on: Iterable[str]) -> tuple[CpuidLeaf, ...]:
    """Overrides with these features on and all others off."""
    on = set(on)
    values: dict[tuple[int, int], dict[str, int]] = {}
    for word in WORDS:
        bits = sum(mask for name, mask in _named(word).items() if name in on)
        values.setdefault((word.leaf, word.subleaf), {})[word.register.lower()] = bits
    return tuple(CpuidLeaf(leaf=leaf, subleaf=subleaf, **registers) for (leaf, subleaf), registers in values.items())


def _cpu_argument(cpu: Cpu) -> str:
    arguments = qemu_arguments(definition(cpu=cpu), Launch(accelerator="tcg", qmp_socket="q", oob_socket="o"))
    return arguments[arguments.index("-cpu") + 1]


async def _features(folder: Path, argument: str) -> tuple[set[str], set[str]]:
    """What this CPU has under QEMU, and what it was asked for beyond that."""
    async with qemu(folder, "cpu", "-machine", "pc", "-cpu", argument, "-m", "16", "-S") as guest:
        path = (await guest.execute("query-cpus-fast"))[0]["qom-path"]
        had, left_out = [
            set(feature_names(await guest.execute("qom-get", path=path, property=name)))
            for name in ("feature-words", "filtered-features")
        ]
        return had & NAMES, left_out & NAMES


def test_every_bit_that_has_a_name_reaches_qemu(tmp_path: Path) -> None:
    """Also those that TCG cannot give: QEMU says of these that it was asked for them, and is asked to start all the same."""

    async def scenario() -> None:
        for wanted in (NAMES, set[str]()):
            argument = _cpu_argument(Cpu(profile="Nehalem", cpuid=_leaves(wanted))).replace("enforce=on", "enforce=off")
            had, left_out = await _features(tmp_path, argument)
            assert had | left_out == wanted, (had | left_out) ^ wanted

    asyncio.run(scenario())


def _asking(folder: Path, cpu: Cpu, *, ioapic: bool = True) -> Definition:
    asked = [*((leaf, 0) for leaf in LIMITS), *((word.leaf, max(word.subleaf, 0)) for word in WORDS)]
    table = b"".join(struct.pack("<II", *each) for each in asked) + b"\xff" * 4
    sector = (ASKER + table).ljust(510, b"\0") + b"\x55\xaa"
    (folder / "boot.raw").write_bytes(sector.ljust(1 << 20, b"\0"))
    return definition(
        machine=Machine(memory_mb=16, ioapic=ioapic, boot=("disk", "none", "none", "none"), graphics="none"),
        cpu=cpu,
        controllers=(controller("ide", drive(0, 0, "hdd", f"{folder}/boot.raw", "raw")),),
        serial=(Serial(number=1, enabled=True, mode="file", path=f"{folder}/told"),),
    )


async def _told(path: Path) -> Mapping[str, bool]:
    """Each feature as the guest reads it first."""
    await asyncio.to_thread(until, lambda: path.exists() and path.stat().st_size >= ANSWER_BYTES, "no answer from CPUID", 60)
    answer = path.read_bytes()[:ANSWER_BYTES]
    told: dict[str, bool] = {}
    highest = [struct.unpack_from("<I", answer, 16 * at)[0] for at in range(len(LIMITS))]
    for at, word in enumerate(WORDS, len(LIMITS)):
        is_there = any(limit <= word.leaf <= top < limit + 0x10000 for limit, top in zip(LIMITS, highest, strict=True))
        value = is_there and struct.unpack_from("<I", answer, 16 * at + 4 * REGISTERS.index(word.register))[0]
        names = {name: 1 << bit for bit, name in enumerate(FEATURE_NAMES[word].split()) if name != "-"}
        told |= {name: bool(value & mask) for name, mask in names.items()}
    return told


async def _read_by_guest(folder: Path, cpu: Cpu, *, ioapic: bool = True) -> Mapping[str, bool]:
    async with running(_asking(folder, cpu, ioapic=ioapic), folder):
        told = await _told(folder / "told")
    for left in ("told", "source.qmp", "source.oob"):
        (folder / left).unlink(missing_ok=True)
    (folder / "vm-source").rmdir()
    return told


def test_the_guest_reads_every_level_of_portability_and_every_switch(media: Path) -> None:
    async def scenario() -> None:
        whole = await _read_by_guest(media, BASE)
        assert all(whole[name] for name in ("pae", "lm", "apic", "sse4.2", "popcnt", "cx16"))
        for level in range(1, MOST_PORTABLE + 1):
            told = await _read_by_guest(media, BASE.model_copy(update={"portability_level": level}))
            taken = portable_features(level)
            assert {name for name in told if told[name] != whole[name]} == {name for name in taken if whole[name]}
        old = await _read_by_guest(media, BASE.model_copy(update={"pae": False, "long_mode": False}), ioapic=False)
        assert {name for name in old if old[name] != whole[name]} == {"pae", "lm", "apic"}

    asyncio.run(asyncio.wait_for(scenario(), 120))


def test_the_guest_reads_every_bit_on_and_off_here_and_where_it_goes(media: Path) -> None:
    async def scenario() -> None:
        able, _ = await _features(media, re.sub("^Nehalem,enforce=on", "max", _cpu_argument(Cpu())))
        everything = await _read_by_guest(media, BASE.model_copy(update={"cpuid": _leaves(able)}))
        # an Intel processor has SYSCALL in 64-bit mode alone, and says so there alone
        assert {name for name in NAMES if everything[name]} == able - {"syscall"}
        nothing = BASE.model_copy(update={"cpuid": _leaves(())})
        here = _asking(media, nothing)
        port = here.serial[0].model_copy(update={"path": f"{media}/told-there"})
        there = here.model_copy(update={"name": "T", "uuid": OTHER_UUID, "serial": (port,)})
        async with running(here, media) as (source, _):
            assert not {name for name in NAMES if (await _told(media / "told"))[name]}
            async with running(there, media, incoming=True) as (target, _):
                await source.configure_migration({"events": True, "return-path": True}, {})
                await target.configure_migration({"events": True, "return-path": True, "late-block-activate": True}, {})
                await target.migrate_incoming(f"unix:{media}/stream")
                await source.migrate(f"unix:{media}/stream")
                assert await target.wait_migration("completed") == "completed"
                assert await source.wait_migration("completed") == "completed"
                await target.activate_disks()
                await target.cont()
                assert not {name for name in NAMES if (await _told(media / "told-there"))[name]}

    asyncio.run(asyncio.wait_for(scenario(), 120))
