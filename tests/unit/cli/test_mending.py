"""Any setting that differs between two VMs is one finding, and its command, pasted, mends it."""

import asyncio
import shlex
from pathlib import Path

import pytest

from teleport.host.storage import media_facts
from teleport.model import Finding
from teleport.preflight.compare import compare_facts
from teleport.preflight.storage import compare_media
from teleport.runner.facts import attached_media, definition_facts
from tests.unit.cli.run_cli import Cli

# A change of the source by `modifyvm`, and the settings that then differ.
CHANGES: tuple[tuple[str, set[str]], ...] = (
    ("--machineversion 10.1", {"machineversion"}),
    ("--chipset ich9", {"chipset"}),
    ("--firmware efi", {"firmware"}),
    ("--memory 768", {"memory"}),
    ("--acpi off", {"acpi"}),
    ("--ioapic off", {"ioapic"}),
    ("--hpet on", {"hpet"}),
    ("--rtcuseutc off", {"rtcuseutc"}),
    ("--cpus 2", {"cpus"}),
    ("--cpu-profile Westmere", {"cpu-profile"}),
    ("--cpuid-portability-level 1", {"cpuid-portability-level"}),
    ("--cpuid-set 1 000106e5 0 0 0", {"cpuid-set"}),
    ("--pae off", {"pae"}),
    ("--longmode off", {"longmode"}),
    ("--boot1 net", {"boot1"}),
    ("--boot4 floppy", {"boot4"}),
    ("--graphicscontroller vmsvga", {"graphicscontroller"}),
    ("--graphicscontroller none", {"graphicscontroller", "vram"}),
    ("--vram 64", {"vram"}),
    ("--monitorcount 2", {"monitorcount"}),
    ("--guest-agent on", {"guest-agent"}),
    ("--tpm-type 2.0", {"tpm-type"}),
    ("--audio null", {"audio", "audiocontroller"}),
    ("--usb on", {"usb"}),
    ("--usbehci on", {"usbehci"}),
    ("--usbxhci on --mouse usbtablet --keyboard usb", {"usbxhci", "mouse", "keyboard"}),
    ("--nic1 none", {"nic1", "nictype1", "cableconnected1"}),
    ("--nic1 bridged --bridgeadapter1 'br0'", {"nic1"}),
    ("--nic1 intnet --intnet1 'my lab'", {"nic1"}),
    ("--nic8 nat --nictype8 virtio", {"nic8", "nictype8", "cableconnected8"}),
    ("--nictype1 rtl8139", {"nictype1"}),
    ("--cableconnected1 off", {"cableconnected1"}),
    ("--uart1 0x3F8 4", {"uart1"}),
    ("--uart4 0x2E8 11", {"uart4"}),
    ("--kernel /boot/vmlinuz --append 'quiet {vm} $x'", {"kernel", "append"}),
    ("--kernel /boot/vmlinuz --initrd '/boot/the initrd'", {"kernel", "initrd"}),
    # and what is merely descriptive differs freely
    ("--name Source --description text --uuid 5a1d8f7e-0000-4000-8000-000000000001", set()),
    ("--macaddress1 auto --ostype WindowsXP --ram private --accelerator tcg", set()),
    ("--uartmode1 file /tmp/a --uartmode2 server /tmp/b --natpf1 ,tcp,,2222,,22", set()),
    ("--teleporter on --teleporterport 6000 --teleporteraddress 127.0.0.1 --teleporterpassword p", set()),
    ("--audioin on --audioout off", set()),
    ("--vrde on --vrdeport 5000 --vrdeauthtype external", set()),
)
TARGET = "the target's"


def _findings(cli: Cli, source: str) -> tuple[Finding, ...]:
    here = definition_facts(cli.store.find(source).definition)
    there = definition_facts(cli.store.find(TARGET).definition)
    return compare_facts(here, there, mend_vm=TARGET)


def _pasted(cli: Cli, findings: tuple[Finding, ...]) -> None:
    for finding in findings:
        for command in filter(None, finding.mend.split(" && ")):
            words = shlex.split(command)
            assert words[0] == "teleport"
            cli.ok(*words[1:])


@pytest.fixture
def twins(cli: Cli) -> Cli:
    cli.ok("createvm", "--name", "S", "--ostype", "Linux26_64", "--register")
    cli.ok("createvm", "--name", TARGET, "--like", "S", "--register")
    assert _findings(cli, "S") == ()
    return cli


@pytest.mark.parametrize(("change", "differs"), CHANGES)
@pytest.mark.parametrize("changed", ["the source", "the target"])
def test_a_difference_is_found_by_name_and_mended(twins: Cli, change: str, differs: set[str], changed: str) -> None:
    uuid = twins.store.find("S").uuid
    twins.ok("modifyvm", uuid if changed == "the source" else TARGET, *shlex.split(change))
    if changed == "the target" and "--name" in change:
        return
    source = next(each.name for each in twins.store.all() if each.name != TARGET)
    findings = _findings(twins, source)
    found = {each.what for each in findings}
    assert differs <= found
    assert bool(differs) == bool(found)
    for each in findings:  # what else differs is only there on one side, because of that
        assert each.what in differs or "missing" in (each.here, each.there)
    _pasted(twins, findings)
    assert _findings(twins, source) == ()


def test_storage_is_mended_too(twins: Cli) -> None:
    twins.ok("createhd", "--filename", "a disk.qcow2", "--size", "1")
    twins.ok("createhd", "--filename", "other.qcow2", "--size", "1")
    Path("cd.iso").write_bytes(bytes(2048))
    twins.ok("modifyvm", "S", "--usbehci", "on")
    for name, add in (("my 'SATA'", "sata"), ("IDE", "ide"), ("USB", "usb")):
        twins.ok("storagectl", "S", "--name", name, "--add", add)
    attach = ("storageattach", "S", "--storagectl", "my 'SATA'", "--port")
    twins.ok(*attach, "0", "--type", "hdd", "--medium", "a disk.qcow2")
    twins.ok(*attach, "1", "--type", "dvddrive", "--medium", "cd.iso")
    twins.ok(*attach, "2", "--type", "dvddrive", "--medium", "emptydrive")
    twins.ok("storagectl", TARGET, "--name", "Floppies", "--add", "floppy")
    twins.ok("storagectl", TARGET, "--name", "SCSI", "--add", "scsi")
    twins.ok("storageattach", TARGET, "--storagectl", "SCSI", "--port", "3", "--type", "hdd", "--medium", "other.qcow2")
    findings = _findings(twins, "S")
    whats = {each.what for each in findings}
    assert {"controller sata", "controller ide", "controller floppy", "controller scsi", "usbehci", "sata-0-0"} <= whats
    _pasted(twins, tuple(each for each in findings if "missing" not in (each.here,)))
    assert _findings(twins, "S") == ()
    vm = twins.store.find(TARGET).definition
    assert {each.bus for each in vm.controllers} == {"sata", "ide", "usb"}


def test_another_medium_is_mended(twins: Cli) -> None:
    for vm, name in (("S", "the disk"), (TARGET, "other")):
        twins.ok("createhd", "--filename", f"{name}.qcow2", "--size", "1")
        for suffix in ("iso", "kernel"):
            Path(f"{name}.{suffix}").write_bytes(name.encode().ljust(4096, b"\0"))
        twins.ok("storagectl", vm, "--name", "SATA", "--add", "sata", "--portcount", "2")
        place = ("storageattach", vm, "--storagectl", "SATA", "--port")
        twins.ok(*place, "0", "--type", "hdd", "--medium", f"{name}.qcow2")
        twins.ok(*place, "1", "--type", "dvddrive", "--medium", f"{name}.iso")
        twins.ok("modifyvm", vm, "--kernel", str(Path(f"{name}.kernel").absolute()))
    findings = _media_findings(twins, proof="not the same storage")
    assert [each.what for each in findings] == ["medium kernel content", "medium sata-0-0 storage", "medium sata-1-0 content"]
    assert all(each.mend for each in findings)
    _pasted(twins, findings)
    assert _media_findings(twins, proof="") == ()


def _media_findings(cli: Cli, *, proof: str) -> tuple[Finding, ...]:
    async def look() -> tuple[Finding, ...]:
        here, there = [await media_facts(attached_media(cli.store.find(vm).definition)) for vm in ("S", TARGET)]
        return compare_media(here, there, {"sata-0-0": proof}, mend_vm=TARGET)

    return asyncio.run(look())


def test_a_controller_of_another_shape_is_mended(twins: Cli) -> None:
    twins.ok("storagectl", "S", "--name", "SATA", "--add", "sata", "--portcount", "4")
    twins.ok("storagectl", TARGET, "--name", "other name", "--add", "sata", "--bootable", "off")
    findings = _findings(twins, "S")
    assert "controller sata" in {each.what for each in findings}
    _pasted(twins, tuple(each for each in findings if each.here != "missing"))
    assert _findings(twins, "S") == ()


@pytest.mark.parametrize(
    ("bus", "add", "ports"),
    [("sata", "sata", 2), ("sas", "sas", 1), ("virtio-scsi", "virtio", 3), ("virtio-blk", "virtio --controller VirtioBlk", 1)],
)
def test_disks_beyond_the_source_s_ports_are_detached_before_these_go(twins: Cli, bus: str, add: str, ports: int) -> None:
    """Every command of the table, pasted from top to bottom, works: there is none to leave out, and none too many."""
    for vm, count in (("S", ports), (TARGET, 6)):
        twins.ok("storagectl", vm, "--name", f"{vm} disks", "--add", *add.split(), "--portcount", str(count))
    for number in (0, 3, 5):
        twins.ok("createhd", "--filename", f"{number}.qcow2", "--size", "1")
        attach = ("storageattach", TARGET, "--storagectl", bus, "--port", str(number), "--type", "hdd")
        twins.ok(*attach, "--medium", f"{number}.qcow2")
    findings = _findings(twins, "S")
    (controller,) = (each for each in findings if each.what.startswith("controller"))
    detached = [words for words in controller.mend.split(" && ") if "--medium none" in words]
    assert [shlex.split(words)[6] for words in detached] == ["3", "5"]
    _pasted(twins, findings)
    assert _findings(twins, "S") == ()
    mended = twins.store.find(TARGET).definition
    assert [(each.port_count, each.attachments) for each in mended.controllers] == [(ports, ())]


def test_only_a_number_of_ports_differs(twins: Cli) -> None:
    for vm, count in (("S", "2"), (TARGET, "4")):
        twins.ok("storagectl", vm, "--name", "Disks", "--add", "sata", "--portcount", count)
    findings = _findings(twins, "S")
    assert [(each.here, each.there) for each in findings if each.mend] == [("IntelAhci, 2 ports", "IntelAhci, 4 ports")]
    _pasted(twins, findings)
    assert _findings(twins, "S") == ()
