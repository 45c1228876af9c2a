"""The journal on disk: one JSON line a record, each with its checksum, durable before `append` returns.

A line is ``{"crc32": "0a1b2c3d", "record": {…}}``; the checksum is that of the record's own JSON text (keys sorted, no spaces).
A power cut may tear the last line (or leave zeros after it): whatever stands behind the last good line was never acknowledged,
is left out, and is cut off before the next append. A bad line *before* a good one is damage and is said so.
"""

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path

from teleport.errors import StorageError
from teleport.host.faults import fault_point
from teleport.machines.files import sync_folder

Record = Mapping[str, str | int]


def _line(record: Record) -> bytes:
    text = json.dumps(dict(record), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return f'{{"crc32":"{zlib.crc32(text.encode()):08x}","record":{text}}}\n'.encode()


def _parse(line: bytes) -> Record | None:
    """The record of one line without its newline, or None when it is not whole."""
    try:
        record = json.loads(line)["record"]
    except (ValueError, KeyError, TypeError):
        return None
    if not isinstance(record, dict) or _line(record) != line + b"\n":
        return None
    return record


class FileJournal:
    """`teleport.ports.Journal` in one file; its folder must exist. One writer at a time (the VM's lock sees to that)."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def records(self) -> tuple[Record, ...]:
        """All whole records in order; () when there is no file yet. Raises StorageError."""
        return self._read()[0]

    def append(self, record: Record) -> None:
        """Appends one record durably. Raises StorageError, and then it is not in the journal."""
        try:
            self._append(_line(record))
        except OSError as error:
            raise StorageError(
                f"journal {self._path}", error.strerror or str(error), "free space on its disk, or repair it"
            ) from error

    def _append(self, line: bytes) -> None:
        good_bytes = self._read()[1]
        created = not self._path.exists()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_size != good_bytes:
                os.ftruncate(descriptor, good_bytes)
            try:
                fault_point("journal.append")
                rest = memoryview(line)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
                os.fdatasync(descriptor)
            except (OSError, StorageError):
                os.ftruncate(descriptor, good_bytes)
                os.fdatasync(descriptor)
                raise
        finally:
            os.close(descriptor)
        if created:
            sync_folder(self._path.parent)

    def _read(self) -> tuple[tuple[Record, ...], int]:
        """The whole records and the length of the file's good beginning in bytes."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return (), 0
        except OSError as error:
            raise StorageError(f"journal {self._path}", error.strerror or str(error)) from error
        records: list[Record] = []
        good_bytes = 0
        position = 0
        for line in content.splitlines(keepends=True):
            position += len(line)
            record = _parse(line[:-1]) if line.endswith(b"\n") else None
            if record is None:
                continue
            if good_bytes + len(line) != position:
                raise StorageError(
                    f"journal {self._path}",
                    f"damaged at byte {good_bytes}, before records that are whole",
                    "compare both sides, then `teleport resolve`",
                )
            records.append(record)
            good_bytes = position
        return tuple(records), good_bytes
