"""Two remote disks are one only where that is proved."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleport.model import Finding, MediumFact
from teleport.preflight.lun import RemoteDisk, not_one_disk, remote_disk
from teleport.preflight.storage import compare_media

IQN = "iqn.2026-11.org.example:disk"
LUN = RemoteDisk(kind="iscsi", target=f"{IQN}/1", port=3260, addresses=("192.0.2.7",), host="boot1/1", name="scsi:aa")
LOCAL = replace(LUN, addresses=("127.0.0.1", "::1"))
OWN = replace(LUN, own=True)


@pytest.mark.parametrize(
    ("here", "there", "proved"),
    [
        (LUN, replace(LUN, host="boot2/1"), True),  # by whatever name each side calls the server
        (LUN, replace(LUN, host="boot2/1", addresses=("2001:db8::7", "192.0.2.7"), name=""), True),
        (LOCAL, LOCAL, True),
        (LOCAL, replace(LOCAL, host="boot1/2"), False),  # another network namespace: a server of its own
        (replace(LUN, host="", addresses=("127.0.0.1",)), replace(LUN, host="", addresses=("127.0.0.1",)), False),
        (replace(LUN, addresses=("fe80::1%eth0",)), replace(LUN, addresses=("fe80::1%eth0",), host="boot2/1"), False),
        (replace(LUN, addresses=("::ffff:127.0.0.1",)), replace(LUN, addresses=("::ffff:127.0.0.1",), host="boot2/1"), False),
        (LUN, replace(LUN, addresses=("192.0.2.8",)), False),  # the clone on another server, ...
        (LUN, replace(LUN, port=3261), False),  # ... another port, ...
        (LUN, replace(LUN, target=f"{IQN}/2"), False),  # ... another LUN, ...
        (LUN, replace(LUN, target="iqn.2026-11.org.example:copy/1"), False),  # ... another target
        (LUN, replace(LUN, addresses=()), False),
        (LUN, replace(LUN, name="scsi:bb"), False),  # one place, another disk by now
        (OWN, replace(OWN, addresses=("192.0.2.8",), host="boot2/1"), True),  # another portal of the server
        (OWN, replace(OWN, port=3261, target=f"{IQN}/5"), True),
        (OWN, replace(LUN, port=3261), False),
        (replace(OWN, name=""), replace(OWN, name="", port=3261), False),
        (OWN, replace(OWN, target="iqn.2026-11.org.example:copy/1"), False),
        (LUN, replace(LUN, kind="nbd"), False),
        (replace(LUN, kind="nbd"), replace(LUN, kind="nbd", host="boot2/1"), True),
        (replace(OWN, kind="nbd"), replace(OWN, kind="nbd", port=3261), False),
    ],
)
def test_only_what_is_proved_is_one_disk(here: RemoteDisk, there: RemoteDisk, proved: bool) -> None:
    for one, other in ((here, there), (there, here)):
        assert (not_one_disk(one.text, other.text) == "") is proved


def test_a_clone_is_refused_by_name_with_what_mends_it() -> None:
    reason = not_one_disk(LUN.text, replace(LUN, port=3261).text)
    assert "may be a clone" in reason
    assert "scsi_sn" in reason
    here = MediumFact(
        node="sata-0-0", kind="hdd", format="raw", read_only=False, virtual_size_bytes=1, size_bytes=1, path="iscsi://a/b/1",
        identity=LUN.text, content="samples:a",
    )  # fmt: skip
    there = replace(here, path="iscsi://a:3261/b/1", identity=replace(LUN, port=3261).text)
    proved = {"sata-0-0": ""}  # the owner record's folder is the same: that says nothing about the disk
    assert compare_media((here,), (here,), proved) == ()
    assert compare_media((here,), (there,), proved) == (
        Finding("medium sata-0-0 identity", "iscsi://a/b/1", f"iscsi://a:3261/b/1: {reason}"),
    )
    (finding,) = compare_media((here,), (replace(there, identity="wwid:x", path="/dev/sda"),), proved)
    assert "the same URL on both sides" in finding.there
    other = replace(here, identity=replace(LUN, name="scsi:bb").text)
    assert compare_media((here,), (other,), proved) == (
        Finding("medium sata-0-0 identity", "iscsi://a/b/1 (scsi:aa)", "iscsi://a/b/1 (scsi:bb)"),
    )


@given(st.text(), st.text(), st.integers(0, 65535), st.booleans())
def test_what_is_said_is_what_is_understood(target: str, name: str, port: int, own: bool) -> None:
    disk = replace(LUN, target=target, name=name, port=port, own=own)
    assert remote_disk(disk.text) == disk


@given(st.text())
def test_whatever_a_peer_says_is_no_proof(text: str) -> None:
    assert remote_disk(text) is None
    assert not_one_disk(LUN.text, f"remote:{text}")
