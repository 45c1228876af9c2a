"""Proofs that the two sides see the same writable storage, as files in each medium's proof folder (see `teleport.preflight.proofs`).

A file's name and a commitment travel; the peer reads the file on its own side of the storage and answers. Caches of network
storage may show a new file late, so that reading is tried again for a while.
"""

import asyncio
import contextlib
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from teleport.errors import StorageError
from teleport.host import nfs_proofs
from teleport.host.bounded import in_thread
from teleport.host.storage import AttachedMedium
from teleport.machines.files import sync_folder
from teleport.model import MediumFact
from teleport.preflight.proofs import PROOF_FILE, SECRET_BYTES, Role, answer, commitment, judge
from teleport.preflight.storage import OWN_COPY_KINDS

STORAGE_SECONDS = 10.0
SEEK_SECONDS = 3.0  # longer than an NFS or FUSE client keeps to what it last saw of a folder that it writes to itself
_RETRY_SECONDS = 0.05
_LONGEST_RETRY_SECONDS = 0.5

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Proof:
    path: Path | None  # None: nothing that could be removed
    secret: bytes


class StorageProofs:
    """One side's proofs for one epoch. Use: `write`, exchange the facts, `answer`, exchange the answers, `judge`, `cleanup`."""

    def __init__(self, epoch: str, role: Role, *, seek_seconds: float = SEEK_SECONDS) -> None:
        self._epoch = epoch
        self._role = role
        self._seek_seconds = seek_seconds
        self._proofs: dict[str, _Proof] = {}

    async def write(self, media: Sequence[AttachedMedium], facts: Sequence[MediumFact]) -> tuple[MediumFact, ...]:
        """Writes a proof for each writable medium that is usable, and returns the facts with `proof_file` and `proof_nonce`
        (the commitment) filled in, or with a `problem` where none can be written."""
        by_node = {medium.node: medium for medium in media}
        return tuple(await asyncio.gather(*(self._with_proof(by_node[fact.node], fact) for fact in facts)))

    async def answer(
        self, peer: Sequence[MediumFact], media: Sequence[AttachedMedium]
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Reads the peer's proofs on this side's storage.

        Returns the answers (node → answer) and what is wrong (node → reason) for those that were not found or never written.
        Raises nothing.
        """
        by_node = {medium.node: medium for medium in media if not medium.read_only}
        asked = [fact for fact in peer if fact.proof_file and fact.node in by_node]
        found = await asyncio.gather(*(self._seek(by_node[fact.node], fact) for fact in asked))
        answers = {
            fact.node: answer(secret, answering=self._role, epoch=self._epoch, node=fact.node)
            for fact, secret in zip(asked, found, strict=True)
            if isinstance(secret, bytes)
        }
        problems = {fact.node: reason for fact, reason in zip(asked, found, strict=True) if isinstance(reason, str)}
        for fact in peer:
            if fact.node in by_node and not (fact.proof_file or fact.problem or not fact.path or fact.kind in OWN_COPY_KINDS):
                problems[fact.node] = "the other side wrote no proof of shared storage"
        return answers, problems

    def judge(self, answers: Mapping[str, str]) -> dict[str, str]:
        """What is wrong with the peer's answers to this side's proofs, by node; "" where it is proved."""
        expected = {
            node: answer(proof.secret, answering=self._role.other, epoch=self._epoch, node=node)
            for node, proof in self._proofs.items()
        }
        return judge(expected, answers)

    async def cleanup(self) -> None:
        """Removes this side's proofs. What cannot be removed (storage gone) stays: it proves nothing to a later epoch."""
        proofs, self._proofs = self._proofs, {}
        await asyncio.gather(*(_quietly(_bounded(proof.path.unlink, proof.path)) for proof in proofs.values() if proof.path))

    async def _with_proof(self, medium: AttachedMedium, fact: MediumFact) -> MediumFact:
        if medium.read_only or not medium.path or fact.problem or medium.kind in OWN_COPY_KINDS:
            return fact
        secret = secrets.token_bytes(SECRET_BYTES)
        path = None
        try:
            if nfs_proofs.is_nfs(medium):
                name = nfs_proofs.proof_name(medium, self._role)
                await nfs_proofs.write(medium, name, secret)
            else:
                folder = await proof_folder(medium)
                name = f".proof-{self._role.value}-{secrets.token_hex(12)}"
                path = folder / name
                await _bounded(partial(_write, path, secret), folder)
        except StorageError as error:
            return replace(fact, problem=str(error))
        self._proofs[medium.node] = _Proof(path, secret)
        return replace(fact, proof_file=name, proof_nonce=commitment(secret))

    async def _seek(self, medium: AttachedMedium, fact: MediumFact) -> bytes | str:
        """The secret, or why it was not found in time."""
        if not PROOF_FILE.fullmatch(fact.proof_file):
            return "the other side names no proof file"
        deadline = asyncio.get_running_loop().time() + self._seek_seconds
        pause_seconds = _RETRY_SECONDS
        while True:
            try:
                if nfs_proofs.is_nfs(medium):
                    folder = Path(medium.path).parent  # for the message
                    secret = await nfs_proofs.read(medium, fact.proof_file)
                else:
                    folder = await proof_folder(medium)
                    secret = await _bounded(partial(_read, folder, fact.proof_file), folder)
            except StorageError as error:
                return str(error)
            if secret is not None and commitment(secret) == fact.proof_nonce:
                return secret
            if asyncio.get_running_loop().time() >= deadline:
                if secret is None:
                    return f"what the other side wrote is not in {folder}: it is not the same storage"
                return f"{folder} holds something else than the other side wrote: it is not the same storage"
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _LONGEST_RETRY_SECONDS)


async def proof_folder(medium: AttachedMedium) -> Path:
    """Where the medium's proofs go: `<image>.teleport` beside the file that a link leads to, or the folder that was named for a
    device or URL. Raises StorageError when such a one has none."""
    if not medium.is_url:
        path = await _bounded(Path(medium.path).resolve, Path(medium.path))
        if not await _bounded(path.is_block_device, path):
            return path.with_name(path.name + ".teleport")
    if medium.proof_folder:
        return Path(medium.proof_folder)
    raise StorageError(
        medium.path,
        "no proof of shared storage can be written beside it",
        "name a folder that both sides share for its owner record",
    )


def _write(path: Path, secret: bytes) -> None:
    """Whole or not at all: written under another name, made durable, renamed."""
    path.parent.mkdir(exist_ok=True)
    draft = path.with_name(f"{path.name}.new")
    try:
        with draft.open("xb") as file:
            file.write(secret.hex().encode())
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _read(folder: Path, name: str) -> bytes | None:
    """The secret; None when it is not there (yet) or not whole. Listing the folder makes a client of network storage look again."""
    with contextlib.suppress(OSError):  # a folder that may be entered need not be readable
        os.listdir(folder)  # noqa: PTH208 - the call counts, not its result
    try:
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        text = os.read(descriptor, 4 * SECRET_BYTES)
    finally:
        os.close(descriptor)
    try:
        return bytes.fromhex(text.decode("ascii"))
    except ValueError:
        return None


async def _bounded(call: Callable[[], Result], path: Path) -> Result:
    """Runs one access in a thread. Raises StorageError, also for storage that does not answer."""
    try:
        return await in_thread(call, timeout_seconds=STORAGE_SECONDS, name="storage proof")
    except TimeoutError as error:
        raise StorageError(str(path), f"the storage did not answer within {STORAGE_SECONDS:g} s") from error
    except OSError as error:
        raise StorageError(
            str(path), f"no proof of shared storage can be read or written there: {error.strerror or error}"
        ) from error


async def _quietly(work: Awaitable[None]) -> None:
    with contextlib.suppress(StorageError):
        await work
