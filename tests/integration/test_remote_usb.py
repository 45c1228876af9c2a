"""Remote USB (manual, 7.1.4) by the real commands: a keyboard in software, shared by a viewer's computer, seen by a Linux guest."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.usb_device import NAME, UsbKeyboard
from tests.harness.guest import REPOSITORY, GuestConsole, Load, guest_image
from tests.harness.home import Home
from tests.harness.host import Host
from tests.harness.namespaces import Cable
from tests.harness.scene import kill_hard, until

pytestmark = pytest.mark.qemu

DISPLAY = ("--vrdeport", "43500-43549", "--vrdeaddress", "127.0.0.1", "--vrde", "on")
LOAD = Load(resident_mb=2, rewrite_mb=2, dirty_mb_s=1)
DEVICE = "1d6b:0104"
HASH = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"  # of "secret"
IN_GUEST = "cat /sys/bus/usb/devices/*-*/uevent /sys/bus/usb/devices/*-*/product 2>/dev/null; true"


class Share:
    """`teleport usb share`, running."""

    def __init__(self, host: Host, keyboard: UsbKeyboard, *options: str) -> None:
        details = host.home.info(host.name)
        self.words = (
            "usb", "share", DEVICE, "--to", f"127.0.0.1:{details['vrdeport']}", "--from", f"127.0.0.1:{keyboard.port}",
            "--fingerprint", details["vrdefingerprint"], *options,
        )  # fmt: skip
        self.process = host.home.start(*self.words)

    def says(self, pattern: str) -> str:
        """The next line; it must match."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert re.search(pattern, line), f"{line!r} is not {pattern!r}"
        return line

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def _sees(keyboard: UsbKeyboard, console: GuestConsole) -> None:
    """The guest has asked the device for its name, and has it configured."""
    until(lambda: re.search(f"PRODUCT=1d6b/104/123 .*{NAME}", console.run(IN_GUEST)), "the guest does not see it", 30)
    assert keyboard.state()[0], "the guest did not reset it"


def _gone(console: GuestConsole) -> None:
    until(lambda: NAME not in console.run(IN_GUEST), "the guest still has it", 30)


def _comes_back_when_it_stays(source: Host, target: Host, port: int, share: Share) -> None:
    """A teleport that is cancelled, then one that fails, since the target's QEMU dies: unplugged before, plugged in again here."""
    for spoil in (lambda: source.run("controlvm", "S", "teleport-cancel"), lambda: kill_hard(*target.home.qemus())):
        words = ("--host", "10.77.0.2", "--port", str(port), "--insecure", "--plan", "raw", "--max-bandwidth", "1000000")
        teleport = source.home.start("controlvm", "S", "teleport", *words)
        share.says("unplugged: the guest is moving")
        spoil()
        assert teleport.wait(60) == 1
        teleport.communicate()
        share.says("plugged into the guest")
        assert source.home.info("S")["USBRemoteState1"] == "Captured"


@pytest.fixture
def cable() -> Iterator[Cable]:
    with Cable() as made:
        yield made


def test_a_shared_keyboard_follows_its_guest(cable: Cable, short_folder: Path) -> None:
    near, far = Home("s", enter=cable.near.enter), Home("t", enter=cable.far.enter)
    source, target = Host("S", near), Host("T", far)
    image = guest_image(REPOSITORY / ".cache/kernel-full")
    shares: list[Share] = []
    try:
        for host in (source, target):
            full = ("--kernel", str(image.kernel), "--initrd", str(image.initrd), "--usbxhci", "on")
            host.define(load=LOAD, memory_mb=160, disk=short_folder / "disk.qcow2", options=full)
        source.run("modifyvm", "S", *DISPLAY, "--vrdeauthtype", "external", "--vrdeauthlibrary", "VBoxAuthSimple")
        source.run("setextradata", "S", "VBoxAuthSimple/users/ann", HASH)
        target.run("usbfilter", "add", 0, "--target", "T", "--name", "all", "--remote", "yes")
        with UsbKeyboard(*cable.near.enter) as keyboard, GuestConsole(source.endpoint, target.endpoint) as console:
            source.start()
            password = short_folder / "password"
            password.write_text("wrong\n")
            login = ("--user", "ann", "--passwordfile", str(password))
            refused = Share(source, keyboard, *login)
            shares.append(refused)
            assert "wrong user or password" in refused.process.communicate(timeout=30)[1]
            password.write_text("secret\n")
            share = Share(source, keyboard, *login)
            shares.append(share)
            share.says(r"not plugged in: no USB filter of the VM fits it")
            console.wait_ready(120)
            _gone(console)

            source.run("usbfilter", "add", 0, "--target", "S", "--name", "kbd", "--vendorid", "1D6B", "--productid", "0104")
            share.says("plugged into the guest")
            _sees(keyboard, console)
            assert near.info("S")["USBRemoteState1"] == "Captured"

            source.run("controlvm", "S", "vrdeproperty", "Client/DisableUSB=1")
            share.says("switched off")
            _gone(console)
            source.run("controlvm", "S", "vrdeproperty", "Client/DisableUSB=")
            share.says("switched on")
            share.says("plugged into the guest")

            port = target.wait_for_teleport("--insecure")
            source.teleport(port, "--insecure", "--dry-run", host="10.77.0.2")
            assert near.info("S")["USBRemoteState1"] == "Captured", "a dry run changes nothing"
            _comes_back_when_it_stays(source, target, port, share)
            _sees(keyboard, console)
            source.teleport(port, "--insecure", host="10.77.0.2")
            share.says("unplugged: the guest is moving")
            share.says("plugged into the guest")
            _sees(keyboard, console)
            assert re.search(rf"USB device {DEVICE}.* unplugged from the guest: the guest is moving", near.logs())
            assert re.search(rf"USB device {DEVICE}.* of client 127.0.0.1:\d+ plugged into the guest", far.logs())

            share.end()
            _gone(console)
            target.run("controlvm", "T", "poweroff")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{near.logs()}\n{far.logs()}") from error
    finally:
        for each in shares:
            each.end()
        for home in (near, far):
            home.end()


def test_on_one_host_it_goes_with_the_display(home: Home, second_home: Home, shared_folder: Path) -> None:
    source, target = Host("S", home), Host("T", second_home)
    for host in (source, target):
        host.define(load=LOAD, memory_mb=128, disk=shared_folder / "disk.qcow2", options=(*DISPLAY, "--usb", "on"))
        host.run("usbfilter", "add", 0, "--target", host.name, "--name", "any")
    with UsbKeyboard() as keyboard:
        source.start()
        share = Share(source, keyboard)
        try:
            share.says("plugged into the guest")
            source.teleport(target.wait_for_teleport(), "--plan", "shared")
            share.says("unplugged: the guest is moving")
            share.says("plugged into the guest")
            assert target.home.info("T")["USBRemoteState1"] == "Captured"
            target.run("controlvm", "T", "savestate")
            share.says("unplugged: the VM's state is being saved")
            share.says("shared no more")
        finally:
            share.end()
