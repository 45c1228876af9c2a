"""A filesystem that breaks when it is told: all it shows lies in another folder, and its n-th change kills whoever makes it, or fails.

`python -m tests.properties.breaking_filesystem BACKING MOUNTPOINT` mounts it (as root, or with fusermount3 on PATH), says ``ready``, and
then takes lines on stdin and answers each by one on stdout, until `end` or the end of stdin:

    break N FAULT SEED   from the N-th change on (counted from now), see `Fault`         ok
    count                how many changes there were since, and whether the fault came   COUNT yes|no
    cut SEED             the power goes now                                               ok

A change is what a program asks the kernel for: making, writing, cutting, linking, renaming and removing, fsync too.

What a power cut leaves is what a journalled filesystem promises: data is there for certain after its fsync, and until then any part
of what was written may be; names were made and removed in order, and everything up to the last fsync of anything is there.
"""

import enum
import errno
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":
    os.environ.setdefault("FUSE_LIBRARY_NAME", "fuse3")
    import mfusepy

_LOST = 0.5  # of what was written and not synced, about this part is lost


class Fault(enum.Enum):
    """What happens at the change, instead of it. `KILLED`: the command's processes die by SIGKILL. `CUT`: so does the machine.
    `FAILS`: this change and all after it fail, as on a dead disk. `FULL`: those that need room do.
    """

    KILLED = "killed"
    CUT = "cut"
    FAILS = "fails"
    FULL = "full"


@dataclass
class _Unsynced:
    """A file's content when it was last synced, and what was done to it since: (offset, data), or (length, None) where it was cut."""

    descriptor: int
    content: bytes
    changes: list[tuple[int, bytes | None]] = field(default_factory=list)

    def lose(self, dice: random.Random) -> None:
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, self.content, 0)
        for place, data in self.changes:
            if dice.random() < _LOST:
                continue
            if data is None:
                os.ftruncate(self.descriptor, place)
            else:
                os.pwrite(self.descriptor, data, place)


class Storage:
    """Counts changes, breaks at one of them, and knows what is not synced. Its methods are called for one change after another."""

    def __init__(self, trash: Path) -> None:
        self._trash = trash
        self._lock = threading.Lock()
        self._unsynced: dict[int, _Unsynced] = {}
        self._undo: list[Callable[[], object]] = []
        self._kept = 0
        self.begin(sys.maxsize, Fault.KILLED, 0)

    def begin(self, strike_at: int, fault: Fault, seed: int) -> None:
        """Whole again, all of it synced, until that change comes."""
        with self._lock:
            self._synced()
            self._count, self._strike_at, self._fault, self._seed = 0, strike_at, fault, seed

    @property
    def count(self) -> tuple[int, bool]:
        """How many changes there were, and whether the fault came."""
        return self._count, self._count >= self._strike_at

    def change(self, caller: int, *, needs_room: bool = True) -> None:
        """One more. Raises OSError where the storage is broken. `caller` is the thread that asks."""
        with self._lock:
            self._count += 1
            if self._count < self._strike_at:
                return
            if self._fault is Fault.FULL:
                if needs_room:
                    raise OSError(errno.ENOSPC, "full")
                return
            if self._count == self._strike_at and self._fault in (Fault.KILLED, Fault.CUT):
                os.killpg(os.getpgid(caller), signal.SIGKILL)
                if self._fault is Fault.CUT:
                    self._lose(self._seed)
            raise OSError(errno.EIO, "dead")

    def cut(self, seed: int) -> None:
        """The power goes."""
        with self._lock:
            self._lose(seed)

    def sync(self, descriptor: int | None) -> None:
        """The content of that file (None: of a folder) is durable, and all names are."""
        with self._lock:
            if descriptor is not None:
                clean = self._unsynced.pop(os.fstat(descriptor).st_ino, None)
                if clean is not None:
                    os.close(clean.descriptor)
            self._forget_names()

    def written(self, descriptor: int, place: int, data: bytes | None) -> None:
        """Called before that is done."""
        with self._lock:
            found = os.fstat(descriptor)
            inode = found.st_ino
            if inode not in self._unsynced:
                self._unsynced[inode] = _Unsynced(os.dup(descriptor), os.pread(descriptor, found.st_size, 0))
            self._unsynced[inode].changes.append((place, data))

    def named(self, undo: Callable[[], object]) -> None:
        """A name was made, changed or removed, and this takes it back."""
        with self._lock:
            self._undo.append(undo)

    def keep(self, path: Path) -> Path:
        """Another name for what loses this one."""
        with self._lock:
            self._kept += 1
            kept = self._trash / str(self._kept)
        os.link(path, kept, follow_symlinks=False)
        return kept

    def _lose(self, seed: int) -> None:
        dice = random.Random(seed)
        for file in self._unsynced.values():
            file.lose(dice)
        for undo in self._undo[dice.randint(0, len(self._undo)) :][::-1]:
            undo()
        self._synced()

    def _synced(self) -> None:
        for file in self._unsynced.values():
            os.close(file.descriptor)
        self._unsynced.clear()
        self._forget_names()

    def _forget_names(self) -> None:
        self._undo.clear()
        for each in self._trash.iterdir():
            each.unlink()


class Passthrough:
    """FUSE's operations on `backing`, each change told to `storage` first. Errors are the kernel's own."""

    use_ns = True  # times are in nanoseconds

    def __init__(self, backing: Path, storage: Storage) -> None:
        self._backing = backing
        self._storage = storage

    def _at(self, path: str) -> Path:
        return self._backing / path[1:]

    def _change(self, *, needs_room: bool = True) -> None:
        self._storage.change(mfusepy.fuse_get_context()[2], needs_room=needs_room)

    # ---- what changes nothing
    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        found = os.fstat(fh) if fh is not None else self._at(path).lstat()
        times = {f"st_{each}": getattr(found, f"st_{each}_ns") for each in ("atime", "mtime", "ctime")}
        return times | {name: getattr(found, name) for name in ("st_mode", "st_ino", "st_nlink", "st_uid", "st_gid", "st_size")}

    def readdir(self, path: str, fh: int) -> Iterator[tuple[str, dict[str, int], int]]:
        for each in self._at(path).iterdir():
            found = each.lstat()
            yield each.name, {"st_ino": found.st_ino, "st_mode": found.st_mode}, 0

    def readlink(self, path: str) -> str:
        return str(self._at(path).readlink())

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def release(self, path: str, fh: int) -> None:
        os.close(fh)

    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(self._at(path))
        names = ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_namemax")
        return {name: getattr(found, name) for name in names}

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> None:
        os.utime(self._at(path), ns=times)

    # ---- contents
    def open(self, path: str, flags: int) -> int:
        # The kernel also reads what a program opens for writing only, and has worked out the place of what is appended.
        access = os.O_RDWR if flags & os.O_ACCMODE else os.O_RDONLY
        if flags & os.O_TRUNC:
            self.truncate(path, 0)
        return os.open(self._at(path), access | os.O_CLOEXEC)

    def create(self, path: str, mode: int, fi: object = None) -> int:
        self._change()
        descriptor = os.open(self._at(path), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        self._storage.named(self._at(path).unlink)
        return descriptor

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self._change()
        self._storage.written(fh, offset, data)
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        self._change()
        descriptor = os.open(self._at(path), os.O_RDWR | os.O_CLOEXEC) if fh is None else os.dup(fh)
        try:
            self._storage.written(descriptor, length, None)
            os.ftruncate(descriptor, length)
        finally:
            os.close(descriptor)

    def fsync(self, path: str, datasync: int, fh: int) -> None:
        self._change(needs_room=False)
        self._storage.sync(fh)

    def fsyncdir(self, path: str, datasync: int, fh: int) -> None:
        self._change(needs_room=False)
        self._storage.sync(None)

    # ---- names
    def chmod(self, path: str, mode: int) -> None:
        self._change(needs_room=False)
        self._at(path).chmod(mode)

    def mkdir(self, path: str, mode: int) -> None:
        self._change()
        self._at(path).mkdir(mode)
        self._storage.named(self._at(path).rmdir)

    def rmdir(self, path: str) -> None:
        self._change(needs_room=False)
        mode = self._at(path).stat().st_mode
        self._at(path).rmdir()
        self._storage.named(lambda: self._at(path).mkdir(mode))

    def symlink(self, target: str, source: str) -> None:
        self._change()
        self._at(target).symlink_to(source)
        self._storage.named(self._at(target).unlink)

    def link(self, target: str, source: str) -> None:
        self._change()
        self._at(target).hardlink_to(self._at(source))
        self._storage.named(self._at(target).unlink)

    def unlink(self, path: str) -> None:
        self._change(needs_room=False)
        kept = self._storage.keep(self._at(path))
        self._at(path).unlink()
        self._storage.named(lambda: kept.rename(self._at(path)))

    def rename(self, old: str, new: str) -> None:
        self._change(needs_room=False)
        before, after = self._at(old), self._at(new)
        kept = self._storage.keep(after) if after.is_symlink() or after.is_file() else None
        before.rename(after)

        def back() -> None:
            after.rename(before)
            if kept is not None:
                kept.rename(after)

        self._storage.named(back)


def _obey(storage: Storage, mountpoint: Path) -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        word, *values = line.split()
        if word == "end":
            break
        if word == "break":
            storage.begin(int(values[0]), Fault(values[1]), int(values[2]))
            print("ok", flush=True)
        elif word == "count":
            count, came = storage.count
            print(count, "yes" if came else "no", flush=True)
        elif word == "cut":
            storage.cut(int(values[0]))
            print("ok", flush=True)
    subprocess.run(["fusermount3", "-u", "-z", str(mountpoint)], check=True)


def _serve(backing: Path, mountpoint: Path) -> None:
    os.umask(0)  # a program's own is in the mode that it asks for
    trash = backing.with_name(f"{backing.name}.removed")
    trash.mkdir(exist_ok=True)
    storage = Storage(trash)
    operations = Passthrough(backing, storage)
    operations.init = lambda path: threading.Thread(target=_obey, args=(storage, mountpoint), daemon=True).start()
    # The kernel is to remember nothing: tests put files into the folder behind it.
    forgetful = {"attr_timeout": 0, "entry_timeout": 0, "negative_timeout": 0}
    mfusepy.FUSE(operations, str(mountpoint), foreground=True, nothreads=True, hard_remove=True, use_ino=True, **forgetful)


if __name__ == "__main__":
    _serve(*map(Path, sys.argv[1:]))
