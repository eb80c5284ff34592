"""Commands in; sessions, quotas and results out.

On the hot path: messages are filled in place, where they will stay.
"""

from __future__ import annotations

from flowstack_protos.quota.v1 import quota_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2

from services.quota.convert.times import fill_time
from services.quota.domain.commands import LEASE_US_DEFAULT, Command, Commit, Done, Release, Reserve, Result
from services.quota.domain.model import Candidate, Outcome, Quota, Session
from services.shared.errors import FlowStackError
from services.shared.status import status_from_error


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


def fill_result(message: pb.SessionCommandResult, sequence: int, command: Command | None, result: Result) -> None:
    """Sets `message` to the result of one command of a batch."""
    message.sequence = sequence
    if isinstance(result, FlowStackError):
        message.error.CopyFrom(status_from_error(result))
    elif isinstance(command, Reserve):
        fill_done(message.reserve, result)
    elif isinstance(command, Commit):
        fill_done(message.commit, result)
    else:
        fill_done(message.release, result)


def reserve_response(done: Done) -> pb.ReserveSessionResponse:
    """Domain to ReserveSessionResponse."""
    message = pb.ReserveSessionResponse()
    fill_done(message, done)
    return message


def commit_response(done: Done) -> pb.CommitSessionResponse:
    """Domain to CommitSessionResponse."""
    message = pb.CommitSessionResponse()
    fill_done(message, done)
    return message


def release_response(done: Done) -> pb.ReleaseSessionResponse:
    """Domain to ReleaseSessionResponse."""
    message = pb.ReleaseSessionResponse()
    fill_done(message, done)
    return message


def fill_done(
    message: pb.ReserveSessionResponse | pb.CommitSessionResponse | pb.ReleaseSessionResponse, done: Done
) -> None:
    """Sets the response of a command that succeeded."""
    fill_session(message.session, done.session)
    if done.quota is not None:
        fill_quota(message.quota, done.quota)
    if done.replayed:
        message.replayed = True


def fill_session(message: type_pb2.Session, session: Session) -> None:
    """Sets `message` to a session. Fields at their defaults are left out: each assignment counts here."""
    message.session_id = session.session_id
    message.account_id = session.account_id
    message.state = session.state  # type: ignore[assignment]  # the numbers are the contract's
    for provider, model, mode in session.candidates:
        message.candidates.add(provider=provider, model=model, credential_mode=mode)
    if session.reserve_us:
        fill_time(message.period_start_time, session.period_start_us)
        fill_time(message.reserve_time, session.reserve_us)
        fill_time(message.expire_time, session.expire_us)
        message.entitlement_revision = session.entitlement_revision
    if session.resolve_us:
        fill_time(message.resolve_time, session.resolve_us)
    if session.outcome is not None:
        message.outcome.MergeFromString(session.outcome.payload)
    if session.release_reason:
        message.release_reason = session.release_reason  # type: ignore[assignment]  # the numbers are the contract's
    if session.request_id:
        message.request_id = session.request_id
    if session.api_key_id:
        message.api_key_id = session.api_key_id
    if session.labels:
        message.labels.update(session.labels)


def session_to_proto(session: Session) -> type_pb2.Session:
    """Domain to Session."""
    message = type_pb2.Session()
    fill_session(message, session)
    return message


def fill_quota(message: type_pb2.Quota, quota: Quota) -> None:
    """Sets `message` to a quota."""
    committed = quota.managed_sessions + quota.byok_sessions
    message.account_id = quota.account_id
    message.plan_id = quota.plan_id
    fill_time(message.period_start_time, quota.period_start_us)
    fill_time(message.period_end_time, quota.period_end_us)
    message.session_limit = quota.session_limit
    message.sessions_committed = committed
    message.managed_sessions = quota.managed_sessions
    message.byok_sessions = quota.byok_sessions
    message.sessions_reserved = quota.sessions_reserved
    message.sessions_remaining = max(0, quota.session_limit - committed - quota.sessions_reserved)
    message.managed_providers.extend(quota.managed_providers)
    message.max_concurrent_sessions = quota.max_concurrent_sessions
    message.max_output_tokens = quota.max_output_tokens
    message.max_tool_rounds = quota.max_tool_rounds
    message.sessions_available = not quota.refusal_reason
    message.refusal_reason = quota.refusal_reason
    message.entitlement_revision = quota.entitlement_revision


def quota_to_proto(quota: Quota) -> type_pb2.Quota:
    """Domain to Quota."""
    message = type_pb2.Quota()
    fill_quota(message, quota)
    return message
