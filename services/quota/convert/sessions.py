"""Sessions, quotas and results out.

On the hot path: messages are filled in place, where they will stay.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from flowstack_protos.quota.v1 import quota_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2

from services.quota.convert.times import fill_time
from services.quota.domain.commands import Command, Commit, Done, Reserve, Result
from services.quota.domain.model import Candidate, Quota, Session, Term
from services.shared.errors import FlowStackError
from services.shared.status import status_from_error

FillSession = Callable[[type_pb2.Session, Session], None]
"""Sets a message to as much of a session as its reader asked for."""

FRAMES_KEPT: Final = 16_384
"""Prepared parts of answers that are kept, of each kind: one for an account in use. About 500 bytes each."""


def fill_result(
    message: pb.SessionCommandResult, sequence: int, command: Command | None, result: Result, fill: FillSession
) -> None:
    """Sets `message` to the result of one command of a batch, its session as `fill` does it."""
    message.sequence = sequence
    if isinstance(result, FlowStackError):
        message.error.CopyFrom(status_from_error(result))
    elif isinstance(command, Reserve):
        fill_done(message.reserve, result, fill)
    elif isinstance(command, Commit):
        fill_done(message.commit, result, fill)
    else:
        fill_done(message.release, result, fill)


def reserve_response(done: Done) -> pb.ReserveSessionResponse:
    """Domain to ReserveSessionResponse."""
    message = pb.ReserveSessionResponse()
    fill_done(message, done, fill_session)
    return message


def commit_response(done: Done) -> pb.CommitSessionResponse:
    """Domain to CommitSessionResponse."""
    message = pb.CommitSessionResponse()
    fill_done(message, done, fill_session)
    return message


def release_response(done: Done) -> pb.ReleaseSessionResponse:
    """Domain to ReleaseSessionResponse."""
    message = pb.ReleaseSessionResponse()
    fill_done(message, done, fill_session)
    return message


def fill_done(
    message: pb.ReserveSessionResponse | pb.CommitSessionResponse | pb.ReleaseSessionResponse,
    done: Done,
    fill: FillSession,
) -> None:
    """Sets the response of a command that succeeded."""
    session, quota, replayed = done
    fill(message.session, session)
    if quota is not None:
        fill_quota(message.quota, quota)
    if replayed:
        message.replayed = True


def fill_session_in_brief(message: type_pb2.Session, session: Session) -> None:
    """Sets `message` to what SESSION_VIEW_BASIC holds."""
    message.session_id = session[0]
    message.state = session[2]  # type: ignore[assignment]  # the numbers are the contract's


def fill_session(message: type_pb2.Session, session: Session) -> None:
    """Sets `message` to a session. Fields at their defaults are left out: each assignment counts here."""
    id_, account_id, state, candidates, period, reserve, expire, resolve, outcome, reason, *_, revision = session
    if reserve:
        message.CopyFrom(_session_frame(candidates, period, revision))
        fill_time(message.reserve_time, reserve)
        fill_time(message.expire_time, expire)
    message.session_id = id_
    message.account_id = account_id
    message.state = state  # type: ignore[assignment]  # the numbers are the contract's
    if resolve:
        fill_time(message.resolve_time, resolve)
    if outcome is not None:
        message.outcome.MergeFromString(outcome.payload)
    if reason:
        message.release_reason = reason  # type: ignore[assignment]  # the numbers are the contract's
    if session.request_id:
        message.request_id = session.request_id
    if session.api_key_id:
        message.api_key_id = session.api_key_id
    if session.labels:
        message.labels.update(session.labels)


@lru_cache(maxsize=FRAMES_KEPT)
def _session_frame(candidates: tuple[Candidate, ...], period_start_us: int, revision: int) -> type_pb2.Session:
    """What many sessions of an account have in common: copied in one go, where each field set costs as much."""
    message = type_pb2.Session(entitlement_revision=revision)
    for provider, model, mode in candidates:
        message.candidates.add(provider=provider, model=model, credential_mode=mode)
    fill_time(message.period_start_time, period_start_us)
    return message


def session_to_proto(session: Session) -> type_pb2.Session:
    """Domain to Session."""
    message = type_pb2.Session()
    fill_session(message, session)
    return message


def fill_quota(message: type_pb2.Quota, quota: Quota) -> None:
    """Sets `message` to a quota."""
    account_id, term, period_start_us, period_end_us, managed, byok, reserved, refusal_reason, revision = quota
    committed = managed + byok
    message.CopyFrom(_quota_frame(term, period_start_us, period_end_us, revision))
    message.account_id = account_id
    message.sessions_committed = committed
    message.managed_sessions = managed
    message.byok_sessions = byok
    message.sessions_reserved = reserved
    message.sessions_remaining = max(0, term.session_limit - committed - reserved)
    if refusal_reason:
        message.refusal_reason = refusal_reason
    else:
        message.sessions_available = True


@lru_cache(maxsize=FRAMES_KEPT)
def _quota_frame(term: Term, period_start_us: int, period_end_us: int, revision: int) -> type_pb2.Quota:
    """What an account's quota says all through a period."""
    message = type_pb2.Quota(
        plan_id=term.plan_id,
        session_limit=term.session_limit,
        managed_providers=term.managed_providers,
        max_concurrent_sessions=term.max_concurrent_sessions,
        max_output_tokens=term.max_output_tokens,
        max_tool_rounds=term.max_tool_rounds,
        entitlement_revision=revision,
    )
    fill_time(message.period_start_time, period_start_us)
    fill_time(message.period_end_time, period_end_us)
    return message


def quota_to_proto(quota: Quota) -> type_pb2.Quota:
    """Domain to Quota."""
    message = type_pb2.Quota()
    fill_quota(message, quota)
    return message
