"""The manual's chapter 7.1.3, line by line."""

import json
import shlex
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from teleport.cli import teleport
from teleport.machines.options import OPTIONS
from teleport.machines.text import parse_definition
from tests.unit.cli.run_cli import Cli
from tests.unit.machines.test_store import ODD_NAMES


def test_step_by_step(cli: Cli) -> None:
    out = cli.ok("createvm", "--name", "Windows XP", "--ostype", "WindowsXP", "--register")
    first, second, third = out.splitlines()
    assert first == "Virtual machine 'Windows XP' is created and registered."
    assert second.startswith("UUID: ")
    file = Path(third.removeprefix("Settings file: '").removesuffix("'"))
    assert "WindowsXP" in cli.ok("list", "ostypes")
    cli.ok("modifyvm", "Windows XP", "--memory", "256", "--acpi", "on", "--boot1", "dvd", "--nic1", "nat")
    made = cli.ok("createhd", "--filename", "WinXP.vdi", "--size", "10000")
    assert "100%" in made
    assert "QCOW2, not VDI" in made
    assert Path("WinXP.vdi").read_bytes()[:4] == b"QFI\xfb"
    cli.ok("storagectl", "Windows XP", "--name", "IDE Controller", "--add", "ide", "--controller", "PIIX4")
    attach = ("storageattach", "Windows XP", "--storagectl", "IDE Controller", "--port", "0")
    cli.ok(*attach, "--device", "0", "--type", "hdd", "--medium", "WinXP.vdi")
    iso = Path("iso.iso").absolute()
    iso.write_bytes(bytes(2048))
    cli.ok(*attach, "--device", "1", "--type", "dvddrive", "--medium", str(iso))
    vm = parse_definition(file.read_bytes(), file)
    assert (vm.ostype, vm.machine.memory_mb, vm.machine.boot[0]) == ("WindowsXP", 256, "dvd")
    assert (vm.nic(1).attachment, vm.nic(1).model) == ("nat", "Am79C970A")
    disk, cd = vm.controllers[0].ordered()
    assert (disk.medium, disk.format) == (str(Path("WinXP.vdi").absolute()), "qcow2")
    assert (cd.type, cd.medium, cd.format) == ("dvddrive", str(iso), "raw")


def test_without_register_it_is_not_listed(cli: Cli) -> None:
    out = cli.ok("createvm", "--name", "S")
    assert cli.ok("list", "vms") == ""
    cli.ok("registervm", out.splitlines()[2].removeprefix("Settings file: '").removesuffix("'"))
    assert cli.ok("list", "vms").startswith('"S" {')


def test_old_spellings(cli: Cli) -> None:
    cli.ok("createvm", "-name", "S", "-register")
    cli.ok("modifyvm", "S", "-memory", "64", "--memory=96", "-description=-memory")
    vm = cli.store.find("S").definition
    assert (vm.machine.memory_mb, vm.description) == (96, "-memory")


def test_options_take_words_that_look_like_options(cli: Cli) -> None:
    cli.ok("createvm", "--name", "-rf", "--register")
    cli.ok("modifyvm", "--description", "--nic1", "--", "-rf")
    assert cli.store.find("-rf").definition.description == "--nic1"


@pytest.mark.parametrize("name", ODD_NAMES)
def test_every_verb_takes_any_name(cli: Cli, name: str) -> None:
    """Also one that looks like an option: VirtualBox takes a verb's first word for the VM, too."""
    cli.ok("createvm", "--name", name, "--register")
    cli.ok("modifyvm", name, "--memory", "64", "--description", "--nic1")
    cli.ok("storagectl", name, "--name", "C", "--add", "ide")
    cli.ok("setextradata", name, "key", "v")
    assert cli.ok("getextradata", name, "key") == "Value: v\n"
    cli.ok("snapshot", name, "take", "one")
    assert "Name: one" in cli.ok("snapshot", name, "list")
    cli.ok("snapshot", name, "delete", "one")
    found = json.loads(cli.ok("showvminfo", name, "--json"))
    assert (found["name"], found["description"], found["memory"]) == (name, "--nic1", "64")
    pasted = shlex.split(cli.fails("controlvm", name, "pause", code=1).rpartition("; ")[2])
    assert pasted == ["teleport", "startvm", name]
    cli.ok("unregistervm", "--delete", "--", name)
    assert cli.ok("list", "vms") == ""


@pytest.mark.parametrize(
    "words",
    ["modifyvm --memory 64", "modifyvm --memory --memory 64", "modifyvm --memory", "showvminfo --details", "startvm --type"],
)
def test_a_name_that_is_an_option_of_the_verb_is_told_of(cli: Cli, words: str) -> None:
    verb, name, *_ = words.split()
    cli.ok("createvm", f"--name={name}", "--register")
    uuid = json.loads(cli.ok("list", "vms", "--json"))[0]["uuid"]
    hint = f"{name} is an option of {verb}: if you mean the VM of that name, write its UUID, {uuid}"
    assert hint in cli.fails(*words.split(), code=2)
    assert name in cli.ok("showvminfo", uuid)


def test_showvminfo_has_virtualboxs_keys(cli: Cli) -> None:
    cli.ok("createvm", "--name", 'S "1"', "--ostype", "Linux26_64", "--register")
    cli.ok("storagectl", 'S "1"', "--name", "SATA", "--add", "sata")
    cli.ok("createhd", "--filename", "d", "--size", "1")
    cli.ok("storageattach", 'S "1"', "--storagectl", "SATA", "--port", "0", "--type", "hdd", "--medium", "d")
    cli.ok("modifyvm", 'S "1"', "--teleporter", "on", "--teleporterport", "6000", "--uart1", "0x3F8", "4")
    cli.ok("modifyvm", 'S "1"', "--uartmode1", "file", "/tmp/a b")
    shown = cli.ok("showvminfo", 'S "1"', "--machinereadable").splitlines()
    for line in (
        'name="S \\"1\\""',
        "memory=1024",
        "cpus=1",
        'VMState="poweroff"',
        'storagecontrollername0="SATA"',
        f'"SATA-0-0"="{Path("d").absolute()}"',
        '"SATA-1-0"="none"',
        'teleporterenabled="on"',
        "teleporterport=6000",
        'nic1="nat"',
        'nictype1="82540EM"',
        'uart1="0x03f8,4"',
        'uartmode1="file,/tmp/a b"',
        'rtcuseutc="on"',
    ):
        assert line in shown, line
    people = cli.ok("showvminfo", 'S "1"')
    assert "UUID:" in people
    assert "1024MB" in people
    assert json.loads(cli.ok("showvminfo", 'S "1"', "--json"))["memory"] == "1024"


def test_a_twin_has_the_same_hardware_and_its_own_identity(cli: Cli) -> None:
    cli.ok("createvm", "--name", "S", "--ostype", "Debian_64", "--register")
    cli.ok("modifyvm", "S", "--teleporter", "on", "--teleporterport", "6000", "--cpus", "2", "--nic2", "null")
    cli.ok("createvm", "--name", "T", "--like", "S", "--register")
    s, t = cli.store.find("S").definition, cli.store.find("T").definition
    assert (t.machine, t.cpu, t.controllers) == (s.machine, s.cpu, s.controllers)
    assert not t.teleporter.enabled
    assert t.uuid != s.uuid
    assert {each.mac for each in t.nics}.isdisjoint(each.mac for each in s.nics)
    cli.fails("createvm", "--name", "U", "--like", "S", "--ostype", "Debian")


@pytest.mark.parametrize(
    "what",
    [
        *("vms", "runningvms", "ostypes", "cpu-profiles", "hdds", "dvds", "floppies", "hostinfo", "hddbackends"),
        *("bridgedifs", "intnets", "systemproperties"),
    ],
)
def test_lists(cli: Cli, what: str) -> None:
    cli.ok("createvm", "--name", "S", "--register")
    assert isinstance(json.loads(cli.ok("list", what, "--json")), list)
    cli.ok("list", what)
    cli.ok("list", what, "--long", "--sorted")


def test_a_broken_vm_is_listed_and_breaks_no_list(cli: Cli) -> None:
    cli.ok("createvm", "--name", "good", "--register")
    cli.ok("createvm", "--name", "bad", "--register")
    cli.store.find("bad").paths.definition.write_text("nonsense")
    result = cli("list", "vms")
    assert result.code == 0
    assert '"<inaccessible>"' in result.out
    assert '"good"' in result.out
    assert "line 1" in result.err
    assert "line 1" in cli.fails("showvminfo", "bad", code=1)
    cli.ok("list", "vms", "--long")
    cli.ok("unregistervm", "bad", "--delete")


def test_media(cli: Cli) -> None:
    cli.ok("createmedium", "disk", "--filename", "a.vmdk", "--size", "4", "--format", "VMDK")
    assert "no (QEMU" in cli.ok("showmediuminfo", "disk", "a.vmdk")
    cli.ok("clonemedium", "disk", "a.vmdk", "b.qcow2")
    cli.ok("modifymedium", "a.vmdk", "--format", "QCOW2", "--resize", "8")
    info = json.loads(cli.ok("showmediuminfo", "a.vmdk", "--json"))
    assert (info["format"], info["capacity_bytes"], info["can_teleport"]) == ("QCOW2", 8 << 20, True)
    cli.ok("closemedium", "disk", "a.vmdk", "--delete")
    assert not Path("a.vmdk").exists()
    assert sorted(each.name for each in Path().iterdir()) == ["b.qcow2"]


def test_a_raw_file_becomes_an_image(cli: Cli) -> None:
    Path("raw").write_bytes(b"QFI\xfb".ljust(1 << 20, b"\1"))  # only looks like QCOW2
    cli.ok("convertfromraw", "raw", "d.vdi", "--format", "VDI")
    cli.ok("clonehd", "d.vdi", "again", "--format", "RAW")
    assert Path("again").read_bytes() == Path("raw").read_bytes()


def test_converting_an_attached_image_changes_its_vms(cli: Cli) -> None:
    cli.ok("createvm", "--name", "S", "--register")
    cli.ok("storagectl", "S", "--name", "SATA", "--add", "sata")
    cli.ok("createhd", "--filename", "d.vdi", "--size", "4", "--format", "VDI")
    result = cli("storageattach", "S", "--storagectl", "SATA", "--port", "1", "--type", "hdd", "--medium", "d.vdi")
    assert "cannot teleport" in result.err
    cli.ok("modifymedium", "disk", "d.vdi", "--format", "qcow2")
    assert cli.store.find("S").definition.controllers[0].attachments[0].format == "qcow2"


def test_forwarded_ports_come_and_go(cli: Cli) -> None:
    cli.ok("createvm", "--name", "S", "--register")
    cli.ok("modifyvm", "S", "--natpf1", "ssh,tcp,,2222,,22", "--natpf1", ",udp,127.0.0.1,53,10.0.2.15,53")
    assert [each.name for each in cli.store.find("S").definition.nic(1).forwards] == ["ssh", "udp_53_53"]
    shown = cli.ok("showvminfo", "S", "--machinereadable").splitlines()
    assert 'Forwarding(0)="ssh,tcp,,2222,,22"' in shown
    cli.ok("modifyvm", "S", "--natpf1", "delete", "ssh", "--natpf1=ssh,tcp,,2223,,22")
    assert [each.host_port for each in cli.store.find("S").definition.nic(1).forwards] == [53, 2223]


def test_a_password_that_nobody_asks_for_is_no_secret(cli: Cli) -> None:
    cli.ok("createvm", "--name", "S", "--register")
    assert "no source is asked" in cli("modifyvm", "S", "--teleporterpassword", "x").err
    assert cli("modifyvm", "S", "--teleporterpassword", "").err == ""


def test_cpuid_overrides_come_and_go(cli: Cli) -> None:
    cli.ok("createvm", "--name", "S", "--register")
    leaf = ("00000001", "000106e5", "00000000", "00882203", "078bf9fd")
    assert cli("modifyvm", "S", "--cpuid-set", *leaf).err == ""
    cli.ok("modifyvm", "S", "--cpuid", "7:0", "0", "0", "0", "0", "--cpuidset", "80000001", "0", "0", "0", "20100800")
    assert [each.leaf for each in cli.store.find("S").definition.cpu.cpuid] == [1, 7, 0x80000001]
    assert 'cpuid="00000001 000106e5 00000000 00882203 078bf9fd, 00000007:0' in cli.ok("showvminfo", "S", "--machinereadable")
    cli.ok("modifyvm", "S", "--cpuid-remove", "7:0")
    cli.ok("modifyvm", "S", "--cpuid-remove-all")
    assert cli.store.find("S").definition.cpu.cpuid == ()
    said = cli("modifyvm", "S", "--cpuid-set", "1", "000106e5", "00100800", "0098e3fd", "bfebfbff").err
    assert "ebx" in said
    assert "QEMU decides" in said


def test_every_device_of_virtualbox(cli: Cli) -> None:
    cli.ok("createvm", "--name", "S", "--ostype", "WindowsXP", "--register")
    cli.ok(
        "modifyvm",
        "S",
        "--usb",
        "on",
        "--usbehci",
        "on",
        "--mouse",
        "usbtablet",
        "--audio",
        "null",
        "--audiocontroller",
        "ac97",
    )
    cli.ok("modifyvm", "S", "--nic2", "bridged", "--bridgeadapter2", "br0", "--nic3", "intnet", "--intnet3", "lab")
    cli.ok("modifyvm", "S", "--firmware", "efi", "--chipset", "ich9", "--nictype2", "Am79C973", "--cableconnected2", "off")
    for name, chip in (
        ("scsi", "LsiLogic"),
        ("sas", "LSILogicSAS"),
        ("floppy", "I82078"),
        ("usb", "USB"),
        ("virtio", "VirtIO"),
    ):
        cli.ok("storagectl", "S", "--name", name, "--add", name, "--controller", chip)
    vm = cli.store.find("S").definition
    assert {each.chip for each in vm.controllers} == {"LsiLogic", "LsiLogicSas", "I82078", "USB", "VirtIO"}
    assert (vm.nic(2).bridge, vm.nic(2).model, vm.nic(3).network) == ("br0", "Am79C970A", "lab")
    cli.ok("createhd", "--filename", "f.img", "--sizebyte", "1474560", "--format", "RAW")
    cli.ok("storageattach", "S", "--storagectl", "floppy", "--device", "0", "--type", "fdd", "--medium", "f.img")
    shown = cli.ok("showvminfo", "S", "--machinereadable").splitlines()
    assert any(line.startswith('"floppy-0-0"=') for line in shown)
    for line in (
        *('usb="on"', 'ehci="on"', 'xhci="off"', 'hidpointing="usbtablet"', 'hidkeyboard="ps2kbd"', 'audio="null"'),
        *('nic1="nat"', 'natnet1="nat"', 'bridgeadapter2="br0"', 'cableconnected2="off"', 'nic3="intnet"', 'intnet3="lab"'),
    ):
        assert line in shown, line
    assert "lab" in cli.ok("list", "intnets")
    cli.ok("storageattach", "S", "--storagectl", "floppy", "--device", "0", "--medium", "emptydrive")


def test_snapshots_are_among_what_showvminfo_shows(cli: Cli) -> None:
    """VirtualBox's keys: a child's node goes on from its parent's."""
    cli.ok("createvm", "--name", "S", "--register")
    for name in ("base", "next"):
        cli.ok("snapshot", "S", "take", name, "--description", f"the {name}")
    shown = cli.ok("showvminfo", "S", "--machinereadable").splitlines()
    uuids = [line.split("=")[1] for line in cli.ok("snapshot", "S", "list", "--machinereadable").splitlines() if "UUID" in line]
    first, second = uuids[0], uuids[1]
    wanted = [
        'SnapshotName="base"',
        f"SnapshotUUID={first}",
        'SnapshotDescription="the base"',
        'SnapshotName-1="next"',
        f"SnapshotUUID-1={second}",
        'SnapshotDescription-1="the next"',
        'CurrentSnapshotName="next"',
        f"CurrentSnapshotUUID={second}",
        'CurrentSnapshotNode="SnapshotName-1"',
    ]
    assert [line for line in shown if "Snapshot" in line] == wanted
    assert json.loads(cli.ok("showvminfo", "S", "--json"))["CurrentSnapshotNode"] == "SnapshotName-1"
    people = cli.ok("showvminfo", "S")
    assert f"   Name: base (UUID: {first.strip(chr(34))})\n" in people
    assert f"      Name: next (UUID: {second.strip(chr(34))}) *\n" in people
    assert "SnapshotName" not in people
    (cli.store.find("S").paths.folder / "snapshots.json").write_text("nonsense")
    assert "are damaged" in cli.ok("showvminfo", "S")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        (("modif",), {"modifyvm", "modifymedium"}),
        (("modifyvm", "--chips"), {"--chipset"}),
        (("modifyvm", "S 1", "--memory", "64", "--chipset", ""), {"piix3", "ich9"}),
        (("modifyvm", "S 1", "--nic1", "n"), {"none", "null", "nat"}),
        (("startvm", "S"), {"S 1"}),
        (("controlvm", "S"), {"S 1"}),
        (("controlvm", "S 1", "paus"), {"pause"}),
        (("list", "runn"), {"runningvms"}),
    ],
)
def test_a_shell_completes_verbs_options_values_and_vms(cli: Cli, line: tuple[str, ...], offered: set[str]) -> None:
    """What the table of options knows is what a shell offers."""
    cli.ok("createvm", "--name", "S 1", "--register")
    *words, begun = line
    found = ShellComplete(teleport, {}, "teleport", "_TELEPORT_COMPLETE").get_completions(words, begun)
    assert {each.value for each in found} == offered


def test_every_choice_of_the_table_is_completed(cli: Cli) -> None:
    shell = ShellComplete(teleport, {}, "teleport", "_TELEPORT_COMPLETE")
    for option in OPTIONS:
        found = shell.get_completions(["modifyvm", "S", option.flag(option.numbers[0])], "")
        assert {each.value for each in found} == set(option.kind.choices), option.name
    assert cli.ok("list", "vms") == ""
