"""Who may run a guest, as a folder on the storage that both sides share (handover.md, "Who may run the guest").

::

    NAME.teleport/
        00000000000041.owner      one immutable file a generation: JSON, see below
        00000000000041.started    its owner said `cont`
        00000000000042.owner
        .claim-<nonce>            a claim that is being made

A claim is written whole under a name of its own, made durable, and then given the generation's name by an operation that fails
when the name exists: `link()`, or, where a filesystem has no links (some SMB and FUSE mounts), the rename of a folder that is
not empty. Both exclude each other. Whatever the operation answered, the generation is then opened and its content decides: over
NFS a reply that was lost says EEXIST after a success, and link counts lie on some filesystems. An error or a time-out after
which the content cannot be read is UNKNOWN, never "no".

Every access runs in a thread of its own with a time-out: dead storage hangs its callers for ever.
"""

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from enum import Enum
from pathlib import Path
from typing import TypeVar

from teleport.errors import StorageError
from teleport.host.bounded import in_thread
from teleport.host.faults import fault_point
from teleport.machines.files import sync_folder
from teleport.model import FREE, ClaimResult, Owner, RecordView

FORMAT = 1
KEPT_GENERATIONS = 16
DEFAULT_TIMEOUT_SECONDS = 10.0
_GENERATION = re.compile(r"(\d{14})\.owner")
_LEFTOVER_SECONDS = 24 * 3600.0
_INNER = "owner"  # the file's name inside a generation that is a folder
_NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.EACCES, errno.EXDEV})

Result = TypeVar("Result")


class _Method(Enum):
    """How a claim gets its generation's name."""

    LINK = "link"
    FOLDER = "folder"


@dataclass(frozen=True)
class _Claim:
    generation: int
    owner: Owner
    path: Path


class FolderOwnerRecord:
    """`teleport.ports.OwnerRecord` in `folder`, which `probe` creates (its parent must exist)."""

    def __init__(self, folder: Path, *, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        self.folder = folder
        self._timeout_seconds = timeout_seconds
        self._method: _Method | None = None
        self._prepared: _Claim | None = None

    # -- the port

    async def read(self) -> RecordView:
        """The newest generation; generation 0 and free when nothing was written yet. Raises StorageError."""
        return await self._bounded(self._read, "reading")

    async def claim(self, generation: int, owner: Owner) -> ClaimResult:
        """Makes `owner` the owner of `generation` if nobody is yet and the one before is the newest. Raises nothing.

        UNKNOWN: storage does not answer or is not what it was; ask again (a claim that had won wins again).
        """
        try:
            return await self._bounded(lambda: self._claim(generation, owner), "claiming")
        except StorageError:
            return ClaimResult.UNKNOWN

    async def note_started(self, generation: int) -> None:
        """Notes durably that the owner of `generation` said `cont`. Raises StorageError."""
        await self._bounded(lambda: self._note_started(generation), "noting the start")

    async def probe(self) -> None:
        """Creates the folder, and finds out by doing how claims can be made here. Raises StorageError when they cannot."""
        self._method = await self._bounded(self._probe, "trying a claim")

    # -- beyond the port

    async def prepare_claim(self, generation: int, owner: Owner) -> None:
        """Writes the claim down now, so that `claim` has only to name it: a full disk is found here. Raises StorageError."""
        await self.discard_claim()
        if self._method is None:
            await self.probe()
        self._prepared = await self._bounded(lambda: self._write_claim(generation, owner), "preparing a claim")

    async def discard_claim(self) -> None:
        """Removes a prepared claim that will not be made."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            with contextlib.suppress(StorageError):  # a leftover is swept up by a later claim
                await self._bounded(lambda: _remove(prepared.path), "discarding a claim")

    async def _bounded(self, call: Callable[[], Result], doing: str) -> Result:
        what = f"owner record {self.folder}"
        try:
            return await in_thread(call, timeout_seconds=self._timeout_seconds, name="owner record")
        except TimeoutError as error:
            raise StorageError(what, f"{doing}: the storage did not answer within {self._timeout_seconds:g} s") from error
        except OSError as error:
            raise StorageError(what, f"{doing}: {error.strerror or error}") from error

    # -- blocking, in a thread

    def _generation_path(self, generation: int) -> Path:
        return self.folder / f"{generation:014d}.owner"

    def _newest(self) -> int:
        try:
            names = [path.name for path in self.folder.iterdir()]
        except FileNotFoundError:
            self.folder.parent.stat()  # a missing parent is missing storage, not an empty record
            return 0
        return max((int(match[1]) for name in names if (match := _GENERATION.fullmatch(name))), default=0)

    def _read(self) -> RecordView:
        fault_point("record.read")
        generation = self._newest()
        if generation == 0:
            return RecordView(generation=0, owner=FREE, started=False)
        started = self._generation_path(generation).with_suffix(".started").exists()
        return RecordView(generation=generation, owner=self._owner_of(generation), started=started)

    def _owner_of(self, generation: int) -> Owner:
        """Raises FileNotFoundError when nobody owns it yet, StorageError when it is damaged."""
        path = self._generation_path(generation)
        try:
            text = path.read_text()
        except IsADirectoryError:
            text = (path / _INNER).read_text()
        try:
            content = json.loads(text)
            if content["format"] > FORMAT:
                raise StorageError(f"owner record {path}", "written by a newer Teleport", "use that version on this host too")
            if content["generation"] != generation:
                raise ValueError(content["generation"])
            return Owner(**{field.name: str(content["owner"][field.name]) for field in fields(Owner)})
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"owner record {path}", "damaged: it does not say whose the guest is") from error

    def _write_claim(self, generation: int, owner: Owner) -> _Claim:
        fault_point("record.write")
        nonce = secrets.token_hex(8)
        content = json.dumps({"format": FORMAT, "generation": generation, "nonce": nonce, "owner": asdict(owner)}, indent=1)
        path = self.folder / f".claim-{nonce}"
        try:
            if self._method is _Method.FOLDER:
                path.mkdir(mode=0o777)
                _write_durably(path / _INNER, content)
                _sync_names(path)
            else:
                _write_durably(path, content)
        except OSError:
            _remove(path)
            raise
        return _Claim(generation=generation, owner=owner, path=path)

    def _claim(self, generation: int, owner: Owner) -> ClaimResult:
        newest = self._newest()
        if newest < generation:
            if newest < generation - 1:
                return ClaimResult.UNKNOWN  # what we know of is missing: another folder, or storage that is not mounted
            self._give_name(generation, owner)
        try:
            holder = self._owner_of(generation)
        except FileNotFoundError:
            # Not there although it was tried, or pruned because the record went on far beyond.
            return ClaimResult.LOST if self._newest() > generation else ClaimResult.UNKNOWN
        fault_point("record.verify")
        if holder != owner:
            return ClaimResult.LOST
        _sync_names(self.folder)
        if self._newest() > generation:
            return ClaimResult.LOST
        self._prune(generation)
        return ClaimResult.WON

    def _give_name(self, generation: int, owner: Owner) -> None:
        """Tries to name a claim; what came of it is read afterwards. Raises only when nothing was tried."""
        if self._method is None:
            self._method = self._probe()
        prepared, self._prepared = self._prepared, None
        if prepared is None or (prepared.generation, prepared.owner) != (generation, owner):
            claim = self._write_claim(generation, owner)
        else:
            claim = prepared
        try:
            fault_point("record.link")
            _name(self._method, claim.path, self._generation_path(generation))
            fault_point("record.linked")
        except (OSError, StorageError):
            return  # EEXIST, or an error after which it may have happened all the same: the content decides
        finally:
            with contextlib.suppress(OSError):
                _remove(claim.path)

    def _note_started(self, generation: int) -> None:
        fault_point("record.note")
        _write_durably(self._generation_path(generation).with_suffix(".started"), "")
        _sync_names(self.folder)

    def _probe(self) -> _Method:
        fault_point("record.probe")
        with contextlib.suppress(FileExistsError):
            self.folder.mkdir()
            _sync_names(self.folder.parent)
        base = self.folder / f".probe-{secrets.token_hex(8)}"
        named = base.with_name(base.name + "-named")
        try:
            _write_durably(base, "")
            try:
                _name(_Method.LINK, base, named)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
            else:
                _expect_refusal(_Method.LINK, base, named)
                return _Method.LINK
            _remove(base)
            for path in (base, named):
                path.mkdir()
                _write_durably(path / _INNER, "")
            _expect_refusal(_Method.FOLDER, base, named)
            return _Method.FOLDER
        finally:
            for path in (base, named):
                _remove(path)

    def _prune(self, newest: int) -> None:
        """Removes generations well behind the newest and what crashed claims left; errors don't matter."""
        with contextlib.suppress(OSError):
            now = max(self._generation_path(newest).stat().st_mtime, 0.0)  # the storage's own clock
            for path in tuple(self.folder.iterdir()):
                number = path.name.partition(".")[0]
                if number.isdigit():
                    if int(number) <= newest - KEPT_GENERATIONS:
                        _remove(path)
                elif path.name.startswith((".claim-", ".probe-")) and path.stat().st_mtime < now - _LEFTOVER_SECONDS:
                    _remove(path)


def _name(method: _Method, path: Path, name: Path) -> None:
    """Gives `path` the further (link) or new (folder) name `name`. Raises OSError when the name exists."""
    if method is _Method.LINK:
        os.link(path, name)
    else:
        path.rename(name)


def _expect_refusal(method: _Method, path: Path, name: Path) -> None:
    try:
        _name(method, path, name)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            return
        raise
    raise StorageError(
        f"owner record {name.parent}",
        "this filesystem lets a second writer take a name that exists",
        "name a folder on other storage for it",
    )


def _write_durably(path: Path, content: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        os.write(descriptor, content.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_names(folder: Path) -> None:
    """fsync of a folder, where the filesystem knows it (some SMB and FUSE mounts do not, and write names through)."""
    try:
        sync_folder(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP):
            raise


def _remove(path: Path) -> None:
    """Removes a file, or a folder with what is in it; missing is fine. Raises OSError."""
    try:
        path.unlink(missing_ok=True)
    except (IsADirectoryError, PermissionError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            raise
