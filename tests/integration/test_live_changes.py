"""A machine that runs is changed, and machine, definition and the next host agree: network, link, media."""

import contextlib
import socket
from pathlib import Path

import pytest

from teleport.machines.definition import Definition
from teleport.machines.text import parse_definition
from tests.harness.guest import Load
from tests.harness.scene import Scene, until

pytestmark = pytest.mark.qemu

LOAD = Load(resident_mb=4, rewrite_mb=4, dirty_mb_s=2, disk=True)
_READ = "cat /sys/class/net/e*/carrier"
# A drive says once or twice that its medium has changed, and the read that hears it fails: as with a real one.
_MEDIUM = "for try in 1 2 3 4 5; do head -c 5 /dev/sr0 2>/dev/null && break; usleep 200000; done"


def _image(folder: Path, word: str) -> Path:
    image = folder / f"{word}.iso"
    image.write_bytes(word.encode() + bytes(512 * 1024 - len(word)))
    return image


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_open(port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Changed:
    """Live changes of the VM at `here`, each looked at in its definition and in the guest."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._file = scene.here.home.folder / "machines" / scene.here.name / "definition.toml"

    def run(self, *words: str | Path) -> None:
        name = self.scene.here.name
        self.scene.here.run(words[0], name, *words[1:])

    def fails(self, *words: str | Path) -> str:
        """Says why; the definition is as it was, byte for byte."""
        host = self.scene.here
        before = self._file.read_bytes()
        ran = host.run(words[0], host.name, *words[1:], check=False)
        assert ran.code in (1, 2), ran
        assert self._file.read_bytes() == before
        return ran.err

    @property
    def definition(self) -> Definition:
        return parse_definition(self._file.read_bytes(), self._file)

    @property
    def cd(self) -> str:
        ide = self.definition.controller("ide")
        assert ide
        return ide.attachments[0].medium

    def medium(self) -> str:
        return self.scene.console.run(_MEDIUM)

    def attach(self, medium: Path | str, *more: str) -> tuple[str | Path, ...]:
        place = ("--storagectl", "IDE", "--port", "1", "--device", "0")
        return ("storageattach", *place, "--medium", medium, *more)


def test_what_was_changed_while_it_ran_holds_at_the_next_host(shared_folder: Path) -> None:
    first, second, third = (_image(shared_folder, word) for word in ("first", "other", "third"))
    with Scene(load=LOAD, memory_mb=128, cd=first) as scene:
        changed = Changed(scene)
        console = scene.console
        _network(changed)
        _media(changed, second, third)
        changed.run("controlvm", "setlinkstate1", "off")
        assert not changed.definition.nic(1).cable
        assert console.run(_READ) == "0"

        port = scene.wait_there()
        refused = scene.here.run("controlvm", scene.here.name, "teleport", "--host", "localhost", "--port", port, check=False)
        assert refused.code == 1
        assert "cableconnected1" in refused.err
        scene.there.run("modifyvm", scene.there.name, "--cableconnected1", "off")
        place = ("--storagectl", "IDE", "--port", 1, "--device", 0)
        scene.there.run("storageattach", scene.there.name, *place, "--medium", third)
        with scene.begin(port, "--plan", "raw", "--max-bandwidth", "30000000") as teleport:
            teleport.copying()
            assert "a teleport is under way" in changed.fails("controlvm", "setlinkstate1", "on")
            assert "a teleport is under way" in changed.fails(*changed.attach(second))
            assert teleport.end() == 0, teleport.error
        scene.swap()
        changed = Changed(scene)
        assert console.run(_READ) == "0"
        assert changed.medium() == "third"
        changed.run("controlvm", "setlinkstate1", "on")
        assert console.run(_READ) == "1"
        assert console.net()
        _cut_off(changed, second)


def _network(changed: Changed) -> None:
    console, port = changed.scene.console, _free_port()
    changed.run("controlvm", "natpf1", f"probe,tcp,127.0.0.1,{port},,7")
    assert _is_open(port)
    assert [each.name for each in changed.definition.nic(1).forwards] == ["probe"]
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as other:
        taken = other.getsockname()[1]
        assert "cannot be had" in changed.fails("controlvm", "natpf1", f"taken,tcp,127.0.0.1,{taken},,7")
    changed.run("controlvm", "nic1", "intnet", "lab")
    assert (changed.definition.nic(1).attachment, changed.definition.nic(1).network) == ("intnet", "lab")
    assert not _is_open(port)
    assert console.run(_READ) == "1"
    assert not console.net()
    changed.run("controlvm", "nic1", "null")
    assert console.run(_READ) == "0"
    assert "no such interface" in changed.fails("controlvm", "nic1", "bridged", "nosuchbr0")
    changed.run("controlvm", "nic1", "nat")
    assert _is_open(port)
    assert console.run(_READ) == "1"
    assert console.net()
    changed.run("controlvm", "natpf1", "delete", "probe")
    assert not _is_open(port)


def _media(changed: Changed, second: Path, third: Path) -> None:
    console = changed.scene.console
    assert changed.medium() == "first"
    changed.run(*changed.attach(second))
    assert changed.cd == str(second)
    assert changed.medium() == "other"
    console.run("sleep 10000 < /dev/sr0 > /dev/null 2>&1 3>&- & echo begun")
    assert "--forceunmount" in changed.fails(*changed.attach(third))
    assert changed.medium() == "other"
    changed.run(*changed.attach("emptydrive", "--forceunmount"))
    assert changed.cd == ""
    assert console.run(_MEDIUM) == ""
    console.run("busybox killall sleep")
    changed.run(*changed.attach(third))
    assert changed.medium() == "third"
    disk = ("--storagectl", "Disks", "--port", "0", "--device", "0", "--medium", "none")
    assert "cannot leave" in changed.fails("storageattach", *disk)


def _cut_off(changed: Changed, second: Path) -> None:
    """Where the definition cannot be written, or the agent dies before, the machine becomes again what its definition says."""
    scene = changed.scene
    scene.arm(scene.here, "live.save=raise:the disk is full")
    assert "the disk is full" in changed.fails(*changed.attach(second))
    assert "the disk is full" in changed.fails("controlvm", "nic1", "intnet", "lab")
    assert changed.medium() == "third"
    assert scene.console.net()
    scene.arm(scene.here, "live.save=kill")
    assert scene.here.run("controlvm", scene.here.name, "setlinkstate1", "off", check=False).code == 1
    scene.arm(scene.here, "")
    until(lambda: scene.here.state == "running", "no successor")
    assert changed.definition.nic(1).cable
    until(
        lambda: scene.console.run(_READ) == "1", "the successor did not settle the change"
    )  # `running` was said before it came
    changed.run(*changed.attach(second))
    assert changed.medium() == "other"
