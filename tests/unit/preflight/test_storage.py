from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleport.model import Fact, Finding, MediumFact
from teleport.preflight.storage import compare_media, live_block_findings, other_disks, same_samples, snapshot_findings

DISK = MediumFact(
    node="sata-0-0",
    kind="hdd",
    format="qcow2",
    read_only=False,
    virtual_size_bytes=64 << 20,
    size_bytes=200_704,
    path="/here/disk.qcow2",
    identity="boot1/8:1/12",
    proof_file=".proof-x",
    proof_nonce="c",
)
ISO = MediumFact(
    node="ide-1-0",
    kind="dvddrive",
    format="raw",
    read_only=True,
    virtual_size_bytes=1 << 20,
    size_bytes=1 << 20,
    path="/here/cd.iso",
    identity="boot1/8:1/13",
    content="blake3:" + "a" * 64,
)
THERE = replace(DISK, path="/there/disk.qcow2", identity="boot2/8:1/99", size_bytes=5)
ISO_THERE = replace(ISO, path="/there/other.iso", identity="boot2/8:1/98")
PROVED = {"sata-0-0": ""}


def test_the_same_storage_at_another_path_is_the_same() -> None:
    assert compare_media((DISK, ISO), (ISO_THERE, THERE), PROVED) == ()


def test_storage_that_is_not_proved_is_refused() -> None:
    assert compare_media((DISK,), (THERE,), {}) == (
        Finding("medium sata-0-0 storage", "/here/disk.qcow2", "/there/disk.qcow2: it was not proved to be the same storage"),
    )
    (finding,) = compare_media((DISK,), (THERE,), {"sata-0-0": "not the same storage"})
    assert finding.there == "/there/disk.qcow2: not the same storage"


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"kind": "fdd"}, Finding("medium sata-0-0 kind", "hdd", "fdd")),
        ({"format": "raw"}, Finding("medium sata-0-0 format", "qcow2", "raw")),
        ({"read_only": True}, Finding("medium sata-0-0 read-only", "no", "yes")),
        ({"virtual_size_bytes": 32 << 20}, Finding("medium sata-0-0 virtual size", "64 MiB", "32 MiB")),
        ({"problem": "no such file"}, Finding("medium sata-0-0", "usable", "no such file")),
        ({"path": ""}, Finding("medium sata-0-0", "/here/disk.qcow2 (qcow2)", "empty")),
        (
            {"snapshots": ("before", "it's")},
            Finding(
                "medium sata-0-0 internal snapshots", "", "before, it's",
                "teleport clonemedium disk /there/disk.qcow2 /there/disk-flat.qcow2",
            ),
        ),
        (
            {"backing": "/there/base.qcow2"},
            Finding(
                "medium sata-0-0 backing file", "none", "/there/base.qcow2",
                "teleport clonemedium disk /there/disk.qcow2 /there/disk-flat.qcow2",
            ),
        ),
        (
            {"format": "vdi", "path": "/the re/x.vdi"},
            Finding("medium sata-0-0 format", "qcow2", "vdi", "teleport modifymedium disk '/the re/x.vdi' --format QCOW2"),
        ),
    ],
)  # fmt: skip
def test_each_single_difference_of_a_disk_is_exactly_that_finding(change: dict[str, Any], finding: Finding) -> None:
    assert compare_media((DISK,), (replace(THERE, **change),), PROVED) == (finding,)


def test_what_cannot_move_is_refused_though_both_sides_agree() -> None:
    old = replace(DISK, format="vmdk", snapshots=("one",), backing="base.vmdk", path="/s/x.vmdk")
    found = compare_media((old,), (old,), PROVED)
    assert [finding.what.removeprefix("medium sata-0-0 ") for finding in found] == [
        "internal snapshots",
        "backing file",
        "format",
    ]


def test_a_medium_that_one_side_lacks() -> None:
    assert compare_media((DISK, ISO), (THERE,), PROVED) == (Finding("medium ide-1-0", "/here/cd.iso (raw)", "missing"),)


def test_read_only_media_are_the_same_file_or_the_same_size_and_content() -> None:
    other = replace(ISO_THERE, content="blake3:" + "b" * 64)
    assert compare_media((ISO,), (other,), {}) == (
        Finding("medium ide-1-0 content", "/here/cd.iso (blake3 aaaaaaaaaaaa)", "/there/other.iso (blake3 bbbbbbbbbbbb)"),
    )
    assert compare_media((ISO,), (replace(other, identity=ISO.identity),), {}) == ()
    unknown = replace(ISO, content="", identity="")
    assert [finding.what for finding in compare_media((unknown,), (unknown,), {})] == ["medium ide-1-0 content"]
    longer = replace(ISO_THERE, size_bytes=2 << 20)
    assert compare_media((ISO,), (longer,), {}) == (Finding("medium ide-1-0 size", "1 MiB", "2 MiB"),)


def test_empty_drives_and_own_copies_need_no_proof() -> None:
    empty = replace(ISO, path="", format="", content="", identity="", virtual_size_bytes=0, size_bytes=0)
    assert compare_media((empty,), (empty,), {}) == ()
    assert len(compare_media((ISO,), (empty,), {})) == 2  # the format and the size: empty, and 0
    store = replace(DISK, node="nvram", kind="nvram", format="raw")
    assert compare_media((store,), (replace(store, path="/there/vars.fd"),), {}) == ()


def test_own_snapshots_are_refused_by_name_with_the_command() -> None:
    assert snapshot_findings(("before update",), source_vm="my vm") == (
        Finding("snapshot before update", "present", "", "teleport snapshot 'my vm' delete 'before update'"),
    )


def test_the_live_graph_refuses_what_cannot_move() -> None:
    facts = (
        Fact("block", "disk0", "snapshots", "one"), Fact("block", "disk0", "backing", ""), Fact("block", "disk1", "format", "vdi"),
        Fact("block", "disk2", "format", "qcow2"), Fact("cpu", "disk2", "snapshots", "x"),
    )  # fmt: skip
    assert [(finding.what, finding.here) for finding in live_block_findings(facts)] == [
        ("medium disk0 internal snapshots", "one"),
        ("medium disk1 format", "vdi"),
    ]


@pytest.mark.parametrize(
    ("here", "there", "same"),
    [
        ("", "samples:a,b", True),
        ("samples:a,b,-,d", "samples:a,b,-,d", True),
        ("samples:a,b,-,d", "samples:a,b,-,d,e", False),
        ("samples:a,b,c,d,e,f,g,h", "samples:a,b,c,d,e,f,X,Y", True),
        ("samples:a,b,c,d,e,f,g,h", "samples:a,b,c,d,e,X,Y,Z", False),
        ("samples:-,-,-", "samples:-,-,-", True),
        ("samples:a,-,-", "samples:b,-,-", False),
    ],
)
def test_a_disk_in_use_changes_a_little_and_another_disk_nearly_everywhere(here: str, there: str, same: bool) -> None:
    assert same_samples(here, there) is same


media = st.lists(
    st.builds(
        MediumFact, node=st.sampled_from(["a1", "a2", "a10"]), kind=st.sampled_from(["hdd", "dvddrive", "nvram"]),
        format=st.sampled_from(["", "raw", "qcow2", "vdi"]), read_only=st.booleans(), virtual_size_bytes=st.integers(0, 3),
        size_bytes=st.integers(0, 3), path=st.sampled_from(["", "/a", "/b"]), snapshots=st.sampled_from([(), ("s",)]),
        backing=st.sampled_from(["", "/base"]), identity=st.sampled_from(["", "i"]),
        content=st.sampled_from(["", "blake3:aa", "blake3:bb", "samples:a,-", "samples:b,-"]), problem=st.sampled_from(["", "no"]),
    ),
    unique_by=lambda fact: fact.node,
)  # fmt: skip


@given(media, media, st.dictionaries(st.sampled_from(["a1", "a2"]), st.sampled_from(["", "wrong"])))
def test_comparing_media_is_total_and_symmetric(
    here: list[MediumFact], there: list[MediumFact], proofs: dict[str, str]
) -> None:
    forth, back = compare_media(here, there, proofs), compare_media(there, here, proofs)
    assert [finding.what for finding in forth] == [finding.what for finding in back]
    assert all(finding.here or finding.there for finding in forth)


def test_two_disks_that_differ_in_one_quiet_block_are_told_apart() -> None:
    """The source looked before and after the target: what did not change meanwhile must be what the target saw."""
    quiet, busy, zero = "aa", "bb", "-"
    source = replace(DISK, node="lun", content=f"samples:{quiet},{busy},{zero}", path="/dev/a")
    again = {"lun": f"samples:{quiet},cc,{zero}"}
    same = replace(DISK, node="lun", content=f"samples:{quiet},dd,{zero}", path="/dev/b")
    assert other_disks([source], again, [same]) == ()
    other = replace(DISK, node="lun", content=f"samples:ee,{busy},{zero}", path="/dev/b")
    (finding,) = other_disks([source], again, [other])
    assert finding.what == "medium lun content"
    assert "another disk" in finding.there
    written = replace(DISK, node="lun", content=f"samples:{quiet},{busy},ee", path="/dev/b")
    assert len(other_disks([source], again, [written])) == 1
    assert other_disks([source], {"lun": ""}, [other]) == ()
