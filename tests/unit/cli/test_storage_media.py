"""`storageattach` of LUNs and exports: what is wrong is said before anything is looked at, and nothing changes."""

import pytest

from tests.unit.cli.run_cli import Cli

ISCSI = ("--medium", "iscsi", "--server", "san", "--target", "iqn.2026-11.org.example:disk")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--medium", "iscsi", "--target", "iqn.2026-11.org.example:disk"), "--server is missing"),
        (("--medium", "iscsi", "--server", "san"), "--target is missing"),
        (("--medium", "iscsi", "--server", "san", "--target", "disk"), "not an iSCSI name"),
        ((*ISCSI, "--lun", "256"), "is not a number from 0 to 255"),
        ((*ISCSI, "--tport", "0"), "is not a number from 1 to 65535"),
        ((*ISCSI, "--username", "me"), "go together"),
        ((*ISCSI, "--passwordfile", "secret"), "go together"),
        ((*ISCSI, "--password", "secret"), "--passwordfile FILE"),
        ((*ISCSI, "--initiator", "iqn"), "each VM is an initiator of its own"),
        (("--medium", "disk.img", "--server", "san"), "goes with --medium iscsi"),
        (("--medium", "disk.img", "--passwordfile", "secret"), "goes with --medium iscsi"),
        (("--medium", "iscsi://me:secret@san/iqn.2026-11.org.example:disk/0"), "a password must not stand in a URL"),
        (("--medium", "nfs://filer/export/"), "nfs://server/path"),
        (("--medium", "ftp://server/disk"), "use iscsi://, nfs://, nbd:// or a file"),
    ],
)
def test_what_is_wrong_is_refused(cli: Cli, words: tuple[str, ...], reason: str) -> None:
    cli.ok("createvm", "--name", "S", "--register")
    cli.ok("storagectl", "S", "--name", "Disks", "--add", "virtio", "--controller", "VirtioBlk")
    paths = cli.store.find("S").paths
    before = paths.definition.read_bytes()
    said = cli.fails("storageattach", "S", "--storagectl", "Disks", "--port", "0", "--type", "hdd", *words)
    assert reason in said
    assert "secret" not in said.replace("passwordfile", "")
    assert paths.definition.read_bytes() == before
