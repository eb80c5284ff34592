"""What goes to quota and comes from it."""

from __future__ import annotations

import orjson
from flowstack_protos.quota.v1 import quota_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2

from services.billing.domain.entitlements import Block, Entitlement, EntitlementTerm
from services.billing.domain.ledger import EventBatch, LedgerEntry, PositionedEntry, Watermark
from services.billing.domain.usage import QuotaReading
from services.shared.times import optional_time_to_proto, time_to_proto, us_from_duration, us_from_proto


def entitlement_to_proto(entitlement: Entitlement) -> pb.Entitlement:
    """Domain to Entitlement."""
    return pb.Entitlement(
        account_id=entitlement.account_id,
        revision=entitlement.revision,
        subscription_id=entitlement.subscription_id,
        period_anchor_time=time_to_proto(entitlement.period_anchor_us),
        terms=[_term_to_proto(term) for term in entitlement.terms],
        end_time=optional_time_to_proto(entitlement.end_us),
        block=None if entitlement.block is None else _block_to_proto(entitlement.block),
    )


def _term_to_proto(term: EntitlementTerm) -> pb.EntitlementTerm:
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


def _block_to_proto(block: Block) -> pb.Block:
    return pb.Block(
        reason=block.reason.value,  # type: ignore[arg-type]  # the numbers are the contract's
        message=block.message,
        until_time=optional_time_to_proto(block.until_us),
    )


def quota_from_proto(quota: type_pb2.Quota) -> QuotaReading:
    """Quota to domain."""
    return QuotaReading(
        quota.plan_id,
        us_from_proto(quota.period_start_time),
        us_from_proto(quota.period_end_time),
        quota.session_limit,
        quota.sessions_committed,
        quota.managed_sessions,
        quota.byok_sessions,
        quota.sessions_reserved,
        quota.sessions_remaining,
        tuple(quota.managed_providers),
        quota.sessions_available,
        quota.refusal_reason,
        quota.entitlement_revision,
    )


def batch_from_proto(response: pb.ReadSessionEventsResponse) -> EventBatch:
    """ReadSessionEventsResponse to domain."""
    return EventBatch(
        tuple(PositionedEntry(event.partition, event.cursor, entry_from_proto(event)) for event in response.events),
        tuple(
            Watermark(item.partition, us_from_proto(item.watermark_time), us_from_proto(item.oldest_reserve_time))
            for item in response.watermarks
        ),
    )


def entry_from_proto(event: pb.SessionEvent) -> LedgerEntry:
    """A session event to its ledger entry."""
    session = event.session
    outcome = session.outcome
    return LedgerEntry(
        session.account_id,
        session.session_id,
        event.type,
        us_from_proto(event.event_time),
        session.state,
        us_from_proto(session.period_start_time),
        us_from_proto(session.reserve_time),
        us_from_proto(session.expire_time),
        us_from_proto(session.resolve_time),
        _counted_mode(session),
        _storable(outcome.served_provider),
        _storable(outcome.served_model),
        outcome.served_credential_mode,
        outcome.input_tokens if outcome.HasField("input_tokens") else None,
        outcome.output_tokens if outcome.HasField("output_tokens") else None,
        outcome.cached_input_tokens if outcome.HasField("cached_input_tokens") else None,
        outcome.cache_write_tokens if outcome.HasField("cache_write_tokens") else None,
        outcome.reasoning_tokens if outcome.HasField("reasoning_tokens") else None,
        outcome.tokens_estimated,
        outcome.finish_reason,
        session.release_reason,
        _storable(session.api_key_id),
        _storable(session.request_id),
        orjson.dumps(dict(session.labels), option=orjson.OPT_SORT_KEYS).decode(),
        _detail(session),
        session.entitlement_revision,
    )


def _storable(text: str) -> str:
    """The text without U+0000, which PostgreSQL cannot store: one such event would keep its partition for ever."""
    return text.replace("\0", "\ufffd")


def _counted_mode(session: type_pb2.Session) -> int:
    """As quota counts: by the mode that served the session, or by its first choice's where none did."""
    if session.outcome.served_credential_mode:
        return session.outcome.served_credential_mode
    return session.candidates[0].credential_mode if session.candidates else 0


def _detail(session: type_pb2.Session) -> str:
    """What is shown of a session and never searched."""
    outcome = session.outcome
    detail = {
        "candidates": [[c.provider, c.model, c.credential_mode] for c in session.candidates],
        "attempts": [_attempt(attempt) for attempt in outcome.attempts],
        "provider_finish_reason": outcome.provider_finish_reason,
        "provider_latency_us": us_from_duration(outcome, "provider_latency"),
        "time_to_first_token_us": us_from_duration(outcome, "time_to_first_token"),
        "provider_request_id": outcome.provider_request_id,
        "tool_call_count": outcome.tool_call_count,
    }
    return orjson.dumps({name: value for name, value in detail.items() if value}).decode()


def _attempt(attempt: type_pb2.Attempt) -> list[object]:
    return [
        attempt.provider,
        attempt.model,
        attempt.failure,
        attempt.input_tokens if attempt.HasField("input_tokens") else None,
        attempt.output_tokens if attempt.HasField("output_tokens") else None,
    ]
