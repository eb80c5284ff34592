"""Sessions of the ledger and their sums."""

from __future__ import annotations

import orjson
from flowstack_protos.billing.v1 import usage_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2
from google.protobuf.duration_pb2 import Duration

from services.billing.convert.money import money_to_proto
from services.billing.domain.ledger import EventType, LedgerEntry
from services.billing.domain.rollups import label_text
from services.billing.domain.usage_query import Dimension, Granularity, Totals, UsageQuery, UsageRow
from services.billing.ledger_store import SessionFilter
from services.billing.service.usage_history import Sessions, UsageRows
from services.shared.times import MICRO, optional_time_to_proto, time_to_proto, us_from_proto

_EVENTS = {
    type_pb2.SESSION_STATE_COMMITTED: EventType.COMMITTED,
    type_pb2.SESSION_STATE_RELEASED: EventType.RELEASED,
    type_pb2.SESSION_STATE_EXPIRED: EventType.EXPIRED,
}


def session_filter_from_proto(request: pb.ListSessionsRequest, account_id: str) -> SessionFilter:
    """ListSessionsRequest to domain."""
    return SessionFilter(
        account_id,
        us_from_proto(request.start_time) if request.HasField("start_time") else None,
        us_from_proto(request.end_time) if request.HasField("end_time") else None,
        # RESERVED has no event, and so matches none.
        tuple(sorted(_EVENTS[state] for state in request.states if state in _EVENTS)) if request.states else None,
        request.provider,
        request.model,
        request.credential_mode,
        request.api_key_id,
        request.session_id,
        request.request_id,
        tuple(sorted(request.labels.items())),
    )


def query_from_proto(request: pb.QueryUsageRequest, account_id: str) -> UsageQuery:
    """QueryUsageRequest to domain."""
    return UsageQuery(
        account_id,
        us_from_proto(request.start_time) if request.HasField("start_time") else None,
        us_from_proto(request.end_time) if request.HasField("end_time") else None,
        Granularity(request.granularity),
        tuple(map(Dimension, request.group_by)),
        label_text(request.label_key),
        label_text(request.label_value) if request.HasField("label_value") else None,
        request.provider,
        request.model,
        request.credential_mode,
    )


def sessions_to_proto(found: Sessions) -> pb.ListSessionsResponse:
    """Domain to ListSessionsResponse."""
    return pb.ListSessionsResponse(
        sessions=map(_record_to_proto, found.page.items),
        next_page_token=found.page.next_token,
        as_of_time=time_to_proto(found.as_of_us),
    )


def _record_to_proto(entry: LedgerEntry) -> pb.SessionRecord:
    cost = entry.provider_cost_micro
    return pb.SessionRecord(
        session=_session_to_proto(entry),
        provider_cost=None if cost is None else money_to_proto(cost),
        price_table_version=entry.price_table_version,
    )


def _session_to_proto(entry: LedgerEntry) -> type_pb2.Session:
    detail = orjson.loads(entry.detail)
    return type_pb2.Session(
        session_id=entry.session_id,
        account_id=entry.account_id,
        state=entry.state,  # type: ignore[arg-type]  # the numbers are the contract's
        candidates=[
            type_pb2.Candidate(provider=provider, model=model, credential_mode=mode)
            for provider, model, mode in detail.get("candidates", ())
        ],
        period_start_time=optional_time_to_proto(entry.period_start_us),
        reserve_time=optional_time_to_proto(entry.reserve_us),
        expire_time=optional_time_to_proto(entry.expire_us),
        resolve_time=optional_time_to_proto(entry.resolve_us),
        outcome=_outcome_to_proto(entry, detail),
        release_reason=entry.release_reason,  # type: ignore[arg-type]
        request_id=entry.request_id,
        api_key_id=entry.api_key_id,
        labels=orjson.loads(entry.labels),
        entitlement_revision=entry.entitlement_revision,
    )


def _outcome_to_proto(entry: LedgerEntry, detail: dict[str, object]) -> type_pb2.SessionOutcome | None:
    found = detail.get("attempts")
    outcome = type_pb2.SessionOutcome(
        finish_reason=entry.finish_reason,  # type: ignore[arg-type]
        provider_finish_reason=str(detail.get("provider_finish_reason", "")),
        served_provider=entry.served_provider,
        served_model=entry.served_model,
        served_credential_mode=entry.served_credential_mode,  # type: ignore[arg-type]
        input_tokens=entry.input_tokens,
        output_tokens=entry.output_tokens,
        cached_input_tokens=entry.cached_input_tokens,
        cache_write_tokens=entry.cache_write_tokens,
        reasoning_tokens=entry.reasoning_tokens,
        tokens_estimated=entry.tokens_estimated,
        attempts=[
            type_pb2.Attempt(provider=provider, model=model, failure=failure, input_tokens=given, output_tokens=got)
            for provider, model, failure, given, got in (found if isinstance(found, list) else ())
        ],
        provider_latency=_duration(detail.get("provider_latency_us")),
        time_to_first_token=_duration(detail.get("time_to_first_token_us")),
        provider_request_id=str(detail.get("provider_request_id", "")),
        tool_call_count=_number(detail.get("tool_call_count")),
    )
    # A session of which nobody said how it ended has none.
    return outcome if outcome.ByteSize() else None


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _duration(value: object) -> Duration | None:
    if not isinstance(value, int):
        return None
    seconds, microseconds = divmod(value, MICRO)
    return Duration(seconds=seconds, nanos=microseconds * 1000)


def usage_rows_to_proto(found: UsageRows) -> pb.QueryUsageResponse:
    """Domain to QueryUsageResponse."""
    return pb.QueryUsageResponse(
        rows=[_row_to_proto(row) for row in found.rows],
        next_page_token=found.next_token,
        totals=totals_to_proto(found.totals),
        as_of_time=time_to_proto(found.as_of_us),
    )


def _row_to_proto(row: UsageRow) -> pb.UsageRow:
    return pb.UsageRow(
        start_time=time_to_proto(row.start_us),
        end_time=time_to_proto(row.end_us),
        provider=row.group.provider,
        model=row.group.model,
        credential_mode=row.group.credential_mode or 0,  # type: ignore[arg-type]
        label_value=row.group.label_value,
        totals=totals_to_proto(row.totals),
    )


def totals_to_proto(totals: Totals) -> pb.UsageTotals:
    """Domain to UsageTotals."""
    sums = totals.sums
    return pb.UsageTotals(
        sessions_committed=sums.committed,
        managed_sessions=totals.managed,
        byok_sessions=totals.byok,
        sessions_released=sums.released,
        sessions_expired=sums.expired,
        input_tokens=sums.input_tokens,
        output_tokens=sums.output_tokens,
        cached_input_tokens=sums.cached_input_tokens,
        cache_write_tokens=sums.cache_write_tokens,
        reasoning_tokens=sums.reasoning_tokens,
        sessions_without_tokens=sums.without_tokens,
        provider_cost=money_to_proto(sums.cost_micro),
        unpriced_sessions=sums.unpriced,
    )
