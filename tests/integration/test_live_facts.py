"""Two live QEMUs compared: no harmless difference shows, and each that QEMU itself lets through in silence does (machines.md)."""

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from teleport.host.facts import live_facts
from teleport.host.guest import QmpGuest
from teleport.model import Fact, Finding
from teleport.preflight.compare import compare_facts
from teleport.preflight.cpuid import FEATURE_NAMES, feature_names
from tests.integration.tiny_qemu import connected

pytestmark = pytest.mark.qemu

WAIT = ("-S", "-incoming", "defer")
KERNEL = Path(__file__).parents[2] / ".cache/kernel/vmlinuz"
# What the two machines' own drive letters are: piix3's IDE has two, ich9's AHCI six.
CD_BUS = {"pc-i440fx-10.0": "ide.1", "pc-q35-10.0": "ide.2"}


@contextlib.asynccontextmanager
async def qemu(folder: Path, name: str, *arguments: str) -> AsyncIterator[QmpGuest]:
    """A QEMU with these arguments, connected; dead and reaped at the end."""
    command = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-accel", "tcg", "-name", name, *arguments]
    for monitor in ("qmp", "oob"):
        command += ["-qmp", f"unix:{folder}/{name}.{monitor},server=on,wait=off"]
    async with connected(folder, name, command) as guest:
        yield guest


def image(path: Path, *options: str, size: str = "64M") -> Path:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), size], check=True, timeout=30)
    return path


def disk(path: Path, *, node: str = "disk0", device: str = "virtio-blk-pci", options: str = "addr=5") -> list[str]:
    blockdev = f"driver=qcow2,node-name={node},file.driver=file,file.filename={path}"
    return ["-blockdev", blockdev, "-device", f"{device},drive={node},id={node},{options}"]


def machine(kind: str = "pc-q35-10.0", *, cpu: str = "Nehalem", smp: int = 1, memory_mib: int = 64) -> list[str]:
    return ["-machine", kind, "-cpu", cpu, "-smp", str(smp), "-m", str(memory_mib)]


def many_devices(kind: str, folder: Path, *, side: str) -> list[str]:
    """Most of what a definition can have. Backends and UUID differ by `side`, as they may."""
    iso = folder / "cd.iso"
    arguments = machine(kind, smp=2, memory_mib=256)
    arguments += disk(folder / "a.qcow2", node="a", options="addr=5,serial=A1")
    arguments += [
        "-device",
        "virtio-scsi-pci,id=vs,addr=6",
        *disk(folder / "b.qcow2", node="b", device="scsi-hd", options="bus=vs.0"),
    ]
    arguments += [
        "-device",
        "ich9-ahci,id=sata,addr=4",
        *disk(folder / "c.qcow2", node="c", device="ide-hd", options="bus=sata.0"),
    ]
    arguments += ["-blockdev", f"driver=raw,node-name=cd,read-only=on,file.driver=file,file.filename={iso},file.read-only=on"]
    arguments += ["-device", f"ide-cd,drive=cd,id=cd,bus={CD_BUS[kind]}", "-device", "lsi53c895a,id=lsi,addr=13"]
    for number, model in enumerate(("e1000", "pcnet", "virtio-net-pci", "rtl8139", "e1000e", "vmxnet3"), start=1):
        backend = f"{side}{number}"
        arguments += ["-netdev", f"user,id={backend}", "-device"]
        arguments += [f"{model},netdev={backend},id=nic{number},mac=52:54:00:00:00:0{number},addr={6 + number:#x},romfile="]
    arguments += ["-device", "pcie-root-port,id=rp,chassis=1,addr=10"] if "q35" in kind else []
    arguments += (
        ["-device", "e1000,id=nic7,mac=52:54:00:00:00:07,bus=rp"]
        if "q35" in kind
        else ["-device", "pci-bridge,id=br,chassis_nr=1,addr=10"]
    )
    audio = f"{side}audio"
    arguments += ["-audiodev", f"none,id={audio}", "-device", f"AC97,addr=11,audiodev={audio}"]
    arguments += ["-device", "intel-hda,id=hda,addr=12", "-device", f"hda-duplex,audiodev={audio}"]
    arguments += ["-device", "piix3-usb-uhci,id=uhci,addr=14", "-device", "usb-tablet,bus=uhci.0"]
    arguments += ["-device", "nec-usb-xhci,id=xhci,addr=15", "-device", "usb-kbd,bus=xhci.0"]
    arguments += ["-device", "VGA,id=vga,addr=2", "-device", "virtio-balloon-pci,id=balloon,addr=16"]
    arguments += ["-chardev", f"{'null' if side == 'source' else 'ringbuf'},id={side}serial"]
    arguments += ["-device", f"isa-serial,id=uart1,chardev={side}serial"]
    arguments += ["-device", "isa-fdc,id=fdc"] if "q35" in kind else []
    arguments += ["-device", "floppy,unit=0,id=floppy0"]
    arguments += ["-uuid", f"{'1' if side == 'source' else '2'}1111111-1111-4111-8111-111111111111"]
    return arguments


async def until_paused(guest: QmpGuest) -> None:
    """Waits for the end that the source's arguments give it: the kernel panics for want of a root, QEMU keeps the machine."""
    async with asyncio.timeout(120):
        stops = guest.events("STOP")
        if await guest.status() == "running":
            await anext(stops)
        stops.close()


@pytest.mark.parametrize("kind", ["pc-i440fx-10.0", "pc-q35-10.0"])
def test_nothing_harmless_differs_between_a_machine_that_booted_linux_and_one_that_waits(kind: str, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        image(tmp_path / f"{name}.qcow2")
    (tmp_path / "cd.iso").write_bytes(os.urandom(1 << 20))

    async def scenario() -> None:
        boot = ["-kernel", str(KERNEL), "-append", "panic=-1", "-no-reboot", "-action", "reboot=shutdown,shutdown=pause"]
        source_arguments = [*many_devices(kind, tmp_path, side="source"), *boot]
        async with qemu(tmp_path, "source", *source_arguments) as source:
            await until_paused(source)
            target_arguments = [*many_devices(kind, tmp_path, side="target"), *boot, *WAIT]
            async with qemu(tmp_path, "target", *target_arguments) as target:
                assert "BAR0: I/O at" not in await target.hmp("info pci"), "waits, and has no addresses yet"
                assert "BAR0: I/O at" in await source.hmp("info pci"), "the guest booted"
                here, there = await source.facts(), await target.facts()
                assert compare_facts(here, there, mend_vm="T") == ()
                assert {fact.area for fact in here} == {
                    *("host", "machine", "descriptive", "cpu", "memory", "device", "property", "block"),
                }
                best_ms = min([await timed_ms(target) for _ in range(5)])
                assert best_ms <= 100, "the preflight's budget, on a machine with 50 devices"
                await move(source, target, tmp_path / "stream")
                await source.kill()
                async with qemu(tmp_path, "third", *source_arguments, *WAIT) as third:
                    assert compare_facts(await target.facts(), await third.facts(), mend_vm="T") == (), "nor on its way back"

    asyncio.run(scenario())


async def move(source: QmpGuest, target: QmpGuest, path: Path) -> None:
    """The paused guest goes over by QEMU's own migration."""
    await target.configure_migration({"late-block-activate": True}, {})
    await source.configure_migration({}, {"max-bandwidth": 1 << 40})
    await target.migrate_incoming(f"unix:{path}")
    await source.migrate(f"unix:{path}")
    assert await source.wait_migration() == "completed", (await target.migration()).error
    assert await target.wait_migration() == "completed", await target.migration()
    await target.activate_disks()


async def timed_ms(guest: QmpGuest) -> float:
    begin = time.monotonic()
    await live_facts(guest.execute)
    return (time.monotonic() - begin) * 1e3


def compare_live(folder: Path, here: list[str], there: list[str]) -> tuple[Finding, ...]:
    async def scenario() -> tuple[Finding, ...]:
        async with qemu(folder, "source", *here, "-S") as source, qemu(folder, "target", *there, *WAIT) as target:
            return compare_facts(await source.facts(), await target.facts(), mend_vm="T")

    return asyncio.run(scenario())


def rows(findings: tuple[Finding, ...]) -> dict[str, tuple[str, str]]:
    return {finding.what: (finding.here, finding.there) for finding in findings}


def test_another_cpu_model_shows_with_the_features_that_differ(tmp_path: Path) -> None:
    found = rows(compare_live(tmp_path, machine(cpu="Nehalem"), machine(cpu="qemu64")))
    assert found["cpu model"] == ("Nehalem", "qemu64")
    assert "sse4.2" in found["cpu features"][0]
    assert "svm" in found["cpu features"][1]


def test_a_single_feature_bit_shows(tmp_path: Path) -> None:
    assert compare_live(tmp_path, machine(cpu="Nehalem"), machine(cpu="Nehalem,-popcnt")) == (
        Finding("cpu features", "with popcnt", "without"),
    )


@pytest.mark.parametrize("kind", ["pc-i440fx-10.0", "pc-q35-10.0"])
def test_another_number_of_cpus_shows_with_the_command(kind: str, tmp_path: Path) -> None:
    found = compare_live(tmp_path, machine(kind), machine(kind, smp=2))
    assert Finding("cpu count", "1", "2", "teleport modifyvm T --cpus 1") in found


def test_another_machine_version_shows(tmp_path: Path) -> None:
    found = rows(compare_live(tmp_path, machine("pc-q35-10.0"), machine("pc-q35-9.2")))
    assert found["machine type"] == ("pc-q35-10.0", "pc-q35-9.2")


def test_an_extra_nic_and_an_extra_serial_port_show(tmp_path: Path) -> None:
    nic, serial = ["-device", "e1000,id=nic2,addr=9"], ["-device", "isa-serial,id=uart2,chardev=c", "-chardev", "null,id=c"]
    assert rows(compare_live(tmp_path, machine(), [*machine(), *nic, *serial])) == {
        "device nic2": ("missing", "e1000"),
        "device uart2": ("missing", "isa-serial"),
    }
    assert rows(compare_live(tmp_path, [*machine(), *nic], machine())) == {"device nic2": ("e1000", "missing")}


def test_another_slot_nic_model_memory_and_video_memory_show_at_once(tmp_path: Path) -> None:
    here = [*machine(memory_mib=64), "-device", "e1000,id=nic1,addr=9", "-device", "VGA,id=vga,addr=2,vgamem_mb=16"]
    there = [*machine(memory_mib=96), "-device", "rtl8139,id=nic1,addr=8", "-device", "VGA,id=vga,addr=2,vgamem_mb=32"]
    found = compare_live(tmp_path, here, there)
    assert {
        *(
            Finding("memory size", "64 MiB", "96 MiB", "teleport modifyvm T --memory 64"),
            Finding("property nic1 addr", "09.0", "08.0"),
        ),
        *(Finding("device nic1 driver", "e1000", "rtl8139"), Finding("property vga vgamem_mb", "16", "32")),
    } <= set(found)


def test_another_mac_shows(tmp_path: Path) -> None:
    """The target is started with the source's; an e1000e with another one refuses the stream."""
    here, there = ([*machine(), "-device", f"e1000e,id=nic1,mac=52:54:00:00:00:0{digit}"] for digit in (1, 2))
    assert rows(compare_live(tmp_path, here, there)) == {"property nic1 mac": ("52:54:00:00:00:01", "52:54:00:00:00:02")}


def test_a_smaller_disk_and_an_overlay_against_its_base_show(tmp_path: Path) -> None:
    base = image(tmp_path / "base.qcow2")
    smaller = image(tmp_path / "smaller.qcow2", size="32M")
    overlay = image(tmp_path / "overlay.qcow2", "-b", str(base), "-F", "qcow2")
    assert rows(compare_live(tmp_path, [*machine(), *disk(base)], [*machine(), *disk(smaller)])) == {
        "block disk0 size": ("67108864", "33554432")
    }
    assert rows(compare_live(tmp_path, [*machine(), *disk(overlay)], [*machine(), *disk(base)])) == {
        "block disk0 backing": ("base.qcow2", "")
    }


def test_an_internal_snapshot_shows(tmp_path: Path) -> None:
    plain, snapshotted = image(tmp_path / "plain.qcow2"), image(tmp_path / "snapshotted.qcow2")
    subprocess.run(["qemu-img", "snapshot", "-c", "before update", str(snapshotted)], check=True, timeout=30)
    assert rows(compare_live(tmp_path, [*machine(), *disk(snapshotted)], [*machine(), *disk(plain)])) == {
        "block disk0 snapshots": ("before update", "")
    }


def test_a_raw_disk_against_a_qcow2_one_and_an_empty_drive_show(tmp_path: Path) -> None:
    plain = image(tmp_path / "plain.qcow2")
    raw = ["-blockdev", f"driver=raw,node-name=disk0,file.driver=file,file.filename={plain}"]
    raw += ["-device", "virtio-blk-pci,drive=disk0,id=disk0,addr=5"]
    found = rows(compare_live(tmp_path, [*machine(), *disk(plain)], [*machine(), *raw]))
    assert found["block disk0 format"] == ("qcow2", "raw")
    iso = tmp_path / "cd.iso"
    iso.write_bytes(bytes(1 << 20))
    drive = ["-device", "ide-cd,bus=ide.2,id=cd"]
    loaded = ["-blockdev", f"driver=raw,node-name=iso,read-only=on,file.driver=file,file.filename={iso},file.read-only=on"]
    loaded += ["-device", "ide-cd,bus=ide.2,id=cd,drive=iso"]
    found = rows(compare_live(tmp_path, [*machine(), *loaded], [*machine(), *drive]))
    assert found["block cd medium"] == ("present", "empty")


def test_the_feature_names_are_qemus_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with qemu(tmp_path, "max", *machine(cpu="max"), "-S") as guest:
            path = (await guest.execute("query-cpus-fast"))[0]["qom-path"]
            words = await guest.execute("qom-get", path=path, property="feature-words")
            known = {name for names in FEATURE_NAMES.values() for name in names.split()} - {"-"}
            for name in sorted(known & set(feature_names(words))):
                assert await guest.execute("qom-get", path=path, property=name) is True, name
            for name in sorted(known - set(feature_names(words))):
                assert await guest.execute("qom-get", path=path, property=name) is False, name

    asyncio.run(scenario())


def test_a_dead_qemu_is_an_error_not_a_machine_without_properties(tmp_path: Path) -> None:
    async def scenario() -> tuple[Fact, ...]:
        async with qemu(tmp_path, "dying", *machine(), "-S") as guest:
            await guest.kill()
            return await guest.facts()

    with pytest.raises(Exception, match=r"is gone|closed its monitor"):
        asyncio.run(scenario())
