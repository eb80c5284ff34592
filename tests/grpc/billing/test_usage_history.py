"""ListSessions and QueryUsage: what is listed is what is summed."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import Any

import pytest
from flowstack_protos.billing.v1 import usage_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2

from tests.support.billing import ADMIN, BillingUnderTest, Customer, failure_of, reason_of
from tests.support.clock import DAY_US, HOUR_US, ManualClock, us
from tests.support.fake_quota_events import BYOK, COMMITTED, EXPIRED, MANAGED, RELEASED, FakeQuotaEvents

HOUR, DAY, MONTH = pb.USAGE_GRANULARITY_HOUR, pb.USAGE_GRANULARITY_DAY, pb.USAGE_GRANULARITY_MONTH


def outcome(provider: str, model: str, mode: int, *, tokens: int = 1_000, **fields: Any) -> type_pb2.SessionOutcome:
    return type_pb2.SessionOutcome(
        served_provider=provider,
        served_model=model,
        served_credential_mode=mode,  # type: ignore[arg-type]
        input_tokens=tokens,
        output_tokens=tokens // 2,
        attempts=[type_pb2.Attempt(provider=provider, model=model)],
        **fields,
    )


async def some_history(quota: FakeQuotaEvents, account_id: str, start_us: int) -> None:
    """Sixty sessions over three days: three models, two modes, three ends, labels or none, a cost known or not."""
    models = (("openai", "gpt-4o-mini"), ("bedrock", "us.amazon.nova-lite-v1:0"), ("vllm", "own"))
    for number in range(60):
        (provider, model), mode = models[number % 3], MANAGED if number % 3 == 1 else BYOK
        await quota.resolve(
            account_id,
            f"ses_{number:02}",
            (COMMITTED, COMMITTED, COMMITTED, RELEASED, EXPIRED)[number % 5],
            reserve_us=start_us + number * HOUR_US,
            mode=mode,
            outcome=outcome(provider, model, mode, tokens=1_000 + number),
            api_key_id=f"key_{number % 2}",
            request_id=f"r{number}",
            labels={"team": 'a"b' if number % 4 else "c,\\", "n": str(number)} if number % 2 else {},
        )
    await quota.drained()


async def listed(service: BillingUnderTest, customer: Customer, **fields: Any) -> list[pb.SessionRecord]:
    found: list[pb.SessionRecord] = []
    token = ""
    while True:
        request = pb.ListSessionsRequest(page_size=25, page_token=token, **fields)
        page = await service.usage.ListSessions(request, metadata=customer.metadata)
        found += page.sessions
        token = page.next_page_token
        if not token:
            return found


async def queried(
    service: BillingUnderTest, customer: Customer, page_size: int = 1_000, **fields: Any
) -> tuple[list[pb.UsageRow], Any]:
    found: list[pb.UsageRow] = []
    token = ""
    while True:
        request = pb.QueryUsageRequest(account_id=customer.account_id, page_size=page_size, page_token=token, **fields)
        page = await service.usage.QueryUsage(request, metadata=ADMIN)
        found += page.rows
        token = page.next_page_token
        if not token:
            return found, page.totals


FILTERS: list[dict[str, Any]] = [
    {},
    {"provider": "openai"},
    {"model": "own"},
    {"credential_mode": MANAGED},
    {"provider": "openai", "credential_mode": MANAGED},
    {"label": ("team", 'a"b')},
    {"label": ("team", "c,\\")},
    {"label": ("n", "7")},
    {"label": ("no-such-label", "x")},
    {"label": ("team", "no such value")},
]


@pytest.mark.parametrize("granularity", [HOUR, DAY, MONTH])
async def test_sums_are_those_of_the_listed_sessions(
    service: BillingUnderTest, customer: Customer, quota: FakeQuotaEvents, clock: ManualClock, granularity: int
) -> None:
    start_us = clock.now_us()
    clock.advance_us(60 * HOUR_US)
    await some_history(quota, customer.account_id, start_us)
    span = {"start_time": {"seconds": us(2026, 3, 1) // 10**6}, "end_time": {"seconds": us(2026, 4, 1) // 10**6}}
    for filters in FILTERS:
        plain = {name: value for name, value in filters.items() if name != "label"}
        key, value = filters.get("label", ("", None))
        sessions = await listed(service, customer, labels={key: value} if key else {}, **plain)
        wanted = {"label_key": key, "label_value": value} if key else {}
        rows, totals = await queried(service, customer, granularity=granularity, **span, **plain, **wanted)
        states = Counter(record.session.state for record in sessions)
        assert totals.sessions_committed == states[type_pb2.SESSION_STATE_COMMITTED]
        assert totals.sessions_released == states[type_pb2.SESSION_STATE_RELEASED]
        assert totals.sessions_expired == states[type_pb2.SESSION_STATE_EXPIRED]
        assert totals.input_tokens == sum(record.session.outcome.input_tokens for record in sessions)
        assert totals.unpriced_sessions == sum(
            not record.HasField("provider_cost")
            for record in sessions
            if record.session.candidates[0].credential_mode == BYOK
        )
        costs = [record.provider_cost for record in sessions if record.HasField("provider_cost")]
        assert totals.provider_cost.nanos == sum(cost.nanos for cost in costs)
        assert sum(row.totals.sessions_committed for row in rows) == totals.sessions_committed
        assert [row.start_time.seconds for row in rows] == sorted(row.start_time.seconds for row in rows)
        assert all(a.end_time == b.start_time for a, b in itertools.pairwise(rows)), "no bucket is left out"


async def test_groups(
    service: BillingUnderTest, customer: Customer, quota: FakeQuotaEvents, clock: ManualClock
) -> None:
    start_us = clock.now_us()
    clock.advance_us(60 * HOUR_US)
    await some_history(quota, customer.account_id, start_us)
    group_by = [
        pb.USAGE_DIMENSION_PROVIDER,
        pb.USAGE_DIMENSION_MODEL,
        pb.USAGE_DIMENSION_CREDENTIAL_MODE,
        pb.USAGE_DIMENSION_LABEL,
    ]
    rows, totals = await queried(service, customer, 2, granularity=MONTH, group_by=group_by, label_key="team")
    found = {
        (row.provider, row.model, row.credential_mode, row.label_value if row.HasField("label_value") else None): (
            row.totals.sessions_committed + row.totals.sessions_released + row.totals.sessions_expired
        )
        for row in rows
    }
    expected: Counter[Any] = Counter()
    for record in await listed(service, customer):
        one = record.session.outcome
        label = record.session.labels.get("team") if record.session.labels else None
        expected[one.served_provider, one.served_model, one.served_credential_mode, label] += 1
    assert found == dict(expected)
    assert totals.sessions_committed == totals.managed_sessions + totals.byok_sessions == 36


async def test_grouping_needs_advanced_analytics(service: BillingUnderTest, customer: Customer) -> None:
    request = pb.QueryUsageRequest(granularity=DAY, group_by=[pb.USAGE_DIMENSION_MODEL])
    _, error = await failure_of(service.usage.QueryUsage(request, metadata=customer.metadata))
    assert (error.reason.value, error.metadata["feature"]) == ("FEATURE_NOT_IN_PLAN", "advanced_analytics")
    professional = await service.new_customer("professional")
    assert not (await service.usage.QueryUsage(request, metadata=professional.metadata)).rows


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"granularity": HOUR, "start_time": {"seconds": 0}}, "start_time"),
        ({"granularity": MONTH, "start_time": {"seconds": 0}, "end_time": {"seconds": 4102444799}}, ""),
        ({"granularity": DAY, "end_time": {"seconds": 5}}, "end_time"),
        ({"granularity": DAY, "start_time": {"seconds": 9}, "end_time": {"seconds": 9}}, ""),
        ({"granularity": 0}, "granularity"),
        ({"granularity": DAY, "group_by": [4]}, ""),
        ({"granularity": DAY, "page_token": "bm9uc2Vuc2U"}, "page_token"),
        ({"granularity": DAY, "start_time": {"seconds": 40 * 10**9}}, "start_time"),
    ],
)
async def test_bad_queries(service: BillingUnderTest, customer: Customer, fields: dict[str, Any], field: str) -> None:
    call = service.usage.QueryUsage(pb.QueryUsageRequest(**fields), metadata=customer.metadata)
    _, error = await failure_of(call)
    assert error.reason.value == "INVALID_REQUEST"
    assert field in [violation.field for violation in error.violations] or not field


AGES = {"start_time": {"seconds": us(2026, 1, 1) // 10**6}, "end_time": {"seconds": us(3026, 1, 1) // 10**6}}
LONGEST = {"start_time": {"seconds": 0}, "end_time": {"seconds": us(2100, 1, 1) // 10**6 - 1}}
"""What timestamps may say at all."""


@pytest.mark.parametrize("span", [AGES, LONGEST])
@pytest.mark.parametrize("granularity", [HOUR, DAY, MONTH])
async def test_sums_over_a_thousand_years_are_refused(
    service: BillingUnderTest, customer: Customer, granularity: int, span: dict[str, Any]
) -> None:
    request = pb.QueryUsageRequest(granularity=granularity, **span)  # type: ignore[arg-type]
    _, error = await failure_of(service.usage.QueryUsage(request, metadata=customer.metadata))
    assert error.reason.value == "INVALID_REQUEST"
    assert any("the range may be" in violation.description for violation in error.violations)


async def test_a_list_over_a_thousand_years_is_refused_and_over_all_time_is_the_history(
    service: BillingUnderTest, customer: Customer, quota: FakeQuotaEvents
) -> None:
    await quota.resolve(customer.account_id, "ses_1")
    await quota.drained()
    request = pb.ListSessionsRequest(**AGES)  # type: ignore[arg-type]
    _, error = await failure_of(service.usage.ListSessions(request, metadata=customer.metadata))
    assert [violation.field for violation in error.violations] == ["end_time"]
    sessions = await listed(service, customer, **LONGEST)
    assert [record.session.session_id for record in sessions] == ["ses_1"]


async def test_a_label_that_no_session_has(
    service: BillingUnderTest, customer: Customer, quota: FakeQuotaEvents, clock: ManualClock
) -> None:
    await quota.resolve(customer.account_id, "ses_1", labels={"team": "a"})
    await quota.resolve(customer.account_id, "ses_2")
    await quota.drained()
    clock.advance(1)
    assert await listed(service, customer, labels={"no-such-label": "a"}) == []
    _, totals = await queried(service, customer, granularity=DAY, label_key="no-such-label", label_value="a")
    assert totals.sessions_committed == 0
    group_by = [pb.USAGE_DIMENSION_LABEL]
    (row,), totals = await queried(service, customer, granularity=DAY, group_by=group_by, label_key="no-such-label")
    assert not row.HasField("label_value"), "one group: of those that do not have it"
    assert row.totals.sessions_committed == totals.sessions_committed == 2


async def test_a_token_of_another_query_is_refused(
    service: BillingUnderTest, customer: Customer, quota: FakeQuotaEvents, clock: ManualClock
) -> None:
    clock.advance_us(3 * DAY_US)
    request = pb.QueryUsageRequest(granularity=DAY, page_size=1)
    token = (await service.usage.QueryUsage(request, metadata=customer.metadata)).next_page_token
    other = pb.QueryUsageRequest(granularity=DAY, page_size=1, page_token=token, provider="x")
    assert await reason_of(service.usage.QueryUsage(other, metadata=customer.metadata)) == "INVALID_REQUEST"
    listing = pb.ListSessionsRequest(page_token=token)
    assert await reason_of(service.usage.ListSessions(listing, metadata=customer.metadata)) == "INVALID_REQUEST"


async def test_list_filters(
    service: BillingUnderTest, customer: Customer, quota: FakeQuotaEvents, clock: ManualClock
) -> None:
    start_us = clock.now_us()
    clock.advance_us(60 * HOUR_US)
    await some_history(quota, customer.account_id, start_us)
    seconds = {"seconds": (start_us + 10 * HOUR_US) // 10**6}
    ids = {
        name: [record.session.session_id for record in await listed(service, customer, **fields)]
        for name, fields in {
            "all": {},
            "from": {"start_time": seconds},
            "until": {"end_time": seconds},
            "state": {"states": [type_pb2.SESSION_STATE_EXPIRED]},
            "running": {"states": [type_pb2.SESSION_STATE_RESERVED]},
            "key": {"api_key_id": "key_1"},
            "id": {"session_id": "ses_07"},
            "request": {"request_id": "r8"},
            "both labels": {"labels": {"team": 'a"b', "n": "7"}},
            "another team": {"labels": {"team": "c,\\", "n": "7"}},
            "this period": {"period_time": {"seconds": clock.now_us() // 10**6}},
            "last period": {"period_time": {"seconds": start_us // 10**6 - 1}},
        }.items()
    }
    everything = [f"ses_{number:02}" for number in reversed(range(60))]
    assert ids["all"] == ids["this period"] == everything
    assert (ids["from"], ids["until"]) == (everything[:50], everything[50:])
    assert ids["state"] == [one for one in everything if int(one[4:]) % 5 == 4]
    assert ids["key"] == [one for one in everything if int(one[4:]) % 2]
    assert ids["id"] == ids["both labels"] == ["ses_07"]
    assert ids["request"] == ["ses_08"]
    assert ids["running"] == ids["another team"] == ids["last period"] == []


async def test_a_session_is_shown_as_quota_said_it(
    service: BillingUnderTest, customer: Customer, quota: FakeQuotaEvents
) -> None:
    said = outcome("openai", "gpt-4o-mini", BYOK, tool_call_count=2, provider_request_id="req_1", reasoning_tokens=3)
    said.time_to_first_token.FromMicroseconds(1_500_000)
    await quota.resolve(customer.account_id, "ses_1", outcome=said, labels={"team": "ä"})
    await quota.drained()
    (record,) = await listed(service, customer)
    (sent,) = [event.session for events in quota.events.values() for event in events]
    assert record.session == sent
    # 1,000 tokens in at $0.15 and 500 out at $0.60 a million.
    assert (record.provider_cost.units, record.provider_cost.nanos) == (0, 450_000)
    assert json.dumps(record.price_table_version).startswith('"genai-prices-')


async def test_nobody_sees_anothers(service: BillingUnderTest, customer: Customer, quota: FakeQuotaEvents) -> None:
    await quota.resolve(customer.account_id, "ses_1")
    await quota.drained()
    other = await service.new_customer("professional")
    assert await listed(service, other) == []
    for method, request in (
        (service.usage.ListSessions, pb.ListSessionsRequest(account_id=customer.account_id)),
        (service.usage.QueryUsage, pb.QueryUsageRequest(account_id=customer.account_id, granularity=DAY)),
        (service.usage.GetForecast, pb.GetForecastRequest(account_id=customer.account_id)),
        (service.usage.AnalyzeCosts, pb.AnalyzeCostsRequest(account_id=customer.account_id)),
        (service.usage.WatchUsage, pb.WatchUsageRequest(account_id=customer.account_id)),
    ):
        assert await reason_of(method(request, metadata=other.metadata)) == "ACCOUNT_MISMATCH"
