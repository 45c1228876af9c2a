"""teleport.errors ↔ gRPC status: every error of ours crosses whole; a foreign one becomes words that a person understands."""

import contextlib
from collections.abc import Sequence
from typing import NoReturn

import grpc
from google.protobuf.message import DecodeError

from teleport import errors
from teleport.errors import ProtocolError, RefusedError, TeleportError, UnreachableError
from teleport.wire._generated.teleport.v1 import transfer_pb2 as transfer

TRAILER = "teleport-failure-bin"
_COLUMNS = ("what", "here", "there", "mend")
_DETAILS_CHARACTERS = 1000

_KINDS: dict[str, type[TeleportError]] = {
    each.kind: each
    for each in vars(errors).values()
    if isinstance(each, type) and issubclass(each, TeleportError) and each is not RefusedError
}
_CODES = {
    "usage": grpc.StatusCode.INVALID_ARGUMENT,
    "not-found": grpc.StatusCode.NOT_FOUND,
    "busy": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "refused": grpc.StatusCode.FAILED_PRECONDITION,
    "protocol": grpc.StatusCode.FAILED_PRECONDITION,
    "state": grpc.StatusCode.FAILED_PRECONDITION,
    "cancelled": grpc.StatusCode.CANCELLED,
}

_FOREIGN: dict[grpc.StatusCode, tuple[type[TeleportError], str, str]] = {
    grpc.StatusCode.UNAVAILABLE: (UnreachableError, "does not answer", "is the VM still waiting there?"),
    grpc.StatusCode.DEADLINE_EXCEEDED: (UnreachableError, "did not answer in time", ""),
    grpc.StatusCode.CANCELLED: (UnreachableError, "ended the call", ""),
    grpc.StatusCode.UNIMPLEMENTED: (ProtocolError, "does not know this call", "is it Teleport, and of the same version?"),
}


def failure_to_wire(error: TeleportError) -> transfer.Failure:
    """The whole error as a message."""
    rows = error.findings if isinstance(error, RefusedError) else ()
    return transfer.Failure(
        kind=error.kind,
        what=_sendable(error.what),
        why=_sendable(error.why),
        hint=_sendable(error.hint),
        findings=[transfer.Finding(**dict(zip(_COLUMNS, map(_sendable, row), strict=False))) for row in rows],
    )


def _sendable(text: str) -> str:
    """Names of files need not be UTF-8, a message's text must be; an error about one has to cross all the same."""
    return text.encode("utf-8", "backslashreplace").decode()


def failure_from_wire(m: transfer.Failure) -> TeleportError:
    """The error again, in its own class; a kind that this build does not know is a plain TeleportError."""
    if m.kind == RefusedError.kind:
        rows = tuple((f.what, f.here, f.there, f.mend) for f in m.findings)
        return RefusedError(m.what, m.why, m.hint, findings=rows)
    return _KINDS.get(m.kind, TeleportError)(m.what, m.why, m.hint)


def abort_with(context: grpc.ServicerContext, error: TeleportError) -> NoReturn:
    """Ends a servicer's call with the whole error."""
    context.set_trailing_metadata(((TRAILER, failure_to_wire(error).SerializeToString()),))
    context.abort(_CODES.get(error.kind, grpc.StatusCode.ABORTED), _sendable(str(error))[:_DETAILS_CHARACTERS])
    raise AssertionError("abort returned")


def from_rpc_error(error: grpc.RpcError, *, where: str) -> TeleportError:
    """What a failed call means. `where` names the other side in words ("port 6000 on 'h'")."""
    if not isinstance(error, grpc.Call):
        return UnreachableError("the other side", f"{where}: {error}")
    trailing: Sequence[tuple[str, str | bytes]] = error.trailing_metadata() or ()
    for key, value in trailing:
        if key == TRAILER and isinstance(value, bytes):
            with contextlib.suppress(DecodeError):
                return failure_from_wire(transfer.Failure.FromString(value))
    code, details = error.code(), error.details() or ""
    kind, why, hint = _FOREIGN.get(code, (ProtocolError, f"failed: {code.name.lower().replace('_', ' ')} {details[:300]}", ""))
    return kind("the other side", f"{where} {why}", hint)
