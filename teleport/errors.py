"""The errors that people see: each says what failed, why, and what to try next.

Every room raises these (library errors are translated once, at the port that meets them, `from` their cause); the CLI prints
them as ``teleport: error: WHAT: WHY; TRY`` and exits with `exit_code`. They cross the wire whole (see `teleport.wire.status`).
"""

from typing import ClassVar


class TeleportError(Exception):
    """An operation failed and the VM is where it was.

    `what` names the operation or thing, `why` the cause, `hint` what to do next (may be empty).
    """

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "failed"

    def __init__(self, what: str, why: str, hint: str = "") -> None:
        super().__init__(what, why, hint)
        self.what = what
        self.why = why
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.what}: {self.why}" if self.why else self.what
        return f"{text}; {self.hint}" if self.hint else text


class UsageError(TeleportError):
    """The command or a value in it is wrong; nothing was changed."""

    exit_code = 2
    kind = "usage"


class NotFoundError(TeleportError):
    """A VM, medium or file that was named does not exist."""

    kind = "not-found"


class BusyError(TeleportError):
    """Something else holds it: another writer, another teleport, a running VM."""

    kind = "busy"


class StateError(TeleportError):
    """The VM is not in a state that allows this."""

    kind = "state"


class RunnerGoneError(StateError):
    """The runner that was asked died or ended before it answered: what became of what it was asked is not known yet."""

    kind = "runner-gone"


class RefusedError(TeleportError):
    """The preflight or the other side refused; `findings` holds the table, one row a difference."""

    kind = "refused"

    def __init__(self, what: str, why: str, hint: str = "", findings: "tuple[tuple[str, ...], ...]" = ()) -> None:
        super().__init__(what, why, hint)
        self.findings = findings


class UnreachableError(TeleportError):
    """Nobody answers there, or something that is not Teleport does."""

    kind = "unreachable"


class ProtocolError(TeleportError):
    """The other side speaks a version or a message that this one cannot follow."""

    kind = "protocol"


class CancelledError(TeleportError):
    """A person cancelled it; the guest runs on at the source."""

    kind = "cancelled"


class HypervisorError(TeleportError):
    """QEMU refused a command, failed, or died; `why` carries its own words."""

    kind = "hypervisor"


class StorageError(TeleportError):
    """Shared storage or a local file could not be read or written."""

    kind = "storage"


class InDoubtError(TeleportError):
    """It cannot be known whether the target runs the guest; a paused copy is kept (`teleport resolve`)."""

    exit_code = 3
    kind = "in-doubt"


class GuestLostError(TeleportError):
    """The guest is gone, as by a power cut."""

    exit_code = 4
    kind = "guest-lost"
