"""What a side finds out about its media and the proof that two sides see the same ones: with qemu-img and real files."""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from teleport.host import storage
from teleport.host.storage import AttachedMedium, content_digest, device_samples, media_facts
from teleport.host.storage_proofs import StorageProofs
from teleport.model import Finding, MediumFact
from teleport.preflight.proofs import Role
from teleport.preflight.storage import compare_media

pytestmark = pytest.mark.qemu


def image(path: Path, *options: str, size: str = "16M", format_name: str = "qcow2") -> Path:
    subprocess.run(["qemu-img", "create", "-q", "-f", format_name, *options, str(path), size], check=True, timeout=30)
    return path


def disk(path: Path, *, node: str = "disk0", format_name: str = "qcow2") -> AttachedMedium:
    return AttachedMedium(node=node, kind="hdd", format=format_name, read_only=False, path=str(path))


def iso(path: Path | str, *, node: str = "cd") -> AttachedMedium:
    return AttachedMedium(node=node, kind="dvddrive", format="raw", read_only=True, path=str(path))


def fact_of(medium: AttachedMedium) -> MediumFact:
    (fact,) = asyncio.run(media_facts((medium,)))
    return fact


async def compare(source: list[AttachedMedium], target: list[AttachedMedium]) -> tuple[Finding, ...]:
    """Both sides' whole exchange, as the runners make it."""
    ours, theirs = StorageProofs("epoch", Role.SOURCE, seek_seconds=0.3), StorageProofs("epoch", Role.TARGET, seek_seconds=0.3)
    try:
        here = await ours.write(source, await media_facts(source))
        there = await theirs.write(target, await media_facts(target))
        answers_of_target, problems_of_target = await theirs.answer(here, target)
        answers_of_source, problems_of_source = await ours.answer(there, source)
        seen_by_source = {
            node: wrong or problems_of_source.get(node, "") for node, wrong in ours.judge(answers_of_target).items()
        }
        seen_by_target = {
            node: wrong or problems_of_target.get(node, "") for node, wrong in theirs.judge(answers_of_source).items()
        }
        assert {node for node, wrong in seen_by_source.items() if wrong} == {
            node for node, wrong in seen_by_target.items() if wrong
        }
        return compare_media(here, there, seen_by_source)
    finally:
        await ours.cleanup()
        await theirs.cleanup()


def test_the_facts_of_a_disk_and_of_an_iso(tmp_path: Path) -> None:
    path = image(tmp_path / "disk.qcow2")
    fact = fact_of(disk(path))
    assert (fact.format, fact.virtual_size_bytes, fact.size_bytes, fact.problem) == ("qcow2", 16 << 20, path.stat().st_size, "")
    assert fact.identity.endswith(f"/{path.stat().st_ino}")
    assert fact.content == ""
    cd = tmp_path / "cd.iso"
    cd.write_bytes(os.urandom(3 << 20))
    fact = fact_of(iso(cd))
    assert (fact.format, fact.virtual_size_bytes, fact.problem) == ("raw", 3 << 20, "")
    assert fact.content.startswith("blake3:")
    assert fact_of(iso("")) == MediumFact("cd", "dvddrive", "raw", True, 0, 0, "")


def test_the_image_of_a_running_guest_can_be_looked_at_and_an_unnamed_format_is_probed(tmp_path: Path) -> None:
    path = image(tmp_path / "disk.qcow2")
    with subprocess.Popen(
        ["qemu-nbd", "-t", "-f", "qcow2", "-k", str(tmp_path / "nbd"), str(path)], stdin=subprocess.DEVNULL
    ) as holder:  # takes the image's lock as a guest does
        try:
            while not (tmp_path / "nbd").exists():
                assert holder.poll() is None
            assert fact_of(disk(path)).problem == ""
            assert fact_of(disk(path, format_name="")).format == "qcow2"
        finally:
            holder.kill()


def test_snapshots_and_backing_files_are_seen(tmp_path: Path) -> None:
    base = image(tmp_path / "base.qcow2")
    subprocess.run(["qemu-img", "snapshot", "-c", "before update", str(base)], check=True, timeout=30)
    overlay = image(tmp_path / "overlay.qcow2", "-b", "base.qcow2", "-F", "qcow2")
    assert fact_of(disk(base)).snapshots == ("before update",)
    assert fact_of(disk(overlay)).backing == str(base)


def test_each_medium_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "text").write_text("not an image")
    os.mkfifo(tmp_path / "pipe")
    reasons = {
        "missing.qcow2": "no such file",
        "folder": "is a folder, not an image",
        "dangling": "is a link to a file that is missing",
        "text": "Image is not in qcow2 format",
        "pipe": "is neither a file nor a block device",
        "text/inside": "Not a directory",
    }
    for name, reason in reasons.items():
        problem = fact_of(disk(tmp_path / name)).problem
        assert problem == f"{tmp_path / name}: {reason}", name


def test_an_image_without_permission_says_so(tmp_path: Path) -> None:
    path = image(tmp_path / "disk.qcow2")
    path.chmod(0o000)
    script = f"""
import asyncio, os
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
from teleport.host.storage import AttachedMedium, media_facts
medium = AttachedMedium(node="disk0", kind="hdd", format="qcow2", read_only=False, path={str(path)!r})
print(asyncio.run(media_facts((medium,)))[0].problem)
"""
    import teleport.host.storage  # noqa: F401, PLC0415 - compiled now, for a user that may not write its cache

    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    shutil.copy("/dev/null", tmp_path / "out")
    python = Path(__file__).parents[2] / ".venv/bin/python"
    result = subprocess.run([str(python), "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout.strip() == f"{path}: cannot be written by this user: Permission denied", result.stderr


def test_one_disk_under_two_paths_is_proved_and_the_proofs_go_away(tmp_path: Path) -> None:
    path = image(tmp_path / "disk.qcow2")
    other_way = tmp_path / "mnt"
    other_way.symlink_to(tmp_path)
    linked = tmp_path / "by-name.qcow2"
    linked.symlink_to("disk.qcow2")
    for there in (path, other_way / "disk.qcow2", linked):
        assert asyncio.run(compare([disk(path)], [disk(there)])) == ()
    assert list((tmp_path / "disk.qcow2.teleport").iterdir()) == []


def test_two_disks_of_one_name_and_content_are_not_one(tmp_path: Path) -> None:
    (tmp_path / "server1").mkdir()
    (tmp_path / "server2").mkdir()
    here = image(tmp_path / "server1" / "disk.qcow2")
    there = tmp_path / "server2" / "disk.qcow2"
    shutil.copy(here, there)
    (finding,) = asyncio.run(compare([disk(here)], [disk(there)]))
    assert finding.what == "medium disk0 storage"
    assert "not the same storage" in finding.there


def test_a_copy_of_the_folder_with_an_old_proof_does_not_answer(tmp_path: Path) -> None:
    """A replica that was made while the proof lay there has the file's name, and another file of that name has another secret."""
    here = image(tmp_path / "disk.qcow2")
    there = tmp_path / "replica" / "disk.qcow2"
    there.parent.mkdir()
    shutil.copy(here, there)

    async def scenario() -> tuple[dict[str, str], dict[str, str]]:
        proofs = StorageProofs("epoch", Role.SOURCE)
        (fact,) = await proofs.write([disk(here)], await media_facts([disk(here)]))
        folder = tmp_path / "replica" / "disk.qcow2.teleport"
        folder.mkdir()
        (folder / fact.proof_file).write_text("00" * 32)
        answers, problems = await StorageProofs("epoch", Role.TARGET, seek_seconds=0).answer([fact], [disk(there)])
        await proofs.cleanup()
        return answers, problems

    answers, problems = asyncio.run(scenario())
    assert answers == {}
    assert "something else than the other side wrote" in problems["disk0"]


def test_a_proof_that_shows_late_is_waited_for(tmp_path: Path) -> None:
    path = image(tmp_path / "disk.qcow2")

    async def scenario() -> dict[str, str]:
        proofs = StorageProofs("epoch", Role.SOURCE)
        (fact,) = await proofs.write([disk(path)], await media_facts([disk(path)]))
        proof = tmp_path / "disk.qcow2.teleport" / fact.proof_file
        proof.rename(proof.with_name("hidden"))
        answering = asyncio.create_task(StorageProofs("epoch", Role.TARGET, seek_seconds=20).answer([fact], [disk(path)]))
        await asyncio.sleep(0.2)
        proof.with_name("hidden").rename(proof)
        answers, problems = await answering
        assert problems == {}
        wrong = proofs.judge(answers)
        await proofs.cleanup()
        return wrong

    assert asyncio.run(scenario()) == {"disk0": ""}


def test_a_name_that_leads_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    path = image(tmp_path / "disk.qcow2")
    fact = replace(fact_of(disk(path)), proof_file="../secret", proof_nonce="x")
    answers, problems = asyncio.run(StorageProofs("e", Role.TARGET, seek_seconds=0).answer([fact], [disk(path)]))
    assert answers == {}
    assert problems == {"disk0": "the other side names no proof file"}


def test_a_side_that_writes_no_proof_has_proved_nothing(tmp_path: Path) -> None:
    path = image(tmp_path / "disk.qcow2")
    answers, problems = asyncio.run(StorageProofs("e", Role.TARGET).answer([fact_of(disk(path))], [disk(path)]))
    assert answers == {}
    assert problems == {"disk0": "the other side wrote no proof of shared storage"}


def test_a_folder_where_no_proof_can_be_written_is_a_problem_of_the_medium(tmp_path: Path) -> None:
    path = image(tmp_path / "disk.qcow2")
    (tmp_path / "disk.qcow2.teleport").write_text("a file in the way")

    async def scenario() -> MediumFact:
        proofs = StorageProofs("epoch", Role.SOURCE)
        (fact,) = await proofs.write([disk(path)], await media_facts([disk(path)]))
        return fact

    fact = asyncio.run(scenario())
    assert fact.proof_file == ""
    assert fact.problem.startswith(
        f"{tmp_path / 'disk.qcow2.teleport'}: no proof of shared storage can be read or written there"
    )


@contextlib.contextmanager
def exported(path: Path) -> Iterator[str]:
    """The URL under which qemu-nbd serves a file: stands for what only QEMU's own drivers reach (iSCSI, NFS, NBD)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["qemu-nbd", "-t", "-e", "4", "-f", "raw", "-x", "", "-b", "127.0.0.1", "-p", str(port), str(path)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as server:
        try:
            while True:
                assert server.poll() is None
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
                    break
                time.sleep(0.02)
            yield f"nbd://127.0.0.1:{port}/"
        finally:
            server.kill()


def lun(url: str, folder: Path | None) -> AttachedMedium:
    return AttachedMedium("lun", "hdd", "raw", read_only=False, path=url, proof_folder=str(folder) if folder else "")


def test_a_named_folder_proves_a_url_and_its_content_tells_another_from_it(tmp_path: Path) -> None:
    """Equal name of the folder, equal size, equal first megabyte: the other server's disk is still another one."""
    shared, first = tmp_path / "records", os.urandom(1 << 20)
    for number in range(2):
        (tmp_path / f"{number}.raw").write_bytes(first + os.urandom(3 << 20) + bytes(4 << 20))
    with exported(tmp_path / "0.raw") as one, exported(tmp_path / "1.raw") as other:
        assert asyncio.run(compare([lun(one, shared)], [lun(one, shared)])) == ()
        assert [finding.what for finding in asyncio.run(compare([lun(one, shared)], [lun(other, shared)]))] == [
            "medium lun content"
        ]
        elsewhere = asyncio.run(compare([lun(one, shared)], [lun(one, tmp_path / "other-records")]))
        assert [finding.what for finding in elsewhere] == ["medium lun storage"]
        (nameless,) = asyncio.run(compare([lun(one, None)], [lun(one, None)]))
        assert nameless.here.endswith("name a folder that both sides share for its owner record")
        samples = fact_of(lun(one, shared)).content.removeprefix("samples:").split(",")
        assert samples[-1] == "-", "a block of zeroes"
        assert samples[0] != "-"
    gone = fact_of(lun(one, shared))
    assert gone.problem.startswith(one)


def test_another_iso_of_the_same_size_is_refused_and_a_copy_is_not(tmp_path: Path) -> None:
    here, copy, other = tmp_path / "a.iso", tmp_path / "b.iso", tmp_path / "c.iso"
    here.write_bytes(os.urandom(1 << 20))
    copy.write_bytes(here.read_bytes())
    other.write_bytes(here.read_bytes()[:-1] + b"\0")
    assert asyncio.run(compare([iso(here)], [iso(copy)])) == ()
    assert asyncio.run(compare([iso(here)], [iso(here)])) == ()
    assert [finding.what for finding in asyncio.run(compare([iso(here)], [iso(other)]))] == ["medium cd content"]


def test_a_digest_follows_the_content_and_large_files_are_sampled(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(storage.WHOLE_DIGEST_BYTES + (5 << 20))
    before = content_digest(path)
    assert before.startswith("blake3-sampled:")
    for position in (0, storage.WHOLE_DIGEST_BYTES + (5 << 20) - 1, 4 * (storage.WHOLE_DIGEST_BYTES + (5 << 20)) // 512):
        with path.open("r+b") as file:
            file.seek(position)
            file.write(b"x")
        after = content_digest(path)
        assert after != before
        before = after
    with path.open("r+b") as file:
        file.truncate(1 << 20)
    assert content_digest(path).startswith("blake3:")


def test_two_devices_are_told_apart_by_their_content(tmp_path: Path) -> None:
    """Equal size, equal first megabyte: a loop device stands for an LV or a LUN; its content is read the same way from a file."""
    first = os.urandom(1 << 20)
    paths = []
    for number in range(2):
        path = tmp_path / f"lun{number}"
        path.write_bytes(first + os.urandom(8 << 20))
        paths.append(path)
    one, two = (device_samples(path) for path in paths)
    fact = MediumFact("lun", "hdd", "raw", False, 9 << 20, 9 << 20, "/dev/lun", content=one)
    assert [finding.what for finding in compare_media([fact], [replace(fact, content=two)], {"lun": ""})] == [
        "medium lun content"
    ]
    with paths[0].open("r+b") as file:  # the guest goes on writing
        file.seek(3 << 20)
        file.write(b"x" * 4096)
    assert device_samples(paths[0]) != one
    assert compare_media([fact], [replace(fact, content=device_samples(paths[0]))], {"lun": ""}) == ()
