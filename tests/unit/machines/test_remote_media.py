"""URLs of LUNs and NFS exports: what is taken, how it is written down, and what QEMU is given."""

import json
import os
import re
from pathlib import Path

import pytest

from teleport.errors import StorageError, UsageError
from teleport.machines.passwords import password_file
from teleport.machines.remote_media import (
    IscsiLun,
    NbdExport,
    NfsFile,
    canonical,
    needs_owner_folder,
    parse,
    protocol_node,
    tool_words,
)

IQN = "iqn.2026-11.org.example:disk"


@pytest.mark.parametrize(
    ("url", "medium"),
    [
        (f"iscsi://san/{IQN}/3", IscsiLun("san", IQN, lun=3)),
        (f"iscsi://reader@10.0.0.1:13260/{IQN}/0", IscsiLun("10.0.0.1", IQN, port=13260, user="reader")),
        (f"iscsi://a%40b@[fe80::1]/{IQN}/1", IscsiLun("fe80::1", IQN, lun=1, user="a@b")),
        ("nfs://filer/export/a%20b.qcow2", NfsFile("filer", "/export/a b.qcow2")),
        ("nbd://server:10810/vm", NbdExport("server", "vm", port=10810)),
        ("nbd://server/", NbdExport("server")),
    ],
)
def test_a_url_and_its_medium_say_the_same(url: str, medium: IscsiLun | NfsFile | NbdExport) -> None:
    assert parse(url) == medium
    assert medium.url == url
    assert canonical(url) == url


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (f"iscsi://user:secret@san/{IQN}/1", "password"),
        (f"iscsi://san/{IQN}", "iscsi://server/target/lun"),
        (f"iscsi://san/{IQN}/300", "from 0 to 255"),
        ("iscsi://san/disk/1", "not an iSCSI name"),
        (f"iscsi://san:99999/{IQN}/1", "not a URL"),
        (f"iscsi:///{IQN}/1", "not the name or address"),
        (f"iscsi://a,b/{IQN}/1", "not the name or address"),
        ("nfs://filer/export/", "nfs://server/path"),
        ("nfs://filer:2049/export/disk", "neither a port nor a user"),
        ("nfs://filer/disk?uid=0", "not taken"),
        ("http://server/disk.qcow2", "use iscsi://, nfs://, nbd:// or a file"),
    ],
)
def test_a_wrong_url_is_refused_with_the_reason(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)) as error:
        parse(url)
    assert "secret" not in str(error.value)


def test_qemu_is_given_a_node_and_never_a_password() -> None:
    lun = f"iscsi://reader@san/{IQN}/1"
    assert protocol_node(lun, initiator="vm", secret="secret-1") == {
        "driver": "iscsi",
        "transport": "tcp",
        "portal": "san:3260",
        "target": IQN,
        "lun": 1,
        "initiator-name": "iqn.2008-11.org.linux-kvm:teleport-vm",
        "user": "reader",
        "password-secret": "secret-1",
    }
    assert protocol_node("nfs://filer/a b", initiator="vm")["path"] == "/a b"
    assert protocol_node("/dev/vg/lv", initiator="vm")["driver"] == "host_device"
    assert protocol_node("/disk.img", initiator="vm") == {"driver": "file", "filename": "/disk.img"}
    words = tool_words(lun, image_format="raw", initiator="vm", secret_file="/proc/self/fd/7")
    assert words[:2] == ["--object", "secret,id=password,file=/proc/self/fd/7"]
    assert json.loads(words[2].removeprefix("json:"))["file"]["password-secret"] == "password"
    assert tool_words("nfs://filer/disk", image_format="", initiator="vm") == ["nfs://filer/disk"]


def test_only_a_file_can_have_something_beside_it() -> None:
    assert [needs_owner_folder(medium) for medium in (f"iscsi://s/{IQN}/0", "nfs://f/d", "/dev/sdb", "/srv/disk")] == [
        True,
        True,
        True,
        False,
    ]


def test_a_password_is_the_first_line_and_goes_through_a_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_bytes(b"s3cret \r\nanother line\n")
    with password_file(str(path)) as (name, descriptors):
        assert os.pread(descriptors[0], 100, 0) == b"s3cret "
        assert name == f"/proc/self/fd/{descriptors[0]}"
        assert os.get_inheritable(descriptors[0])
    with password_file("") as (name, descriptors):
        assert (name, descriptors) == ("", ())
    path.write_bytes(b"\n")
    with pytest.raises(UsageError, match="is empty"), password_file(str(path)):
        pass
    with pytest.raises(StorageError, match="No such file"), password_file(str(tmp_path / "none")):
        pass
