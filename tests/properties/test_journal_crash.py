"""A crash at any byte leaves a prefix of the records, and the journal goes on from there."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from teleport.host.journal import FileJournal

records = st.lists(
    st.dictionaries(st.text(max_size=5), st.one_of(st.text(max_size=8), st.integers(-(2**63), 2**63))), max_size=5
)


@settings(max_examples=60, deadline=None)
@given(before=records, tail=st.binary(max_size=20) | st.integers(0, 4096).map(bytes), data=st.data())
def test_a_crash_leaves_a_prefix(before: list[dict[str, str | int]], tail: bytes, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        journal = FileJournal(path)
        ends = [0]
        for record in before:
            journal.append(record)
            ends.append(path.stat().st_size)
        assert list(journal.records()) == before
        content = path.read_bytes() if before else b""
        cut = data.draw(st.integers(0, len(content)))
        path.write_bytes(content[:cut] + tail)  # what the page cache had, then what the disk made of the rest
        whole = sum(1 for end in ends[1:] if end <= cut)
        survivors = list(FileJournal(path).records())
        assert survivors == before[: len(survivors)]
        assert len(survivors) >= whole
        FileJournal(path).append({"after": 1})
        assert list(FileJournal(path).records()) == [*survivors, {"after": 1}]
