"""The shared vocabulary in protobuf: what both the public API and quota are told."""

from __future__ import annotations

from typing import Final

from flowstack_protos.type.v1 import type_pb2
from google.protobuf.duration_pb2 import Duration

from services.router.domain.outcome import Attempt, AttemptFailure, FinishReason, Outcome, SessionState
from services.router.domain.quota import Quota
from services.router.domain.request import CredentialMode

CREDENTIAL_MODES: Final = {
    CredentialMode.MANAGED: type_pb2.CREDENTIAL_MODE_MANAGED,
    CredentialMode.BYOK: type_pb2.CREDENTIAL_MODE_BYOK,
}
SESSION_STATES: Final = {
    SessionState.RESERVED: type_pb2.SESSION_STATE_RESERVED,
    SessionState.COMMITTED: type_pb2.SESSION_STATE_COMMITTED,
    SessionState.RELEASED: type_pb2.SESSION_STATE_RELEASED,
    SessionState.EXPIRED: type_pb2.SESSION_STATE_EXPIRED,
}
FINISH_REASONS: Final = {
    FinishReason.STOP: type_pb2.FINISH_REASON_STOP,
    FinishReason.STOP_SEQUENCE: type_pb2.FINISH_REASON_STOP_SEQUENCE,
    FinishReason.MAX_OUTPUT_TOKENS: type_pb2.FINISH_REASON_MAX_OUTPUT_TOKENS,
    FinishReason.TOOL_CALLS: type_pb2.FINISH_REASON_TOOL_CALLS,
    FinishReason.CONTENT_FILTER: type_pb2.FINISH_REASON_CONTENT_FILTER,
    FinishReason.TIME_LIMIT: type_pb2.FINISH_REASON_TIME_LIMIT,
    FinishReason.CANCELLED: type_pb2.FINISH_REASON_CANCELLED,
    FinishReason.CALLER_ERROR: type_pb2.FINISH_REASON_CALLER_ERROR,
    FinishReason.FAILED: type_pb2.FINISH_REASON_FAILED,
}
ATTEMPT_FAILURES: Final = {
    None: type_pb2.ATTEMPT_FAILURE_UNSPECIFIED,
    AttemptFailure.UNREACHABLE: type_pb2.ATTEMPT_FAILURE_UNREACHABLE,
    AttemptFailure.PROVIDER_ERROR: type_pb2.ATTEMPT_FAILURE_PROVIDER_ERROR,
    AttemptFailure.RATE_LIMITED: type_pb2.ATTEMPT_FAILURE_RATE_LIMITED,
    AttemptFailure.CREDENTIALS_REFUSED: type_pb2.ATTEMPT_FAILURE_CREDENTIALS_REFUSED,
    AttemptFailure.REQUEST_REJECTED: type_pb2.ATTEMPT_FAILURE_REQUEST_REJECTED,
    AttemptFailure.TRUNCATED: type_pb2.ATTEMPT_FAILURE_TRUNCATED,
    AttemptFailure.MALFORMED: type_pb2.ATTEMPT_FAILURE_MALFORMED,
    AttemptFailure.STALLED: type_pb2.ATTEMPT_FAILURE_STALLED,
    AttemptFailure.ABANDONED: type_pb2.ATTEMPT_FAILURE_ABANDONED,
}


def outcome_to_proto(outcome: Outcome) -> type_pb2.SessionOutcome:
    """How a session ended. Counts that are unknown stay unset."""
    usage = outcome.usage
    mode = outcome.served_credential_mode
    first_us = outcome.time_to_first_token_us
    return type_pb2.SessionOutcome(
        finish_reason=FINISH_REASONS[outcome.finish_reason],
        provider_finish_reason=clipped(outcome.provider_finish_reason, 64),
        served_provider=outcome.served_provider,
        served_model=outcome.served_model,
        served_credential_mode=CREDENTIAL_MODES[mode] if mode else type_pb2.CREDENTIAL_MODE_UNSPECIFIED,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        attempts=[_attempt_to_proto(attempt) for attempt in outcome.attempts],
        provider_latency=_duration(outcome.provider_latency_us),
        time_to_first_token=None if first_us is None else _duration(first_us),
        provider_request_id=clipped(outcome.provider_request_id, 256),
        tool_call_count=outcome.tool_call_count,
    )


def quota_to_proto(quota: Quota) -> type_pb2.Quota:
    """An account's quota."""
    message = type_pb2.Quota(
        account_id=quota.account_id,
        plan_id=quota.plan_id,
        session_limit=quota.session_limit,
        sessions_committed=quota.sessions_committed,
        managed_sessions=quota.managed_sessions,
        byok_sessions=quota.byok_sessions,
        sessions_reserved=quota.sessions_reserved,
        sessions_remaining=quota.sessions_remaining,
        managed_providers=quota.managed_providers,
        max_concurrent_sessions=quota.max_concurrent_sessions,
        max_output_tokens=quota.max_output_tokens,
        max_tool_rounds=quota.max_tool_rounds,
        sessions_available=quota.sessions_available,
        refusal_reason=quota.refusal_reason,
        entitlement_revision=quota.entitlement_revision,
    )
    message.period_start_time.FromMicroseconds(quota.period_start_us)
    message.period_end_time.FromMicroseconds(quota.period_end_us)
    return message


def clipped(text: str, bytes_max: int) -> str:
    """`text` cut to `bytes_max` bytes of UTF-8, never within a character."""
    encoded = text.encode()
    return text if len(encoded) <= bytes_max else encoded[:bytes_max].decode(errors="ignore")


def _attempt_to_proto(attempt: Attempt) -> type_pb2.Attempt:
    return type_pb2.Attempt(
        provider=attempt.provider,
        model=attempt.model,
        failure=ATTEMPT_FAILURES[attempt.failure],
        input_tokens=attempt.input_tokens,
        output_tokens=attempt.output_tokens,
    )


def _duration(microseconds: int) -> Duration:
    return Duration(seconds=microseconds // 1_000_000, nanos=microseconds % 1_000_000 * 1000)
