"""Protobuf to domain and back. Nothing else of quota knows both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

from flowstack_protos.quota.v1 import quota_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.quota.domain.commands import LEASE_US_DEFAULT, Command, Commit, Done, Release, Reserve, Result
from services.quota.domain.cursors import Position, cursor_from_position, position_from_cursor
from services.quota.domain.model import (
    Block,
    BlockReason,
    Candidate,
    Entitlement,
    Outcome,
    Quota,
    Session,
    SessionEvent,
    Term,
)
from services.quota.service import PartitionPage
from services.shared.errors import FlowStackError, invalid_request
from services.shared.status import status_from_error

RESPONSE_BYTES: Final = 1024 * 1024
"""About how large a message of a response stream becomes, plus one result or event. A client takes 4 MiB by default."""

MessageT = TypeVar("MessageT", bound=Message)

TIMESTAMP_US_MAX = 253_402_300_800 * 1_000_000
"""The first moment of the year 10000, in microseconds: what a Timestamp may not reach."""


def reserve_from_proto(request: pb.ReserveSessionRequest) -> Reserve:
    """ReserveSessionRequest to domain."""
    lease_us = LEASE_US_DEFAULT
    if request.HasField("lease_duration"):
        lease_us = request.lease_duration.seconds * 1_000_000 + request.lease_duration.nanos // 1000
    return Reserve(
        request.account_id,
        request.session_id,
        tuple(Candidate(c.provider, c.model, c.credential_mode) for c in request.candidates),
        lease_us,
        request.request_id,
        request.api_key_id,
        tuple(sorted(request.labels.items())) if request.labels else (),
    )


def commit_from_proto(request: pb.CommitSessionRequest) -> Commit:
    """CommitSessionRequest to domain."""
    return Commit(request.account_id, request.session_id, outcome_from_proto(request.outcome))


def release_from_proto(request: pb.ReleaseSessionRequest) -> Release:
    """ReleaseSessionRequest to domain."""
    outcome = outcome_from_proto(request.outcome) if request.HasField("outcome") else None
    return Release(request.account_id, request.session_id, request.reason, outcome)


def command_from_proto(command: pb.SessionCommand) -> Command:
    """SessionCommand to domain."""
    kind = command.WhichOneof("command")
    if kind == "reserve":
        return reserve_from_proto(command.reserve)
    if kind == "commit":
        return commit_from_proto(command.commit)
    return release_from_proto(command.release)


def outcome_from_proto(outcome: type_pb2.SessionOutcome) -> Outcome:
    """SessionOutcome to domain: the whole of it as bytes, so that what a newer router adds is kept too."""
    return Outcome(outcome.served_credential_mode, outcome.SerializeToString(deterministic=True))


def result_to_proto(sequence: int, command: Command, result: Result) -> pb.SessionCommandResult:
    """The result of one command of a batch."""
    if isinstance(result, FlowStackError):
        return failure_to_proto(sequence, result)
    if isinstance(command, Reserve):
        return pb.SessionCommandResult(sequence=sequence, reserve=reserve_response(result))
    if isinstance(command, Commit):
        return pb.SessionCommandResult(sequence=sequence, commit=commit_response(result))
    return pb.SessionCommandResult(sequence=sequence, release=release_response(result))


def results_to_proto(results: Iterable[pb.SessionCommandResult]) -> Iterator[pb.ExecuteCommandsResponse]:
    """The results of a batch, in messages that every client takes; one even where there are no results."""
    for some in _portions(results):
        yield pb.ExecuteCommandsResponse(results=some)


def _portions(messages: Iterable[MessageT]) -> Iterator[list[MessageT]]:
    """The messages in lists of about RESPONSE_BYTES; one empty list where there are none."""
    portion: list[MessageT] = []
    size = 0
    for message in messages:
        if size >= RESPONSE_BYTES:
            yield portion
            portion, size = [], 0
        portion.append(message)
        size += message.ByteSize()
    yield portion


def failure_to_proto(sequence: int, error: FlowStackError) -> pb.SessionCommandResult:
    """The result of a command that failed."""
    return pb.SessionCommandResult(sequence=sequence, error=status_from_error(error))


def reserve_response(done: Done) -> pb.ReserveSessionResponse:
    """Domain to ReserveSessionResponse."""
    return pb.ReserveSessionResponse(
        session=session_to_proto(done.session), quota=_optional_quota(done.quota), replayed=done.replayed
    )


def commit_response(done: Done) -> pb.CommitSessionResponse:
    """Domain to CommitSessionResponse."""
    return pb.CommitSessionResponse(
        session=session_to_proto(done.session), quota=_optional_quota(done.quota), replayed=done.replayed
    )


def release_response(done: Done) -> pb.ReleaseSessionResponse:
    """Domain to ReleaseSessionResponse."""
    return pb.ReleaseSessionResponse(
        session=session_to_proto(done.session), quota=_optional_quota(done.quota), replayed=done.replayed
    )


def _optional_quota(quota: Quota | None) -> type_pb2.Quota | None:
    return None if quota is None else quota_to_proto(quota)


def session_to_proto(session: Session) -> type_pb2.Session:
    """Domain to Session."""
    return type_pb2.Session(
        session_id=session.session_id,
        account_id=session.account_id,
        state=session.state.value,  # type: ignore[arg-type]  # the numbers are the contract's
        candidates=[
            type_pb2.Candidate(provider=c.provider, model=c.model, credential_mode=c.credential_mode)  # type: ignore[arg-type]  # as above
            for c in session.candidates
        ],
        period_start_time=_optional_time(session.period_start_us),
        reserve_time=_optional_time(session.reserve_us),
        expire_time=_optional_time(session.expire_us),
        resolve_time=_optional_time(session.resolve_us),
        outcome=None if session.outcome is None else type_pb2.SessionOutcome.FromString(session.outcome.payload),
        release_reason=session.release_reason,  # type: ignore[arg-type]  # as above
        request_id=session.request_id,
        api_key_id=session.api_key_id,
        labels=dict(session.labels),
        entitlement_revision=session.entitlement_revision,
    )


def quota_to_proto(quota: Quota) -> type_pb2.Quota:
    """Domain to Quota."""
    committed = quota.managed_sessions + quota.byok_sessions
    return type_pb2.Quota(
        account_id=quota.account_id,
        plan_id=quota.plan_id,
        period_start_time=time_to_proto(quota.period_start_us),
        period_end_time=time_to_proto(quota.period_end_us),
        session_limit=quota.session_limit,
        sessions_committed=committed,
        managed_sessions=quota.managed_sessions,
        byok_sessions=quota.byok_sessions,
        sessions_reserved=quota.sessions_reserved,
        sessions_remaining=max(0, quota.session_limit - committed - quota.sessions_reserved),
        managed_providers=quota.managed_providers,
        max_concurrent_sessions=quota.max_concurrent_sessions,
        max_output_tokens=quota.max_output_tokens,
        max_tool_rounds=quota.max_tool_rounds,
        sessions_available=not quota.refusal_reason,
        refusal_reason=quota.refusal_reason,
        entitlement_revision=quota.entitlement_revision,
    )


def entitlement_from_proto(entitlement: pb.Entitlement) -> Entitlement:
    """Entitlement to domain.

    Raises:
        FlowStackError: INVALID_REQUEST for times beyond what a period can be computed from.
    """
    block = None
    if entitlement.HasField("block"):
        until_us = us_from_proto(entitlement.block.until_time, "entitlement.block.until_time")
        block = Block(BlockReason(entitlement.block.reason), entitlement.block.message, until_us)
    return Entitlement(
        entitlement.account_id,
        entitlement.revision,
        entitlement.subscription_id,
        us_from_proto(entitlement.period_anchor_time, "entitlement.period_anchor_time"),
        tuple(_term_from_proto(term) for term in entitlement.terms),
        us_from_proto(entitlement.end_time, "entitlement.end_time"),
        block,
    )


def _term_from_proto(term: pb.EntitlementTerm) -> Term:
    return Term(
        us_from_proto(term.effective_time, "entitlement.terms.effective_time"),
        term.plan_id,
        term.session_limit,
        tuple(term.managed_providers),
        term.max_concurrent_sessions,
        term.max_output_tokens,
        term.max_tool_rounds,
        term.upgrade_plan_id,
    )


def entitlement_to_proto(entitlement: Entitlement) -> pb.Entitlement:
    """Domain to Entitlement."""
    block = entitlement.block
    return pb.Entitlement(
        account_id=entitlement.account_id,
        revision=entitlement.revision,
        subscription_id=entitlement.subscription_id,
        period_anchor_time=time_to_proto(entitlement.period_anchor_us),
        terms=[_term_to_proto(term) for term in entitlement.terms],
        end_time=_optional_time(entitlement.end_us),
        block=None
        if block is None
        else pb.Block(
            reason=block.reason.value,  # type: ignore[arg-type]  # as above
            message=block.message,
            until_time=_optional_time(block.until_us),
        ),
    )


def _term_to_proto(term: Term) -> pb.EntitlementTerm:
    return pb.EntitlementTerm(
        effective_time=time_to_proto(term.effective_us),
        plan_id=term.plan_id,
        session_limit=term.session_limit,
        managed_providers=term.managed_providers,
        max_concurrent_sessions=term.max_concurrent_sessions,
        max_output_tokens=term.max_output_tokens,
        max_tool_rounds=term.max_tool_rounds,
        upgrade_plan_id=term.upgrade_plan_id,
    )


def position_from_proto(epoch: str, position: pb.PartitionPosition) -> Position:
    """PartitionPosition to domain.

    Raises:
        FlowStackError: INVALID_REQUEST for a cursor that is none of this store's partition.
    """
    return position_from_cursor(epoch, position.partition, position.after_cursor)


def event_to_proto(epoch: str, event: SessionEvent) -> pb.SessionEvent:
    """Domain to SessionEvent."""
    return pb.SessionEvent(
        partition=event.partition,
        cursor=cursor_from_position(epoch, Position(event.partition, event.position, event.time_us)),
        type=event.type.value,  # type: ignore[arg-type]  # as above
        event_time=time_to_proto(event.time_us),
        session=session_to_proto(event.session),
    )


def page_to_proto(epoch: str, found: PartitionPage) -> Iterator[pb.ReadSessionEventsResponse]:
    """A page of one partition, in messages that every client takes; the last with a watermark, where it is complete."""
    portions = list(_portions(event_to_proto(epoch, event) for event in found.page.events))
    for events in portions[:-1]:
        yield pb.ReadSessionEventsResponse(events=events)
    last = pb.ReadSessionEventsResponse(events=portions[-1])
    if not found.page.has_more:
        last.watermarks.add(
            partition=found.partition,
            watermark_time=time_to_proto(found.page.watermark_us),
            oldest_reserve_time=_optional_time(found.page.oldest_reserve_us),
        )
    yield last


def time_to_proto(time_us: int) -> Timestamp:
    """Microseconds since 1970 to Timestamp."""
    seconds, microseconds = divmod(time_us, 1_000_000)
    return Timestamp(seconds=seconds, nanos=microseconds * 1000)


def _optional_time(time_us: int) -> Timestamp | None:
    return time_to_proto(time_us) if time_us else None


def us_from_proto(time: Timestamp, field: str) -> int:
    """Timestamp to microseconds since 1970; 0 where unset.

    Raises:
        FlowStackError: INVALID_REQUEST for a time before 1970 or after 9000, whose periods no calendar could give.
    """
    time_us = time.seconds * 1_000_000 + time.nanos // 1000
    if not 0 <= time_us < TIMESTAMP_US_MAX - 1000 * 366 * 86_400 * 1_000_000 or not 0 <= time.nanos < 1_000_000_000:
        raise invalid_request(field, "must be a time between 1970 and 9000")
    return time_us
