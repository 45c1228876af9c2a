"""The manual's step by step (7.1.3), word for word, with a CD that boots; then that VM teleports (7.2)."""

import time
from pathlib import Path

import pytest
from PIL import Image

from tests.harness.guest import REPOSITORY
from tests.harness.home import Home
from tests.harness.host import Host

pytestmark = pytest.mark.qemu

RESCUE = REPOSITORY / ".cache/rescue"
# What a name may be: 300 characters, a leading dash, a slash, an umlaut, an emoji, words for a shell.
ODD = "-ü/😀 $(reboot) '\"\\ ".ljust(300, "ß")


def _shows_grubs_menu(host: Host, picture: Path) -> bool:
    """GRUB's menu in text mode: a frame whose upper edge goes from one side of the screen to the other, a bar below it."""
    picture.unlink(missing_ok=True)
    host.run("controlvm", host.name, "screenshotpng", picture)
    with Image.open(picture) as image:
        grey = image.convert("L")
        if grey.size != (720, 400):
            return False
        edge = [grey.getpixel((x, 55)) for x in range(40, 680, 20)]
        bar = [grey.getpixel((x, 66)) for x in range(300, 680, 20)]
    return min(map(float, edge + bar)) > 100


def _wait_for_menu(host: Host, picture: Path) -> None:
    deadline = time.monotonic() + 120
    while not _shows_grubs_menu(host, picture):
        assert time.monotonic() < deadline, f"GRUB's menu is not there: see {picture}"
        time.sleep(0.5)


def test_a_cd_boots_and_the_machine_moves(home: Home, second_home: Home, shared_folder: Path, tmp_path: Path) -> None:
    disk, iso = shared_folder / "WinXP.vdi", RESCUE / "grub-rescue-cdrom.iso"
    source, target = Host("Windows XP", home), Host(ODD, second_home)
    for host in (source, target):
        host.run("createvm", "--name", host.name, "--ostype", "WindowsXP", "--register")
        host.run("modifyvm", host.name, "--memory", "256", "--acpi", "on", "--boot1", "dvd", "--nic1", "nat")
        if not disk.exists():
            host.run("createhd", "--filename", disk, "--size", "10000")
        host.run("storagectl", host.name, "--name", "IDE Controller", "--add", "ide", "--controller", "PIIX4")
        attach = ("storageattach", host.name, "--storagectl", "IDE Controller", "--port", "0")
        host.run(*attach, "--device", "0", "--type", "hdd", "--medium", disk)
        host.run(*attach, "--device", "1", "--type", "dvddrive", "--medium", iso)
    source.start()
    _wait_for_menu(source, tmp_path / "source.png")
    source.run("controlvm", source.name, "pause")  # GRUB counts down, and would start something
    outcome = source.teleport(target.wait_for_teleport())
    assert outcome["kind"] == "moved"
    assert target.state == "paused"
    assert _shows_grubs_menu(target, tmp_path / "target.png")
    target.run("controlvm", target.name, "resume")
    assert target.state == "running"
    target.run("controlvm", target.name, "poweroff")
    target.run("unregistervm", target.name, "--delete")
    assert list((second_home.folder / "machines").iterdir()) == []


@pytest.mark.parametrize("chipset", ["piix3", "ich9"])
def test_a_floppy_boots(home: Home, tmp_path: Path, chipset: str) -> None:
    host = Host("-rf", home)
    host.run("createvm", "--name", "-rf", "--ostype", "DOS", "--register")
    host.run("modifyvm", "-rf", "--chipset", chipset, "--boot1", "floppy", "--boot2", "none", "--boot3", "none")
    floppy = tmp_path / "floppy.img"
    floppy.write_bytes((RESCUE / "grub-rescue-floppy.img").read_bytes().ljust(1474560, b"\0"))
    host.run("storagectl", "-rf", "--name", "Floppy", "--add", "floppy", "--controller", "I82078")
    host.run("storageattach", "-rf", "--storagectl", "Floppy", "--device", "0", "--type", "fdd", "--medium", floppy)
    host.start()
    _wait_for_menu(host, tmp_path / "screen.png")
    host.run("controlvm", "-rf", "poweroff")
