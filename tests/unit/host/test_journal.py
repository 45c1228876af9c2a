import subprocess
import sys
from pathlib import Path

import pytest

from teleport.errors import StorageError
from teleport.host.faults import set_faults
from teleport.host.journal import FileJournal


def test_records_come_back_in_order(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "journal")
    assert journal.records() == ()
    journal.append({"record": "PREPARED", "generation": 4})
    journal.append({"record": "MOVED", "to": "hôst\n2"})
    assert FileJournal(tmp_path / "journal").records() == (
        {"record": "PREPARED", "generation": 4},
        {"record": "MOVED", "to": "hôst\n2"},
    )


def test_damage_in_the_middle_is_not_a_torn_tail(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = FileJournal(path)
    for number in range(3):
        journal.append({"number": number})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(StorageError, match="damaged"):
        journal.records()
    with pytest.raises(StorageError, match="damaged"):
        journal.append({"number": 3})


def test_a_failed_append_appended_nothing(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "journal")
    journal.append({"number": 1})
    set_faults("journal.append=raise")
    try:
        with pytest.raises(StorageError):
            journal.append({"number": 2})
    finally:
        set_faults("")
    assert journal.records() == ({"number": 1},)


def test_a_disk_that_fills_up_in_the_middle_of_a_line(tmp_path: Path) -> None:
    """A limit on file sizes stands for the full disk: the write is cut short, then refused."""
    program = f"""
import resource
from pathlib import Path
from teleport.errors import StorageError
from teleport.host.journal import FileJournal
journal = FileJournal(Path({str(tmp_path / "journal")!r}))
journal.append({{"number": 1}})
resource.setrlimit(resource.RLIMIT_FSIZE, (70, resource.RLIM_INFINITY))
try:
    journal.append({{"text": "x" * 100}})
except StorageError as error:
    assert "File too large" in str(error), error
else:
    raise AssertionError("appended")
assert journal.records() == ({{"number": 1}},)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert FileJournal(tmp_path / "journal").records() == ({"number": 1},)


def test_a_missing_folder_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        FileJournal(tmp_path / "missing" / "journal").append({"number": 1})
