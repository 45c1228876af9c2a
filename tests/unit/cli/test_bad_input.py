"""Wrong input: the exit code, a message with what is allowed, and nothing changed."""

from pathlib import Path

import pytest

from teleport.cli import ALSO, VERBS
from teleport.cli import REFUSED as REFUSED_VERBS
from teleport.machines.options import OPTIONS, REFUSED
from tests.unit.cli.run_cli import Cli

# Words that each option doesn't take, and what its message says.
WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "name": (("",), "empty"),
    "uuid": (("4711",), "UUID"),
    "ostype": (("WindowsXQ",), "WindowsXP"),
    "description": (("a\0b",), "NUL"),
    "machineversion": (("ten",), "10.0"),
    "chipset": (("ich10",), "piix3 or ich9"),
    "firmware": (("coreboot",), "bios"),
    "memory": (("256MB",), "not a number of MB from 4 to 2097152, digits alone"),
    "ram": (("swap",), "shared"),
    "acpi": (("yes",), "on or off"),
    "ioapic": (("1",), "on or off"),
    "hpet": (("",), "on or off"),
    "rtcuseutc": (("maybe",), "on or off"),
    "accelerator": (("hvf",), "auto, kvm or tcg"),
    "cpus": (("65",), "1 to 64"),
    "cpu-profile": (("host",), "another CPU on every host"),
    "cpuid-portability-level": (("4",), "0 to 3"),
    "cpuid-set": (("4", "0", "0", "0", "0"), "QEMU lets nothing be set in CPUID leaf 4"),
    "cpuid-remove": (("1",), "not overridden"),
    "audio": (("pulse",), "stay with this host"),
    "audiocontroller": (("gus",), "ac97, hda or sb16"),
    "audioout": (("loud",), "on or off"),
    "audioin": (("loud",), "on or off"),
    "usb": (("1",), "on or off"),
    "usbehci": (("1",), "on or off"),
    "usbxhci": (("1",), "on or off"),
    "mouse": (("usbtablet",), "--usbehci on"),
    "keyboard": (("bluetooth",), "ps2 or usb"),
    "cableconnected": (("1",), "on or off"),
    "natpf": (("ssh,tcp,,99999,,22",), "1 to 65535"),
    "bridgeadapter": (("a bridge of too long a name",), "15 characters"),
    "intnet": (("a\nb",), "control"),
    "pae": (("true",), "on or off"),
    "longmode": (("true",), "on or off"),
    "boot": (("usb",), "none, floppy, dvd, disk or net"),
    "kernel": (("a\nb",), "control"),
    "initrd": (("/initrd",), "--kernel"),
    "append": (("quiet",), "--kernel"),
    "graphicscontroller": (("vboxsvga",), "vmsvga"),
    "vram": (("257",), "1 to 256"),
    "monitorcount": (("9",), "1 to 8"),
    "guest-agent": (("qemu",), "on or off"),
    "clipboard": (("both",), "disabled, hosttoguest"),
    "tpm-type": (("2",), "none, 1.2 or 2.0"),
    "ownerfolder": (("a\nb",), "control"),
    "nic": (("nats",), "did you mean nat?"),
    "nictype": (("82543GC",), "82544GC"),
    "macaddress": (("0800",), "12 hexadecimal digits"),
    "uart": (("0x3F8", "99"), "IRQ"),
    "uartmode": (("pipe",), "disconnected"),
    "teleporter": (("1",), "on or off"),
    "teleporterport": (("65536",), "0 to 65535"),
    "teleporteraddress": (("a\nb",), "control"),
    "teleporterpassword": (("a\nb",), "control"),
    "teleporterpasswordfile": (("a\nb",), "control"),
    "vrde": (("yes",), "on"),
    "vrdeport": (("0-99999",), "--vrdeport"),
    "vrdeaddress": (("nowhere.example",), "IP address"),
    "vrdeauthtype": (("pam",), "null, external or guest"),
    "vrdeauthlibrary": (("a\nb",), "--vrdeauthlibrary"),
    "vrdemulticon": (("2",), "on"),
    "vrdereusecon": (("2",), "on"),
    "vrdevideochannel": (("2",), "on"),
    "vrdevideochannelquality": (("5",), "10 to 100"),
    "vrdeextpack": (("a b",), "extension"),
    "vrdeproperty": (("Client/DisableAll=1",), "Client/DisableAudio"),
}


@pytest.fixture
def vm(cli: Cli) -> Cli:
    cli.ok("createvm", "--name", "S", "--ostype", "Linux26_64", "--register")
    return cli


def _file(cli: Cli) -> Path:
    return cli.store.find("S").paths.definition


def test_every_option_has_a_wrong_value_here() -> None:
    assert set(WRONG) == {option.name for option in OPTIONS} - {"cpuid-remove-all"}  # which takes no value


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_refused_and_changes_nothing(vm: Cli, name: str) -> None:
    words, said = WRONG[name]
    number = next(each for each in OPTIONS if each.name == name).numbers[0] or ""
    before = _file(vm).read_bytes()
    message = vm.fails("modifyvm", "S", "--description", "changed", f"--{name}{number}", *words)
    assert said in message
    assert _file(vm).read_bytes() == before


@pytest.mark.parametrize("name", REFUSED)
def test_options_that_we_know_and_do_not_take_say_why(vm: Cli, name: str) -> None:
    before = _file(vm).read_bytes()
    assert REFUSED[name] in vm.fails("modifyvm", "S", f"--{name}", "on")
    assert _file(vm).read_bytes() == before


def test_verbs_that_we_know_and_have_not_say_why(vm: Cli) -> None:
    assert not set(REFUSED_VERBS) & {*VERBS, *ALSO}
    for verb, reason in REFUSED_VERBS.items():
        assert reason in vm.fails(verb, "S")


TWO_SERVERS = (
    "--uart1",
    "0x3F8",
    "4",
    "--uart2",
    "0x2F8",
    "3",
    "--uartmode1",
    "server",
    "/tmp/a",
    "--uartmode2",
    "server",
    "/tmp/a",
)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("modifyvm", "S", "--memry", "1"), "--memory"),
        (("modifyvm", "S", "--nic9", "nat"), "no such option"),
        (("modifyvm", "S", "--memory1", "1"), "no such option"),
        (("modifyvm", "S", "--memory"), "needs a value"),
        (("modifyvm", "S", "--ram", "hugepages", "--memory", "129"), "must be even"),
        (("modifyvm", "S", "--tpm-type", "host"), "cannot move to another host"),
        (("modifyvm", "S", "--uart1", "0x3F8"), "needs 2 values"),
        (("modifyvm", "S", "--uartmode1", "file"), "needs 2 values"),
        (("modifyvm", "S", "--uartmode1", "weird", "word"), "'weird' is not possible"),
        (("modifyvm", "S", "--uartmode1", "server", f"/{'a' * 107}"), "too long for a socket"),
        (("modifyvm", "S", "--uartmode1", "tcpserver", "0"), "not a port from 1"),
        (("modifyvm", "S", *TWO_SERVERS), "two serial ports with server /tmp/a"),
        (("modifyvm", "S", "--macaddress1", "0" * 12), "guests refuse it"),
        (("modifyvm", "S", "--nic1", "bridged"), "--bridgeadapter1"),
        (("modifyvm", "S", "--nic1", "hostonly"), "ip link add vboxnet0 type bridge"),
        (("modifyvm", "S", "--nic1", "generic"), "bridged, or intnet"),
        (("modifyvm", "S", "--nic1", "natnetwork"), "intnet connects VMs"),
        (("modifyvm", "S", "--hostonlyadapter1", "vboxnet0"), "ip link add vboxnet0 type bridge"),
        (("modifyvm", "S", "--lpt1", "0x378", "7"), "--uart1"),
        (("modifyvm", "S", "--lptmode1", "/dev/parport0"), "--uart1"),
        (("controlvm", "S", "nic1", "hostonly", "vboxnet0"), "ip link add vboxnet0 type bridge"),
        (("controlvm", "S", "nic1", "nat", "br0"), "nat takes no name"),
        (("controlvm", "S", "nic1", "nat"), "is not running"),
        (("controlvm", "S", "teleport", "--password", "x"), "no target asks for one yet"),
        (("controlvm", "S", "nic9", "nat"), "no such verb"),
        (("controlvm", "S", "nic1", "bridged", "a", "b"), "one word too many"),
        (("controlvm", "S", "setlinkstate1", "up"), "on or off"),
        (("controlvm", "S", "natpf1", "delete"), "delete NAME"),
        (("controlvm", "S", "natpf1", "ssh,tcp,,22"), "HOSTPORT"),
        (("controlvm", "S", "setvideomodehint", "800", "600", "16"), "32 bits a pixel"),
        (("controlvm", "S", "setvideomodehint", "800", "x"), "not a number of pixels from 64"),
        (("controlvm", "S", "setvideomodehint", "800", "600", "32", "8"), "not a number from 0 to 7"),
        (("controlvm", "S", "setvideomodehint", "800", "600"), "is not running"),
        (("controlvm", "S", "keyboardputscancode", "1c"), "type at the screen"),
        (("controlvm", "S", "frobnicate"), "it has pause, resume, reset"),
        (("controlvm", "S", "frobnicate"), "nic1 to nic8, setlinkstate1 to setlinkstate8"),
        (("startvm", "S", "--type", "gui"), "have no window here"),
        (("startvm", "S", "--type", "sld"), "use headless"),
        (("modifyhd", "d", "--compact"), "clonemedium makes a copy"),
        (("modifyvm", "S", "--natpf1", "delete", "ssh"), "there is no forwarding"),
        (("modifyvm", "S", "--natpf1", "delete"), "needs 2 values"),
        (("modifyvm", "S", "--natpf1", "tcp,22,22"), "HOSTPORT"),
        (("modifyvm", "S", "--natpf1", ",icmp,,1,,1"), "tcp or udp"),
        (("modifyvm", "S", "--natpf1", "a,tcp,h,1,,1"), "not an IPv4 address"),
        (("modifyvm", "S", "--natpf1", "a,tcp,,1,,1", "--natpf1", "a,tcp,,2,,1"), "already"),
        (("modifyvm", "S", "--natpf1", "a,tcp,,1,,1", "--natpf1", "b,tcp,,1,,1"), "one port"),
        (("modifyvm", "S", "--cpuid-set", "1", "0"), "needs 5 values"),
        (("modifyvm", "S", "--cpuid-set", "40000001", "1", "0", "0", "0"), "QEMU tells there how it runs the guest"),
        (("modifyvm", "S", "--cpuid-set", "80000007", "0", "0", "0", "100"), "no guest that has it can migrate"),
        (("modifyvm", "S", "--cpuid-set", "1", "0", "0", "0", "xyz"), "edx"),
        (("modifyvm", "S", "--firmware", "efi32"), "64-bit"),
        (("storagectl", "S", "--name", "C", "--add", "usb"), "--usbehci on"),
        (("storagectl", "S", "--name", "C", "--add", "scsi", "--portcount", "15"), "7 to 7"),
        (("modifyvm", "S"), "no setting was given"),
        (("modifyvm",), "missing argument"),
        (("modifyvm", "S", "extra", "--memory", "64"), "extra"),
        (("modivm",), "did you mean modifyvm?"),
        (("createvm",), "--name"),
        (("createvm", "--name", "X", "--ostype", "Linx26"), "Linux26"),
        (("createvm", "--name", "S"), "exists already"),
        (("createvm", "--name", "X", "--uuid", "1"), "not a UUID"),
        (("createvm", "--name", "a\tb"), "control characters"),
        (("list", "vmz"), "there is no list"),
        (("createhd", "--filename", "d"), "size"),
        (("createhd", "--filename", "d", "--size", "1", "--sizebyte", "1"), "once"),
        (("createhd", "--filename", "d", "--size", "0"), "not a number of MB from 1"),
        (("createhd", "--filename", "d", "--size", "x"), "not a number"),
        (("createhd", "--filename", "d", "--size", "1", "--format", "QED"), "QCOW2"),
        (("createhd", "--filename", "d", "--size", "1", "--variant", "Split2G"), "Fixed"),
        (("createhd", "--filename", "d", "--size", "1", "--format", "VMDK", "--variant", "Fixed"), "VMDK"),
        (("createhd", "--filename", "d", "--sizebyte", "1048577"), "512"),
        (("createhd", "--filename", "", "--size", "1"), "not the path"),
        (("createmedium", "dvd", "--filename", "d", "--size", "1"), "use disk"),
        (("storagectl", "S", "--name", "C"), "nothing to do"),
        (("storagectl", "S", "--name", "C", "--add", "nvme"), "ide"),
        (("storagectl", "S", "--name", "C", "--add", "sata", "--controller", "NVMe"), "migration"),
        (("storagectl", "S", "--name", "C", "--add", "sata", "--controller", "BusLogic"), "QEMU does not have"),
        (("storagectl", "S", "--name", "C", "--add", "sata", "--controller", "PIIX4"), "use IntelAhci"),
        (("storagectl", "S", "--name", "C", "--add", "sata", "--portcount", "30"), "1 to 6"),
        (("storagectl", "S", "--name", "C", "--add", "sata", "--bootable", "1"), "on nor off"),
        (("storagectl", "S", "--name", "C", "--remove"), "none of that name"),
        (("storagectl", "S", "--name", "C", "--add", "sata", "--hostiocache", "on"), "cache"),
        (("storageattach", "S", "--storagectl", "C", "--port", "0", "--medium", "none"), "none of that name"),
        (("closemedium", "disk"), "file"),
        (("closemedium", "a", "b", "c"), "name one image"),
    ],
)
def test_wrong_commands(vm: Cli, words: tuple[str, ...], said: str) -> None:
    before = _file(vm).read_bytes()
    result = vm(*words)
    assert result.code in (1, 2)
    assert said in result.err.splitlines()[-1], result.err
    assert _file(vm).read_bytes() == before
    assert not Path("d").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--port", "6", "--type", "hdd", "--medium", "d"), 2, "0 to 5"),
        (("--type", "hdd", "--medium", "d"), 2, "say which"),
        (("--port", "0", "--device", "1", "--type", "hdd", "--medium", "d"), 2, "0 to 0"),
        (("--port", "0", "--type", "disk", "--medium", "d"), 2, "hdd"),
        (("--port", "0", "--type", "fdd", "--medium", "d"), 2, "takes hdd or dvddrive"),
        (("--port", "0", "--type", "hdd", "--medium", "nowhere"), 1, "no such file"),
        (("--port", "0", "--type", "hdd", "--medium", "."), 2, "neither a file"),
        (("--port", "0", "--type", "hdd", "--medium", "emptydrive"), 2, "cannot be empty"),
        (("--port", "0", "--type", "hdd", "--medium", "host:/dev/sr0"), 2, "shared"),
        (("--port", "0", "--type", "dvddrive", "--medium", "additions"), 2, "additions"),
        (("--port", "0", "--medium", "d"), 2, "say what is attached"),
        (("--port", "0"), 2, "neither"),
        (("--port", "0", "--type", "hdd", "--medium", "d", "--mtype", "immutable"), 2, "normal"),
        (("--port", "0", "--type", "hdd", "--medium", "d", "--passthrough", "on"), 2, "--passthrough"),
        (("--port", "1", "--type", "hdd", "--medium", "e"), 2, "two attachments"),
    ],
)
def test_wrong_attachments(vm: Cli, words: tuple[str, ...], code: int, said: str) -> None:
    vm.ok("storagectl", "S", "--name", "SATA", "--add", "sata")
    vm.ok("createhd", "--filename", "d", "--size", "1")
    vm.ok("createhd", "--filename", "e", "--size", "1")
    vm.ok("storageattach", "S", "--storagectl", "SATA", "--port", "2", "--type", "hdd", "--medium", "e")
    before = _file(vm).read_bytes()
    assert said in vm.fails("storageattach", "S", "--storagectl", "SATA", *words, code=code)
    assert _file(vm).read_bytes() == before


def test_nothing_is_overwritten(vm: Cli) -> None:
    Path("d").write_text("mine")
    assert "exists already" in vm.fails("createhd", "--filename", "d", "--size", "1")
    Path("link").symlink_to("nowhere")
    vm.fails("createhd", "--filename", "link", "--size", "1")
    vm.fails("clonemedium", "d", "d")
    assert Path("d").read_text() == "mine"
    vm.fails("createhd", "--filename", "no/such/folder/d", "--size", "1", code=1)
    assert sorted(each.name for each in Path().iterdir()) == ["d", "link"]


def test_media_in_use_are_not_deleted_and_disks_do_not_shrink(vm: Cli) -> None:
    vm.ok("createhd", "--filename", "d", "--size", "2")
    vm.ok("storagectl", "S", "--name", "SATA", "--add", "sata")
    vm.ok("storageattach", "S", "--storagectl", "SATA", "--port", "0", "--type", "hdd", "--medium", "d")
    assert "'S'" in vm.fails("closemedium", "d", "--delete", code=1)
    assert "cut off" in vm.fails("modifymedium", "d", "--resize", "1")
    vm.fails("modifymedium", "d")
    vm.ok("storageattach", "S", "--storagectl", "SATA", "--port", "0", "--medium", "none")
    assert "its file stays" in vm.ok("closemedium", "d")
    vm.ok("closemedium", "d", "--delete")
    assert not Path("d").exists()


def test_qemu_img_that_is_missing_is_named(vm: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "qemu-utils" in vm.fails("createhd", "--filename", "d", "--size", "1", code=1)


def test_errors_come_as_json_too(vm: Cli) -> None:
    result = vm("list", "nonsense", "--json")
    assert '"event": "error"' in result.out
    assert result.code == 2


def test_a_home_that_cannot_be_written_is_said(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEPORT_HOME", "/proc/self/nowhere")
    assert "TELEPORT_HOME" in cli.fails("createvm", "--name", "S", "--register", code=1)


def test_help_and_version(cli: Cli) -> None:
    assert "modifyvm" in cli.ok("--help")
    assert "teleport" in cli.ok("--version")
    assert cli().code == 2
    shown = cli.ok("modifyvm", "--help")
    assert "--nic<1-8>" in shown
    for option in OPTIONS:
        assert f"--{option.name}" in shown
