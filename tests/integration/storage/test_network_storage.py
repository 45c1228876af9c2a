"""One guest with a disk of every kind that two hosts share over a network: refused while any differs, moved when all are the same.

iSCSI and NFS through QEMU's own drivers, SMB and SSH through FUSE mounts (one a host), a block device (a loop device a host stands
for an LV or LUN), a CD and a floppy in read-only folders.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness.guest import GuestConsole, Load
from tests.harness.home import Home
from tests.harness.host import Host
from tests.integration.storage import servers

pytestmark = pytest.mark.qemu
PASSWORD = "correct-horse-battery"
IQN = "iqn.2026-11.org.example:disk"
DISK_BYTES = 16 << 20
ISCSI, NFS, SMB, SSH, DEVICE = range(5)


@dataclass(frozen=True)
class Storage:
    """What the two hosts see, and the files behind it."""

    folder: Path
    iscsi: servers.Tgt
    other_iscsi: servers.Tgt
    password_file: Path
    nfs: str
    smb: tuple[Path, Path]
    ssh: tuple[Path, Path]
    devices: tuple[Path, Path]
    other_device: Path
    read_only: tuple[Path, Path]

    @property
    def owner(self) -> Path:
        return self.folder / "owner"


@dataclass(frozen=True)
class Scene:
    source: Host
    target: Host
    storage: Storage
    console: GuestConsole


def random_file(path: Path, size_bytes: int = DISK_BYTES) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(os.urandom(size_bytes))
    return path


def almost_a_copy(path: Path, name: str) -> Path:
    """A disk of the same size whose first megabytes are the same."""
    content = bytearray(path.read_bytes())
    content[9 << 20 : 10 << 20] = os.urandom(1 << 20)
    other = path.with_name(name)
    other.write_bytes(content)
    return other


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    folder = tmp_path_factory.mktemp("storage")
    lun, raw = random_file(folder / "lun.raw"), random_file(folder / "device.raw")
    for name in ("nfs", "smb", "ssh"):
        (folder / name).mkdir()
        servers.run("qemu-img", "create", "-q", "-f", "qcow2", folder / name / "disk.qcow2", DISK_BYTES)
    (folder / "still").mkdir()
    random_file(folder / "still/cd.iso", 2 << 20)
    random_file(folder / "still/other.iso", 2 << 20)
    random_file(folder / "still/floppy.img", 1474560)
    password_file = folder / "password"
    password_file.write_text(PASSWORD + "\n")
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        iscsi, other_iscsi = enter(servers.tgt(folder)), enter(servers.tgt(folder))
        iscsi.target(1, IQN, lun, user="reader", password=PASSWORD)
        copy = folder / "other-lun.raw"
        copy.write_bytes(lun.read_bytes())
        other_iscsi.target(1, IQN, copy, user="reader", password=PASSWORD, serial="another")
        name, address = enter(servers.namespace())
        enter(servers.nfs(folder, name, address, folder / "nfs"))
        enter(servers.smb(folder, name, address, folder / "smb"))
        port = enter(servers.sshd(folder))
        yield Storage(
            folder=folder,
            iscsi=iscsi,
            other_iscsi=other_iscsi,
            password_file=password_file,
            nfs=f"nfs://{address}{folder}/nfs/disk.qcow2",
            smb=(
                enter(servers.smb_mount(folder, folder / "m1", address)),
                enter(servers.smb_mount(folder, folder / "m2", address)),
            ),
            ssh=(
                enter(servers.ssh_mount(folder, folder / "s1", port, folder / "ssh")),
                enter(servers.ssh_mount(folder, folder / "s2", port, folder / "ssh")),
            ),
            devices=(enter(servers.loop_device(raw)), enter(servers.loop_device(raw))),
            other_device=enter(servers.loop_device(almost_a_copy(raw, "other-device.raw"))),
            read_only=(
                enter(servers.ssh_mount(folder, folder / "r1", port, folder / "still", read_only=True)),
                enter(servers.ssh_mount(folder, folder / "r2", port, folder / "still", read_only=True)),
            ),
        )


def attach(host: Host, port: int, *medium: str | Path | int, check: bool = True) -> str:
    """A disk at a port of the virtio controller; what was said."""
    words = ("storageattach", host.name, "--storagectl", "Disks", "--port", port, "--type", "hdd", "--medium", *medium)
    return host.run(*words, check=check).err


def iscsi_words(server: servers.Tgt, storage: Storage) -> tuple[str | Path | int, ...]:
    words = ("iscsi", "--server", "127.0.0.1", "--tport", server.port, "--target", IQN, "--lun", 1)
    return (*words, "--username", "reader", "--passwordfile", storage.password_file)


def define(host: Host, storage: Storage, side: int) -> None:
    host.define(load=Load(resident_mb=8, rewrite_mb=4, dirty_mb_s=5, disk=True), memory_mb=128)
    host.run("storagectl", host.name, "--name", "Disks", "--add", "virtio", "--controller", "VirtioBlk")
    host.run("storagectl", host.name, "--name", "IDE", "--add", "ide")
    host.run("storagectl", host.name, "--name", "Floppy", "--add", "floppy")
    # Nothing can lie beside a LUN, an export or a device: the owner record's folder is asked for.
    for port, medium in (
        (ISCSI, iscsi_words(storage.iscsi, storage)),
        (NFS, (storage.nfs,)),
        (DEVICE, (storage.devices[side],)),
    ):
        said = attach(host, port, *medium, check=False)
        assert "--ownerfolder FOLDER" in said, said
    attach(host, ISCSI, *iscsi_words(storage.iscsi, storage), "--ownerfolder", storage.owner)
    attach(host, NFS, storage.nfs)
    attach(host, SMB, storage.smb[side] / "disk.qcow2")
    attach(host, SSH, storage.ssh[side] / "disk.qcow2")
    attach(host, DEVICE, storage.devices[side])
    still = storage.read_only[side]
    host.run(
        "storageattach",
        host.name,
        "--storagectl",
        "IDE",
        "--port",
        1,
        "--device",
        0,
        "--type",
        "dvddrive",
        "--medium",
        still / "cd.iso",
    )
    floppy = ("--storagectl", "Floppy", "--device", 0, "--type", "fdd", "--medium", still / "floppy.img")
    said = host.run("storageattach", host.name, *floppy).err
    assert "write-protected" in said


@pytest.fixture(scope="module")
def scene(storage: Storage) -> Iterator[Scene]:
    homes = [Home("sa"), Home("sb")]
    try:
        source, target = Host("S", homes[0]), Host("T", homes[1])
        define(source, storage, 0)
        define(target, storage, 1)
        source.start()
        with GuestConsole(source.endpoint, target.endpoint) as console:
            console.wait_ready(120)
            yield Scene(source, target, storage, console)
    finally:
        for home in homes:
            home.end()


def test_a_password_is_in_no_command_line_and_no_log(scene: Scene) -> None:
    home = scene.source.home
    assert len(home.qemus()) == 1
    assert not any(PASSWORD in command for command in home.processes().values())
    assert PASSWORD not in home.logs()
    for path in home.folder.rglob("*"):
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes(), path


def test_another_vm_on_the_same_storage_cannot_start(scene: Scene) -> None:
    ran = scene.target.run("startvm", "T", check=False)
    assert ran.code == 1
    assert "belongs to VM 'S'" in ran.err


def test_every_disk_that_is_another_one_is_refused_by_name(scene: Scene) -> None:
    """Same name, other server; same size and beginning, other disk: all at once, before anything moves."""
    target, storage = scene.target, scene.storage
    elsewhere = storage.folder / "elsewhere"
    elsewhere.mkdir()
    for name in ("nfs", "smb", "ssh"):
        (elsewhere / name).mkdir()
        (elsewhere / name / "disk.qcow2").write_bytes((storage.folder / name / "disk.qcow2").read_bytes())
    (storage.folder / "nfs/other").mkdir()
    (storage.folder / "nfs/other/disk.qcow2").write_bytes((storage.folder / "nfs/disk.qcow2").read_bytes())
    attach(target, ISCSI, *iscsi_words(storage.other_iscsi, storage))
    attach(target, NFS, storage.nfs.replace("/nfs/disk", "/nfs/other/disk"))
    attach(target, SMB, elsewhere / "smb/disk.qcow2")
    attach(target, SSH, elsewhere / "ssh/disk.qcow2")
    attach(target, DEVICE, storage.other_device)
    cd = ("--storagectl", "IDE", "--port", 1, "--device", 0, "--type", "dvddrive", "--medium")
    target.run("storageattach", "T", *cd, storage.read_only[1] / "other.iso")
    port = target.wait_for_teleport()
    ran = scene.source.run(
        "controlvm", "S", "teleport", "--host", "localhost", "--port", port, "--dry-run", "--json", check=False
    )
    assert ran.code == 1, ran
    for node in (*(f"virtio-blk-{number}-0" for number in range(5)), "ide-1-0"):
        assert f"medium {node}" in ran.out, (node, ran.out)
    assert f"medium virtio-blk-{ISCSI}-0 identity" in ran.out
    assert f"medium virtio-blk-{DEVICE}-0 content" in ran.out
    target.run("controlvm", "T", "poweroff")
    assert scene.source.state == "running"

    attach(target, ISCSI, *iscsi_words(storage.iscsi, storage))
    attach(target, NFS, storage.nfs)
    attach(target, SMB, storage.smb[1] / "disk.qcow2")
    attach(target, SSH, storage.ssh[1] / "disk.qcow2")
    attach(target, DEVICE, storage.devices[1])
    target.run("storageattach", "T", *cd, storage.read_only[1] / "cd.iso")


def write(console: GuestConsole, block: int, text: str) -> None:
    for letter in "bcde":
        console.run(
            f"echo {text}-{letter} | busybox dd of=/dev/vd{letter} bs=4096 seek={block} conv=fsync,notrunc 2>/dev/null", 60
        )


def read(console: GuestConsole, block: int) -> list[str]:
    console.run("echo 3 > /proc/sys/vm/drop_caches")
    lines = (
        console.run(f"busybox dd if=/dev/vd{letter} bs=4096 skip={block} count=1 2>/dev/null | busybox head -n 1", 60)
        for letter in "bcde"
    )
    return [line.strip("\0") for line in lines]


def test_the_guest_moves_with_all_of_them_and_writes_on(scene: Scene) -> None:
    console, storage = scene.console, scene.storage
    before = console.check("before")
    write(console, 1000, "before")
    cd_sum = console.run("busybox md5sum < /dev/sr0")
    port = scene.target.wait_for_teleport()
    scene.source.teleport(port)
    assert scene.target.state == "running"
    console.wait_for_tick(60, endpoint="T", count=20)
    assert console.continuity(0).is_whole
    assert read(console, 1000) == [f"before-{letter}" for letter in "bcde"]
    assert console.run("busybox md5sum < /dev/sr0") == cd_sum
    write(console, 2000, "after")
    assert read(console, 2000) == [f"after-{letter}" for letter in "bcde"]
    assert console.disk() > 0  # the LUN, written all the time
    check = console.check("after")
    assert check.ok
    assert check.digest == before.digest
    assert not console.corruption
    scene.target.run("controlvm", "T", "poweroff")
    assert scene.source.state == "teleported"

    files = [(storage.folder / name / "disk.qcow2", "qcow2") for name in ("nfs", "smb", "ssh")]
    for (path, image_format), letter in zip([*files, (storage.folder / "device.raw", "raw")], "bcde", strict=True):
        if image_format == "qcow2":
            servers.run("qemu-img", "check", "-q", path)
        for block, word in ((1000, "before"), (2000, "after")):
            dump = servers.run("qemu-io", "-r", "-f", image_format, "-c", f"read -v {block * 4096} 512", path)
            assert f"{word}.{letter}"[:5] in dump.replace("\n", ""), (path, dump[:200])
    assert b"TELEPORT " in (storage.folder / "lun.raw").read_bytes()[: 4 << 20]


def test_a_server_that_is_gone_is_said_when_it_is_attached(scene: Scene) -> None:
    said = attach(
        scene.source, ISCSI, "iscsi", "--server", "127.0.0.1", "--tport", servers.free_port(), "--target", IQN, check=False
    )
    assert "iscsi://127.0.0.1" in said
    assert "Failed to connect" in said or "refused" in said, said
    wrong = scene.storage.folder / "wrong"
    wrong.write_text("not the password")
    words = [*iscsi_words(scene.storage.iscsi, scene.storage)]
    words[-1] = wrong
    said = attach(scene.source, ISCSI, *words, check=False)
    assert "teleport: error: looking at iscsi://reader@127.0.0.1" in said
