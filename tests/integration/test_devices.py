"""Every device that a machine can have, in use by a guest that moves: each disk written, each adapter's packet answered, before and after.

Three machines hold them all between them: booting a guest is what takes time.
"""

import contextlib
import os
import select
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import pytest

from teleport.machines.adapters import NicModel
from tests.harness import sb16, tpm
from tests.harness.guest import REPOSITORY, GuestConsole, Load, guest_image
from tests.harness.home import Home
from tests.harness.host import Host
from tests.harness.proof import proven_move
from tests.harness.scene import until
from tests.harness.ticker import SocketServer
from tests.unit.cli.run_cli import Cli

pytestmark = pytest.mark.qemu

FULL_KERNEL = REPOSITORY / ".cache/kernel-full"
LOAD = Load(resident_mb=4, rewrite_mb=4, dirty_mb_s=2, disk=True)
SEEN = "cat /sys/bus/pci/devices/*/uevent | grep PCI_ID | tr '\\n' ' '"
MODELS: tuple[NicModel, ...] = get_args(NicModel)
AHEAD_HOURS = 5
SCREENS = {"S": (1000, 700), "T": (1120, 840)}  # asked for at each host
FLOPPY_BYTES = 1474560
EVERY_BUS = {
    "ide": ("ide", "PIIX4", 0),
    "sata": ("sata", "IntelAhci", 3),
    "scsi": ("scsi", "LsiLogic", 6),
    "sas": ("sas", "LsiLogicSas", 2),
    "virtio-scsi": ("virtio", "VirtIO", 9),
    "virtio-blk": ("virtio", "VirtioBlk", 1),
    "usb": ("usb", "USB", 2),
}


@dataclass(frozen=True)
class Machine:
    """`settings` (`modifyvm`), `disks` by bus (`storagectl --add`, `--controller`, port), adapters 1 to 8, the last two of which are
    on one internal network."""

    settings: str
    nics: tuple[NicModel, ...]
    disks: dict[str, tuple[str, str, int]] = field(default_factory=lambda: EVERY_BUS)
    floppy: bool = True
    line: str = "server"  # the mode of port 2, where the test speaks to the guest; port 1 is the console, in a file
    far_ends: tuple[str, ...] = ()  # the modes of ports 3 and 4
    neighbours: tuple[tuple[int, int], ...] = ((7, 8), (8, 7))  # adapters on one internal network


MACHINES = {
    "piix3": Machine(
        "--chipset piix3 --rtcuseutc off --cpus 2 --hpet on --vram 32 --usb on --usbehci on --usbxhci on --mouse usbtablet --keyboard usb "
        "--audio null --audiocontroller ac97 --tpm-type 1.2",
        nics=MODELS, far_ends=("client", "device"),
    ),
    "ich9": Machine(
        "--chipset ich9 --rtcuseutc on --graphicscontroller vmsvga --usb on --usbehci on --mouse usbtablet "
        "--audio null --audiocontroller hda --tpm-type 2.0",
        nics=MODELS[::-1], line="tcpserver", far_ends=("tcpclient",),
    ),
    "efi": Machine(
        "--chipset ich9 --rtcuseutc on --firmware efi --boot1 disk --usb on --mouse usbtablet --graphicscontroller virtio "
        "--audio null --audiocontroller sb16 --tpm-type 2.0",
        nics=("virtio", "vmxnet3"),
        disks={bus: EVERY_BUS[bus] for bus in ("ide", "virtio-scsi", "virtio-blk")},
        floppy=False, neighbours=(),
    ),
}  # fmt: skip


class Disks:
    """The images, each of a size of its own: by that the guest tells which is which."""

    def __init__(self, folder: Path, machine: Machine) -> None:
        folder.mkdir()
        self.images: dict[str, Path] = {}
        sizes = {bus: (10 + at) << 20 for at, bus in enumerate(machine.disks)}
        for bus, size_bytes in (sizes | ({"floppy": FLOPPY_BYTES} if machine.floppy else {})).items():
            self.images[bus] = folder / f"{bus}.raw"
            self.images[bus].touch()
            os.truncate(self.images[bus], size_bytes)

    def sectors(self) -> set[str]:
        return {str(image.stat().st_size // 512) for image in self.images.values()}

    def last_words(self) -> dict[str, str]:
        """What the guest wrote into each one's last 4 KiB, as this host finds it."""
        return {bus: image.read_bytes()[-4096:].decode().split()[0] for bus, image in self.images.items()}


class InUse:
    """What the guest does with its devices."""

    def __init__(self, console: GuestConsole, machine: Machine) -> None:
        self._run = console.run
        self._machine = machine

    def write(self, word: str) -> set[str]:
        """`word` to the end of each disk and floppy; the sizes of those that then hold it, in sectors."""
        # a floppy says how long it is only once it was read
        each = "cd /sys/block; for d in [sv]d* fd*; do [ -e $d ] || continue; read -r s < $d/size; [ $d = fd0 ] && s=2880"
        self._run(
            f"({each}; printf '%-4096s' {word} | busybox dd of=/dev/$d bs=512 seek=$((s - 8)) conv=fsync,notrunc 2>/dev/null; done; :)",
            60,
        )
        self._run("echo 3 > /proc/sys/vm/drop_caches")
        read = "set -- $(busybox dd if=/dev/$d bs=512 skip=$((s - 8)) count=8 2>/dev/null)"
        return set(self._run(f"({each}; {read}; [ $1 = {word} ] && echo $s; done; :)", 60).split())

    def answered(self) -> set[int]:
        """The adapters that somebody answered: QEMU's gateway, or on the internal network the neighbour there."""
        # The askers' own addresses are nobody's: a system answers no question that seems to come from itself.
        up = (
            "echo 1 > /proc/sys/net/ipv4/ip_nonlocal_bind; for i in /sys/class/net/*; do read -r a < $i/address; "
            "case $a in 08:00:27:00:00:0*) k=${a##*:0}; eval n$k=${i##*/}; "
            "busybox ip link set ${i##*/} up; busybox ip addr add 10.9.$k.1/32 dev ${i##*/} 2>/dev/null;; esac; done"
        )
        ends = dict.fromkeys(range(1, len(self._machine.nics) + 1), "10.0.2.2")
        ends |= {asker: f"10.9.{neighbour}.1" for asker, neighbour in self._machine.neighbours}
        asked = " ".join(f"{number}:{end}" for number, end in ends.items())
        ask = (
            f"for q in {asked}; do k=${{q%:*}}; eval i=\\$n$k; "
            "busybox arping -f -q -c 5 -w 5 -I $i -s 10.9.9.$k ${q#*:} >/dev/null 2>&1 && echo $k; done"
        )
        return {int(number) for number in self._run(f"{up}; {ask}; :", 60).split()}

    def sound_ms(self) -> int:
        """How long the card takes to play half a second."""
        self._run("load_snd_pcm_oss; for try in 1 2 3 4 5 6 7 8 9; do ls /dev/dsp && break; busybox usleep 300000; done")
        began, ended = self._run(
            "cut() { busybox cut -d' ' -f1 /proc/uptime; }; cut; busybox dd if=/dev/zero of=/dev/dsp bs=400 count=10 2>/dev/null; cut"
        ).split()  # OSS's default: 8000 bytes a second
        return round((float(ended) - float(began)) * 1000)

    def clock_ahead_hours(self) -> int:
        """Of UTC: the hardware clock."""
        return round((int(self._run("cat /sys/class/rtc/rtc0/since_epoch")) - time.time()) / 3600)

    def screen(self) -> str:
        """The size that the guest's driver prefers, WIDTHxHEIGHT. It is asked to look: by itself it may do so before its card answers."""
        return self._run("cd /sys/class/drm/card*-*; echo detect > status; read -r best < modes; echo $best")

    def tablet_is_set_up_again(self) -> None:
        """Its configuration is taken from the tablet and given back: the controller carries what that takes, and an input device comes."""
        self._run(
            "for t in /sys/bus/usb/devices/*/product; do read -r p < $t; [ \"$p\" = 'QEMU USB Tablet' ] && d=${t%/*}; done; "
            "echo 0 > $d/bConfigurationValue; ls $d:1.0 2>/dev/null && exit 1; echo 1 > $d/bConfigurationValue; "
            "for try in 1 2 3 4 5 6 7 8 9; do ls -d $d:1.0/0003:*/input/input* && break; busybox usleep 300000; done"
        )


class FarEnd:
    """Who is at the other end of a serial port on one host, where that is not QEMU: `words` are those of --uartmode."""

    def __init__(self, mode: str, folder: Path, name: str) -> None:
        self._mode = mode
        self.words: tuple[str, ...]
        if mode == "device":
            self._read_from, self._device = os.openpty()
            self.words = (os.ttyname(self._device),)
        else:
            self._listener = socket.socket(socket.AF_UNIX if mode == "client" else socket.AF_INET)
            self._listener.bind(str(folder / f"{name}.{mode}") if mode == "client" else ("127.0.0.1", 0))
            self._listener.listen()
            place = self._listener.getsockname()
            self.words = (mode, place if mode == "client" else f"127.0.0.1:{place[1]}")
            self._read_from = -1
        self._heard = b""

    def hears(self, word: str) -> bool:
        """Within half a minute."""
        deadline = time.monotonic() + 30
        while word.encode() not in self._heard and time.monotonic() < deadline:
            source = self._read_from if self._read_from >= 0 else self._listener.fileno()
            if not select.select([source], [], [], 1)[0]:
                continue
            if source == self._read_from:
                self._heard += os.read(source, 4096)
            else:
                self._read_from = self._listener.accept()[0].detach()
        return word.encode() in self._heard

    def close(self) -> None:
        if self._read_from >= 0:
            os.close(self._read_from)
        if self._mode == "device":
            os.close(self._device)
        else:
            self._listener.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Bench:
    """Both VMs in one home, alike but for where their serial ports lead, and all that the test holds of them."""

    def __init__(self, machine: Machine, home: Home, disks: Disks, cli: Cli) -> None:
        self.machine = machine
        self.hosts = [Host(name, home) for name in "ST"]
        self.far_ends: dict[str, list[FarEnd]] = {
            host.name: [FarEnd(mode, home.folder, host.name) for mode in machine.far_ends] for host in self.hosts
        }
        endpoints = []
        self._define(cli, disks)
        cli.ok("createvm", "--name", "T", "--like", "S", "--register")
        for host in self.hosts:
            if machine.line == "tcpserver":
                port = free_port()
                line, endpoint = str(port), SocketServer(port, host.name)
            else:
                line, endpoint = str(host.serial), host.endpoint
            endpoints.append(endpoint)
            ports = [("file", str(host.console_log)), (machine.line, line), *(each.words for each in self.far_ends[host.name])]
            for number, words in enumerate(ports, 1):
                cli.ok("modifyvm", host.name, f"--uartmode{number}", *words)
        self.console = GuestConsole(*endpoints)

    def _define(self, cli: Cli, disks: Disks) -> None:
        machine = self.machine
        image = guest_image(FULL_KERNEL)
        cli.ok("createvm", "--name", "S", "--ostype", "Linux26_64", "--register")
        cli.ok("modifyvm", "S", "--memory", "256", *machine.settings.split())
        cli.ok("modifyvm", "S", "--kernel", str(image.kernel), "--initrd", str(image.initrd), "--append", LOAD.command_line())
        pairs = {number for pair in machine.neighbours for number in pair}
        for number, model in enumerate(machine.nics, 1):
            to = ("intnet", f"--intnet{number}", disks.images["ide"].parent.name) if number in pairs else ("nat",)
            cli.ok(
                "modifyvm",
                "S",
                f"--nic{number}",
                *to,
                f"--nictype{number}",
                model,
                f"--macaddress{number}",
                f"08002700000{number}",
            )
        for number, words in enumerate(
            (("0x3F8", "4"), ("0x2F8", "3"), ("0x3E8", "5"), ("0x2E8", "7"))[: 2 + len(machine.far_ends)], 1
        ):
            cli.ok("modifyvm", "S", f"--uart{number}", *words)
        for bus, (add, chip, port) in machine.disks.items():
            cli.ok("storagectl", "S", "--name", bus, "--add", add, "--controller", chip)
            place = ("--storagectl", bus, "--port", str(port), "--device", "0", "--type", "hdd")
            cli.ok("storageattach", "S", *place, "--medium", str(disks.images[bus]))
        if machine.floppy:
            cli.ok("storagectl", "S", "--name", "floppy", "--add", "floppy")
            place = ("--storagectl", "floppy", "--port", "0", "--device", "0", "--type", "fdd")
            cli.ok("storageattach", "S", *place, "--medium", str(disks.images["floppy"]))

    def close(self) -> None:
        for ends in self.far_ends.values():
            for end in ends:
                end.close()


@pytest.fixture
def cli(home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Commands in this process: it takes many to define machines, and each costs a start of Python otherwise."""
    monkeypatch.setenv("TELEPORT_HOME", str(home.folder))
    return Cli(home.folder, capsys)


@pytest.mark.parametrize("name", MACHINES)
def test_a_guest_moves_with_its_devices(name: str, home: Home, shared_folder: Path, cli: Cli) -> None:
    machine = MACHINES[name]
    disks = Disks(shared_folder / name, machine)
    home.environment["TZ"] = f"AHEAD-{AHEAD_HOURS}"  # a host whose local time is not UTC
    with contextlib.closing(Bench(machine, home, disks, cli)) as bench, bench.console as console:
        source, target = bench.hosts
        source.start()
        console.wait_ready(200)
        use = InUse(console, machine)
        until(lambda: use.write("first") == disks.sectors(), "not every disk came")  # USB's come late

        def all_work(host: Host, word: str) -> None:
            assert use.write(word) == disks.sectors()
            assert use.answered() == set(range(1, len(machine.nics) + 1))
            for number, end in enumerate(bench.far_ends[host.name], 2):
                console.run(f"echo {word} > /dev/ttyS{number}")
                assert end.hears(word), end.words
            console.run(f"echo {word} > /dev/ttyS0")
            until(lambda: word in host.console_log.read_text(errors="replace"), "the console's file has not what was said")
            assert use.clock_ahead_hours() == (0 if "--rtcuseutc on" in machine.settings else AHEAD_HOURS)
            if "sb16" in machine.settings:
                sb16.play(console)
            else:
                assert use.sound_ms() > 300  # at its own pace, not at once
            use.tablet_is_set_up_again()
            if "--graphicscontroller virtio" in machine.settings:
                width, height = SCREENS[host.name]
                host.run("controlvm", host.name, "setvideomodehint", width, height, 32)
                until(lambda: use.screen() == f"{width}x{height}", "the guest's screen does not follow")

        all_work(source, "before")
        extend = tpm.extend_1 if "--tpm-type 1.2" in machine.settings else tpm.extend
        extend(console)
        first = tpm.pcr(console)
        cpus, seen = console.run("busybox nproc"), console.run(SEEN)
        proven_move(source, target, console, console.check("before"), options=("--plan", "shared"))
        assert (console.run("busybox nproc"), console.run(SEEN)) == (cpus, seen)
        assert tpm.pcr(console) == first
        extend(console)
        assert tpm.pcr(console) not in ("", first)
        all_work(target, "after")
        target.run("controlvm", "T", "poweroff")
    assert set(disks.last_words().values()) == {"after"}
