"""Protobuf ↔ model is total and loses nothing: what is sent is what arrives, through the bytes."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleport import errors
from teleport.errors import ProtocolError, RefusedError, TeleportError
from teleport.model import (
    Fact,
    Finding,
    GuestIdentity,
    LiveReport,
    MediumFact,
    Outcome,
    OutcomeKind,
    Owner,
    PrepareOrder,
    Progress,
    Proposal,
    ProposalAnswer,
    SourceHello,
    Stage,
    TargetHello,
    TargetPhase,
    TargetReport,
)
from teleport.wire import convert, status
from teleport.wire._generated.teleport.v1 import control_pb2 as control
from teleport.wire._generated.teleport.v1 import transfer_pb2 as transfer

text = st.text(max_size=20)
u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
real = st.floats(allow_nan=False)


def many(of: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(of, max_size=3).map(tuple)


words = st.frozensets(text, max_size=3)
fact = st.builds(Fact, text, text, text, text, text)
finding = st.builds(Finding, text, text, text, text)
owner = st.builds(Owner, text, text, text, text, text)
proofs = many(st.tuples(text, text))
medium = st.builds(
    MediumFact,
    node=text,
    kind=text,
    format=text,
    read_only=st.booleans(),
    virtual_size_bytes=u64,
    size_bytes=u64,
    path=text,
    snapshots=many(text),
    backing=text,
    identity=text,
    content=text,
    proof_file=text,
    proof_nonce=text,
    problem=text,
)
identity = st.builds(
    GuestIdentity, smbios_uuid=text, macs=st.dictionaries(u32, text, max_size=3).map(lambda macs: tuple(sorted(macs.items())))
)
source_hello = st.builds(
    SourceHello,
    epoch=text,
    versions=st.tuples(u32, u32),
    capabilities=words,
    required=words,
    vm_name=text,
    host=text,
    software=text,
    plan=text,
    handle=text,
    nonce=text,
)
target_hello = st.builds(TargetHello, u32, words, words, text, text, text, st.booleans())
proposal = st.builds(
    Proposal,
    facts=many(fact),
    media=many(medium),
    snapshots=many(text),
    owner=st.none() | owner,
    generation=u64,
    memory_bytes=u64,
    identity=identity,
    plan=text,
    paused=st.booleans(),
    record_folder_name=text,
    display=text,
    display_moves=st.booleans(),
)
answer = st.builds(
    ProposalAnswer,
    facts=many(fact),
    media=many(medium),
    findings=many(finding),
    proofs=proofs,
    owner=st.none() | owner,
    record_generation=st.integers(-1, 2**63 - 1),
)
order = st.builds(PrepareOrder, text, many(fact), proofs, st.booleans())
live = st.builds(LiveReport, many(fact), many(finding))
report = st.builds(TargetReport, st.sampled_from(TargetPhase), text, u32, text, u64, text, st.booleans(), many(text))
progress = st.builds(
    Progress,
    stage=st.sampled_from(Stage),
    percent=u32,
    round=u32,
    sent_bytes=u64,
    remaining_bytes=u64,
    rate_bytes_per_second=real,
    dirty_bytes_per_second=real,
    eta_seconds=st.none() | real,
    converging=st.booleans(),
    plan=text,
)
outcome = st.builds(Outcome, st.sampled_from(OutcomeKind), text, text, text, text, u32, u64, real, real, text, text)

ROUND_TRIPS: list[tuple[str, st.SearchStrategy[Any], Callable[[Any], Any], type[Any], Callable[[Any], Any]]] = [
    ("open", source_hello, convert.source_hello_to_wire, transfer.OpenRequest, convert.source_hello_from_wire),
    ("opened", target_hello, convert.target_hello_to_wire, transfer.OpenResponse, convert.target_hello_from_wire),
    ("propose", proposal, lambda v: convert.proposal_to_wire("e", v), transfer.ProposeRequest, convert.proposal_from_wire),
    ("proposed", answer, convert.answer_to_wire, transfer.ProposeResponse, convert.answer_from_wire),
    ("prepare", order, lambda v: convert.order_to_wire("e", v), transfer.PrepareRequest, convert.order_from_wire),
    ("prepared", live, convert.live_to_wire, transfer.PrepareResponse, convert.live_from_wire),
    ("report", report, convert.report_to_wire, transfer.TargetReport, convert.report_from_wire),
    ("progress", progress, convert.progress_to_wire, control.Progress, convert.progress_from_wire),
    ("outcome", outcome, convert.outcome_to_wire, control.Outcome, convert.outcome_from_wire),
]


@pytest.mark.parametrize(("values", "to", "kind", "back"), [pytest.param(*row[1:], id=row[0]) for row in ROUND_TRIPS])
def test_round_trip(values: Any, to: Any, kind: Any, back: Any) -> None:
    @given(values)
    def check(value: Any) -> None:
        assert back(kind.FromString(to(value).SerializeToString())) == value

    check()


@pytest.mark.parametrize(("kind", "back"), [pytest.param(row[3], row[4], id=row[0]) for row in ROUND_TRIPS])
@given(st.data())
def test_whatever_a_peer_says_is_understood_or_refused_in_words(kind: Any, back: Any, data: st.DataObject) -> None:
    """Any message of that type, with words that this build does not know, never ends in a crash."""
    message = kind()
    for field in message.DESCRIPTOR.fields:
        if field.is_repeated or field.message_type is not None or not data.draw(st.booleans()):
            continue
        value = data.draw({"": text, "0": u32}["" if isinstance(field.default_value, str) else "0"])
        setattr(message, field.name, bool(value) if isinstance(field.default_value, bool) else value)
    try:
        back(message)
    except ProtocolError as error:
        assert error.why


@pytest.mark.parametrize(
    ("message", "back"),
    [
        (transfer.TargetReport(phase="flown"), convert.report_from_wire),
        (control.Progress(stage="dancing"), convert.progress_from_wire),
        (control.Outcome(kind="odd"), convert.outcome_from_wire),
    ],
)
def test_an_unknown_word_is_named(message: Any, back: Any) -> None:
    with pytest.raises(ProtocolError, match=r"flown|dancing|odd"):
        back(message)


def test_what_a_field_cannot_hold_is_an_error_of_ours() -> None:
    with pytest.raises(ProtocolError):
        convert.live_to_wire(LiveReport(facts=(Fact("block", "a", "path", "/srv/\udcff"),)))
    with pytest.raises(ProtocolError):
        convert.report_to_wire(TargetReport(TargetPhase.STARTED, qemu_pid=-1))


def test_floats_that_are_no_numbers_cross() -> None:
    sent = convert.progress_to_wire(Progress(Stage.COPYING, 3, rate_bytes_per_second=math.nan, eta_seconds=math.inf))
    back = convert.progress_from_wire(control.Progress.FromString(sent.SerializeToString()))
    assert math.isnan(back.rate_bytes_per_second)
    assert back.eta_seconds == math.inf


KINDS = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, TeleportError)]


@given(st.sampled_from(KINDS), text, text, text, st.lists(st.tuples(text, text, text, text), max_size=3).map(tuple))
def test_every_error_crosses_whole(kind: type[TeleportError], what: str, why: str, hint: str, rows: Any) -> None:
    error = RefusedError(what, why, hint, findings=rows) if kind is RefusedError else kind(what, why, hint)
    sent = status.failure_to_wire(error).SerializeToString()
    back = status.failure_from_wire(transfer.Failure.FromString(sent))
    assert type(back) is kind
    assert (back.what, back.why, back.hint) == (what, why, hint)
    if isinstance(back, RefusedError):
        assert back.findings == rows


def test_an_error_about_a_name_that_is_no_utf_8_crosses() -> None:
    back = status.failure_from_wire(status.failure_to_wire(errors.StorageError("disk /srv/\udcff", "gone")))
    assert back.what == "disk /srv/\\udcff"


def test_an_error_of_a_kind_that_only_a_newer_peer_knows_keeps_its_words() -> None:
    back = status.failure_from_wire(transfer.Failure(kind="entangled", what="w", why="y", hint="h"))
    assert (type(back), str(back)) == (TeleportError, "w: y; h")
