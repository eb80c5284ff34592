"""Between the router's own types and quota's messages."""

from __future__ import annotations

from typing import Final

from flowstack_protos.quota.v1 import quota_service_pb2 as quota_pb
from flowstack_protos.type.v1 import type_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from services.router.convert_common import CREDENTIAL_MODES, outcome_to_proto
from services.router.domain.outcome import Outcome, ReleaseReason, SessionState
from services.router.domain.quota import Grant, Quota, Reservation, Resolution

RELEASE_REASONS: Final = {
    ReleaseReason.PROVIDER_FAILED: type_pb2.RELEASE_REASON_PROVIDER_FAILED,
    ReleaseReason.CLIENT_CANCELLED: type_pb2.RELEASE_REASON_CLIENT_CANCELLED,
    ReleaseReason.TIME_LIMIT: type_pb2.RELEASE_REASON_TIME_LIMIT,
    ReleaseReason.SHUTTING_DOWN: type_pb2.RELEASE_REASON_SHUTTING_DOWN,
    ReleaseReason.INTERNAL: type_pb2.RELEASE_REASON_INTERNAL,
    ReleaseReason.RESERVATION_UNKNOWN: type_pb2.RELEASE_REASON_RESERVATION_UNKNOWN,
    ReleaseReason.REQUEST_REJECTED: type_pb2.RELEASE_REASON_REQUEST_REJECTED,
}
_STATES: Final = {
    type_pb2.SESSION_STATE_RESERVED: SessionState.RESERVED,
    type_pb2.SESSION_STATE_COMMITTED: SessionState.COMMITTED,
    type_pb2.SESSION_STATE_RELEASED: SessionState.RELEASED,
    type_pb2.SESSION_STATE_EXPIRED: SessionState.EXPIRED,
}
_MICROSECONDS: Final = 1_000_000


def reserve_to_proto(reservation: Reservation) -> quota_pb.ReserveSessionRequest:
    """The command that holds a unit."""
    message = quota_pb.ReserveSessionRequest(account_id=reservation.account_id, session_id=reservation.session_id)
    for candidate in reservation.candidates:
        message.candidates.add(
            provider=candidate.provider,
            model=candidate.model,
            credential_mode=CREDENTIAL_MODES[candidate.credential_mode],
        )
    # An empty text is not a value that quota takes: unset is.
    if reservation.request_id:
        message.request_id = reservation.request_id
    if reservation.api_key_id:
        message.api_key_id = reservation.api_key_id
    if reservation.labels:
        message.labels.update(reservation.labels)
    lease_us = round(reservation.lease_s * _MICROSECONDS)
    message.lease_duration.seconds, microseconds = divmod(lease_us, _MICROSECONDS)
    message.lease_duration.nanos = microseconds * 1000
    return message


def commit_to_proto(account_id: str, session_id: str, outcome: Outcome) -> quota_pb.CommitSessionRequest:
    """The command that counts a session."""
    return quota_pb.CommitSessionRequest(
        account_id=account_id, session_id=session_id, outcome=outcome_to_proto(outcome)
    )


def release_to_proto(
    account_id: str, session_id: str, reason: ReleaseReason, outcome: Outcome | None
) -> quota_pb.ReleaseSessionRequest:
    """The command that gives a unit back."""
    return quota_pb.ReleaseSessionRequest(
        account_id=account_id,
        session_id=session_id,
        reason=RELEASE_REASONS[reason],
        outcome=None if outcome is None else outcome_to_proto(outcome),
    )


def grant_from_proto(message: quota_pb.ReserveSessionResponse) -> Grant:
    """Quota's answer to a reservation."""
    return Grant(quota_from_proto(message.quota), message.replayed)


def resolution_from_proto(
    message: quota_pb.CommitSessionResponse | quota_pb.ReleaseSessionResponse,
) -> Resolution:
    """Where the session stands now."""
    quota = quota_from_proto(message.quota) if message.HasField("quota") else None
    return Resolution(_STATES[message.session.state], quota)


def quota_from_proto(message: type_pb2.Quota) -> Quota:
    """An account's quota."""
    return Quota(
        message.account_id,
        message.plan_id,
        _us(message.period_start_time),
        _us(message.period_end_time),
        message.session_limit,
        message.sessions_committed,
        message.managed_sessions,
        message.byok_sessions,
        message.sessions_reserved,
        message.sessions_remaining,
        tuple(message.managed_providers),
        message.max_concurrent_sessions,
        message.max_output_tokens,
        message.max_tool_rounds,
        message.sessions_available,
        message.refusal_reason,
        message.entitlement_revision,
    )


def _us(time: Timestamp) -> int:
    return time.seconds * _MICROSECONDS + time.nanos // 1000
