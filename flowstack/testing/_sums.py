"""Sums of sessions over time, in buckets and groups. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final, NamedTuple

from flowstack_protos.billing.v1 import usage_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2 as types

from flowstack.testing._errors import invalid_field
from flowstack.testing._plans import micro_of, money
from flowstack.testing._quota import Session
from flowstack.testing._time import DAY_US, add_months, datetime_of, timestamp, us_of

HOUR_US: Final = DAY_US // 24
_DAYS_MAX: Final = {
    pb.USAGE_GRANULARITY_HOUR: 93,
    pb.USAGE_GRANULARITY_DAY: 1_100,
    pb.USAGE_GRANULARITY_MONTH: 3_660,
}


class _Group(NamedTuple):
    """What a row is told apart by. None where the request does not ask, and a label where sessions have none."""

    provider: str | None = None
    model: str | None = None
    credential_mode: int | None = None
    label_value: str | None = None


def whole_range(request: pb.QueryUsageRequest, period_start_us: int, now_us: int) -> tuple[int, int]:
    """The request's range, in whole buckets.

    Raises:
        FakeError: INVALID_REQUEST: it ends before it starts, or is too long for its buckets.
    """
    start_us = request.start_time.ToMicroseconds() if request.HasField("start_time") else period_start_us
    end_us = request.end_time.ToMicroseconds() if request.HasField("end_time") else max(now_us, start_us + 1)
    if start_us >= end_us:
        raise invalid_field("end_time", "must be after start_time, which is the current period's start when left out")
    days = _DAYS_MAX[request.granularity]
    if end_us - start_us > days * DAY_US:
        raise invalid_field("start_time", f"must be at most {days:,} days before end_time for buckets of this length")
    last_us = _bucket_start(request.granularity, end_us - 1)
    return _bucket_start(request.granularity, start_us), _bucket_end(request.granularity, last_us)


def rows_of(
    request: pb.QueryUsageRequest, start_us: int, end_us: int, sessions: Iterable[Session]
) -> list[pb.UsageRow]:
    """The rows of a range, by time, then by group. Without groups every bucket has one."""
    found: dict[tuple[int, _Group], pb.UsageTotals] = {}
    if not request.group_by:
        for bucket_us in _buckets(request.granularity, start_us, end_us):
            found[bucket_us, _Group()] = nothing()
    for session in sessions:
        if session.outcome is not None and start_us <= session.reserve_us < end_us and _is_meant(session, request):
            place = (_bucket_start(request.granularity, session.reserve_us), _group_of(session, request))
            add(found.setdefault(place, nothing()), session)
    return [
        pb.UsageRow(
            start_time=timestamp(bucket_us),
            end_time=timestamp(_bucket_end(request.granularity, bucket_us)),
            provider=group.provider,
            model=group.model,
            credential_mode=types.CredentialMode.ValueType(group.credential_mode or 0),
            label_value=group.label_value,
            totals=totals,
        )
        for (bucket_us, group), totals in sorted(found.items(), key=lambda item: (item[0][0], _order(item[0][1])))
    ]


def totals_of(rows: Iterable[pb.UsageRow]) -> pb.UsageTotals:
    """All rows together."""
    total, cost_micro = nothing(), 0
    for row in rows:
        cost_micro += micro_of(row.totals.provider_cost)
        for name in _COUNTS:
            setattr(total, name, getattr(total, name) + getattr(row.totals, name))
    total.provider_cost.CopyFrom(money(cost_micro))
    return total


_COUNTS: Final = tuple(field.name for field in pb.UsageTotals.DESCRIPTOR.fields if field.message_type is None)


def nothing() -> pb.UsageTotals:
    """The sums of no session."""
    return pb.UsageTotals(provider_cost=money(0))


def add(totals: pb.UsageTotals, session: Session) -> None:
    """Adds a session that was resolved."""
    outcome = session.outcome
    assert outcome is not None
    is_managed = session.counts_as == types.CREDENTIAL_MODE_MANAGED
    if session.state == types.SESSION_STATE_COMMITTED:
        totals.sessions_committed += 1
        totals.managed_sessions += is_managed
        totals.byok_sessions += not is_managed
    else:
        totals.sessions_released += 1
    totals.unpriced_sessions += session.is_unpriced
    totals.provider_cost.CopyFrom(money(micro_of(totals.provider_cost) + (session.cost_micro or 0)))
    if not (outcome.HasField("input_tokens") and outcome.HasField("output_tokens")):
        totals.sessions_without_tokens += 1
        return
    totals.input_tokens += outcome.input_tokens
    totals.output_tokens += outcome.output_tokens


def _is_meant(session: Session, request: pb.QueryUsageRequest) -> bool:
    outcome = session.outcome
    assert outcome is not None
    return (
        request.provider in ("", outcome.served_provider)
        and request.model in ("", outcome.served_model)
        and request.credential_mode in (0, outcome.served_credential_mode)
        and (not request.HasField("label_value") or session.labels.get(request.label_key) == request.label_value)
    )


def _group_of(session: Session, request: pb.QueryUsageRequest) -> _Group:
    outcome, wanted = session.outcome, set(request.group_by)
    assert outcome is not None
    return _Group(
        outcome.served_provider if pb.USAGE_DIMENSION_PROVIDER in wanted else None,
        outcome.served_model if pb.USAGE_DIMENSION_MODEL in wanted else None,
        outcome.served_credential_mode if pb.USAGE_DIMENSION_CREDENTIAL_MODE in wanted else None,
        session.labels.get(request.label_key) if pb.USAGE_DIMENSION_LABEL in wanted else None,
    )


def _order(group: _Group) -> tuple[tuple[bool, str | int], ...]:
    """What is unset comes before what is empty."""
    return tuple((value is not None, value if value is not None else "") for value in group)


def _buckets(granularity: pb.UsageGranularity.ValueType, start_us: int, end_us: int) -> Iterator[int]:
    while start_us < end_us:
        yield start_us
        start_us = _bucket_end(granularity, start_us)


def _bucket_start(granularity: pb.UsageGranularity.ValueType, time_us: int) -> int:
    if granularity == pb.USAGE_GRANULARITY_MONTH:
        time = datetime_of(time_us)
        return us_of(datetime(time.year, time.month, 1, tzinfo=UTC))
    return time_us - time_us % (HOUR_US if granularity == pb.USAGE_GRANULARITY_HOUR else DAY_US)


def _bucket_end(granularity: pb.UsageGranularity.ValueType, start_us: int) -> int:
    if granularity == pb.USAGE_GRANULARITY_MONTH:
        return us_of(add_months(datetime_of(start_us), 1))
    return start_us + (HOUR_US if granularity == pb.USAGE_GRANULARITY_HOUR else DAY_US)
