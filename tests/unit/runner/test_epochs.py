"""The journals of epochs: what a successor finds."""

import os
from pathlib import Path

import pytest

from teleport.errors import StorageError
from teleport.model import GuestIdentity, Owner, PrepareOrder, Proposal, SourceHello, TargetPhase
from teleport.runner.arrival import word_of_journal
from teleport.runner.epochs import EpochJournal, SourcePrepared, TargetPrepared, newest, prune, unfinished

OWNER = Owner(host="h", home="/home", vm_uuid="u", vm_name="S", epoch="e")
HELLO = SourceHello(
    epoch="e1", versions=(1, 1), capabilities=frozenset(), required=frozenset(), vm_name="S", host="h", software="t", plan="raw"
)
PROPOSAL = Proposal(
    facts=(), media=(), snapshots=(), owner=OWNER, generation=7, memory_bytes=1, plan="raw", paused=True,
    identity=GuestIdentity("uuid", ((1, "08:00:27:00:00:01"), (3, "08:00:27:00:00:02"))),
)  # fmt: skip


def source(epoch: str = "e1") -> SourcePrepared:
    return SourcePrepared(
        epoch=epoch, generation=3, host="t", port=6000, insecure=0, plan="raw", was_paused=0, target_vm="T", target_host="there"
    )


def test_what_was_prepared_is_read_again(tmp_path: Path) -> None:
    journal = EpochJournal(tmp_path / "journal", "e1", "source")
    journal.prepared(source())
    assert SourcePrepared.read(journal.records()[0]) == source()


def test_a_target_remembers_the_sources_identity(tmp_path: Path) -> None:
    journal = EpochJournal(tmp_path, "e1", "target")
    journal.prepared(TargetPrepared.of(HELLO, PROPOSAL, PrepareOrder(plan="raw")))
    known = TargetPrepared.read(journal.records()[0])
    assert known.identity == PROPOSAL.identity
    assert (known.source.vm_uuid, known.source.epoch, known.generation, known.paused) == ("u", "e1", 7, 1)


def test_unknown_keys_of_a_newer_build_are_ignored_and_missing_ones_said() -> None:
    record: dict[str, str | int] = {"kind": "prepared", "news": 1, **vars(source())}
    assert SourcePrepared.read(record) == source()
    with pytest.raises(StorageError):
        SourcePrepared.read({"kind": "prepared", "epoch": "e1"})


def test_only_an_epoch_without_an_end_is_unfinished(tmp_path: Path) -> None:
    assert unfinished(tmp_path, "source") is None
    done = EpochJournal(tmp_path, "e1", "source")
    done.prepared(source("e1"))
    done.note("moved")
    assert unfinished(tmp_path, "source") is None
    open_one = EpochJournal(tmp_path, "e2", "source")
    open_one.prepared(source("e2"))
    found = unfinished(tmp_path, "source")
    assert found is not None
    assert found.epoch == "e2"
    assert unfinished(tmp_path, "target") is None


def test_the_newest_epoch_is_the_one_that_was_written_to_last(tmp_path: Path) -> None:
    assert newest(tmp_path, "source") is None
    for epoch in ("e1", "e2"):
        EpochJournal(tmp_path, epoch, "source").prepared(source(epoch))
    os.utime(tmp_path / "e2.source.jsonl", (1, 1))
    found = newest(tmp_path, "source")
    assert found is not None
    assert found.epoch == "e1"
    EpochJournal(tmp_path, "e2", "source").note("moved")
    found = newest(tmp_path, "source")
    assert found is not None
    assert found.kinds == {"prepared", "moved"}


def test_the_word_on_an_epoch_outlives_its_session(tmp_path: Path) -> None:
    assert word_of_journal(tmp_path, "e1").phase is TargetPhase.UNKNOWN
    journal = EpochJournal(tmp_path, "e1", "target")
    journal.prepared(TargetPrepared.of(HELLO, PROPOSAL, PrepareOrder(plan="raw")))
    journal.note("intent")
    assert word_of_journal(tmp_path, "e1").phase is TargetPhase.UNKNOWN, "an intent is no word"
    journal.note("aborted", reason="the disk is full")
    report = word_of_journal(tmp_path, "e1")
    assert (report.phase, report.reason) == (TargetPhase.ABORTED, "the disk is full")


def test_pruning_keeps_what_is_unfinished(tmp_path: Path) -> None:
    for number in range(50):
        journal = EpochJournal(tmp_path, f"e{number:02}", "source")
        journal.prepared(source(f"e{number:02}"))
        if number:
            journal.note("moved")
    prune(tmp_path)
    left = {path.name.split(".")[0] for path in tmp_path.glob("*.jsonl")}
    assert "e00" in left
    assert len(left) <= 41
