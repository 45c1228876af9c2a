"""The proof that two sides see the same storage: who cannot see it cannot answer.

::

    A                                                    B
    writes a fresh secret into a file of the medium's proof folder
    ── node, the file's name, commitment = H(secret) ──▶ reads the file there; content that doesn't fit the commitment is
                                                         not complete yet, or another storage's
    ◀── answer = HMAC(secret, role of B, epoch, node) ── the secret itself never travels
    compares with its own

Both directions are asked: that B sees what A writes says that both look at one storage, that A sees what B writes says that B
can write there too. The role keeps a side from returning the other's own answer, epoch and node keep answers from serving twice.
A commitment gives nothing away: the secret is 32 random bytes.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from enum import Enum

SECRET_BYTES = 32
# What a proof file may be called; the name comes from the other side and must not lead out of the folder.
PROOF_FILE = re.compile(r"\.proof-[0-9a-z-]{16,120}")


class Role(Enum):
    """The two ends, as they stand in an answer."""

    SOURCE = "source"
    TARGET = "target"

    @property
    def other(self) -> "Role":
        """The peer."""
        return Role.TARGET if self is Role.SOURCE else Role.SOURCE


def commitment(secret: bytes) -> str:
    """What travels beside the file's name: a hash (hex) that says whether what was read is the secret."""
    return hashlib.sha256(b"teleport storage proof commitment\0" + secret).hexdigest()


def answer(secret: bytes, *, answering: Role, epoch: str, node: str) -> str:
    """What a side says that has read `secret` (hex)."""
    message = "\0".join(("teleport storage proof answer", answering.value, epoch, node))
    return hmac.new(secret, message.encode(), hashlib.sha256).hexdigest()


def judge(expected: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """What is wrong with the peer's answers, by node ("" when it is proved): `expected` are the right ones for our own proofs."""
    return {node: "" if _same(right, given.get(node, "")) else NOT_SEEN for node, right in expected.items()}


NOT_SEEN = "the other side does not see what this side wrote there: it is not the same storage"


def _same(right: str, given: str) -> bool:
    return hmac.compare_digest(right.encode(), given.encode())
