"""Sums over time, in buckets and groups, and the comparison of the books."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from flowstack_protos.billing.v1 import usage_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2 as types

from tests.contract.target import Customer, refusal

DAY, HOUR, MONTH = pb.USAGE_GRANULARITY_DAY, pb.USAGE_GRANULARITY_HOUR, pb.USAGE_GRANULARITY_MONTH
PROVIDER, MODEL = pb.USAGE_DIMENSION_PROVIDER, pb.USAGE_DIMENSION_MODEL
MODE, LABEL = pb.USAGE_DIMENSION_CREDENTIAL_MODE, pb.USAGE_DIMENSION_LABEL
BYOK = types.CREDENTIAL_MODE_BYOK


def query(customer: Customer, **fields: Any) -> pb.QueryUsageResponse:
    """Sums of the account."""
    request = pb.QueryUsageRequest(**{"granularity": DAY, **fields})
    return customer.call(customer.target.usage.QueryUsage, request)


def used(customer: Customer, labels: Sequence[dict[str, str]]) -> None:
    """Sessions with these labels, and then one that is released; until the books have them."""
    for one in labels:
        list(customer.complete(labels=one))
    refusal(lambda: customer.complete(labels={"echo.fail_after": "0"}))
    while (totals := query(customer).totals).sessions_committed + totals.sessions_released <= len(labels):
        pass  # the ledger follows; the test's own time limit ends one that does not


def grouped(answered: pb.QueryUsageResponse, *fields: str) -> list[tuple[Any, ...]]:
    """The rows' groups, each with its counted and released sessions."""
    return [
        (*(getattr(row, name) for name in fields), row.totals.sessions_committed, row.totals.sessions_released)
        for row in answered.rows
    ]


def test_buckets_add_up(hobbyist: Customer) -> None:
    used(hobbyist, [{}, {}])
    period_start = hobbyist.usage().period_start_time.seconds
    by_hour, by_day, by_month = (query(hobbyist, granularity=granularity) for granularity in (HOUR, DAY, MONTH))

    for answered, least in ((by_hour, 3_600), (by_day, 24 * 3_600), (by_month, 28 * 24 * 3_600)):
        first = answered.rows[0]
        assert first.start_time.seconds <= period_start < first.end_time.seconds
        assert all(row.end_time.seconds - row.start_time.seconds >= least for row in answered.rows)
        assert sum(row.totals.sessions_committed for row in answered.rows) == 2
        assert (answered.totals.sessions_committed, answered.totals.sessions_released) == (2, 1)
        assert (answered.totals.byok_sessions, answered.totals.managed_sessions) == (2, 0)
        assert not first.HasField("provider")
    assert by_day.rows[0].start_time.seconds % (24 * 3_600) == 0
    record = hobbyist.call(
        hobbyist.target.usage.ListSessions, pb.ListSessionsRequest(states=[types.SESSION_STATE_COMMITTED])
    ).sessions[0]
    assert by_day.totals.output_tokens == 2 * record.session.outcome.output_tokens > 0


def test_empty_buckets_have_rows(free: Customer) -> None:
    begin = free.usage().period_start_time.seconds // 86_400 * 86_400
    answered = query(free, start_time={"seconds": begin - 3 * 86_400}, end_time={"seconds": begin})

    assert [row.start_time.seconds for row in answered.rows] == [begin - days * 86_400 for days in (3, 2, 1)]
    assert answered.totals.sessions_committed == 0


def test_grouping_needs_its_feature(hobbyist: Customer) -> None:
    code, info = refusal(lambda: query(hobbyist, group_by=[PROVIDER]))
    request = pb.QueryUsageRequest(account_id=hobbyist.account_id, granularity=DAY, group_by=[PROVIDER])

    assert (code, info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "FEATURE_NOT_IN_PLAN")
    assert dict(info.metadata) == {"plan": "hobbyist", "feature": "advanced_analytics"}
    assert not hobbyist.target.operate(hobbyist.target.usage.QueryUsage, request).rows


def test_groups_are_told_apart(professional: Customer) -> None:
    used(professional, [{"team": "b"}, {"team": "a"}, {"team": "a"}, {}])
    month = {"granularity": MONTH}
    by_label = query(professional, group_by=[LABEL], label_key="team", **month)
    by_served = query(professional, group_by=[PROVIDER, MODEL, MODE], **month)

    assert grouped(by_label, "label_value") == [("", 1, 1), ("a", 2, 0), ("b", 1, 0)]
    assert [row.HasField("label_value") for row in by_label.rows] == [False, True, True]
    served = grouped(by_served, "provider", "model", "credential_mode")
    assert ("echo", "echo-1", BYOK, 4) in [row[:4] for row in served]
    assert sum(row[-1] for row in served) == 1
    assert by_label.totals == by_served.totals


def test_sums_are_filtered(professional: Customer) -> None:
    used(professional, [{"team": "a"}, {"team": "b"}, {}])

    def counted(**fields: Any) -> int:
        return int(query(professional, **fields).totals.sessions_committed)

    assert counted(provider="echo", model="echo-1", credential_mode=BYOK) == 3
    assert counted(provider="openai") == counted(credential_mode=types.CREDENTIAL_MODE_MANAGED) == 0
    assert counted(label_key="team", label_value="a") == 1
    assert counted(label_key="team", label_value="c") == 0
    assert counted(label_key="team") == 3
    only = query(professional, group_by=[LABEL], label_key="team", label_value="b", granularity=MONTH)
    assert grouped(only, "label_value") == [("b", 1, 0)]


def test_rows_come_in_pages(free: Customer) -> None:
    begin = free.usage().period_start_time.seconds // 86_400 * 86_400
    fields = {"start_time": {"seconds": begin - 5 * 86_400}, "end_time": {"seconds": begin}}
    whole, first = query(free, **fields), query(free, page_size=3, **fields)
    second = query(free, page_size=3, page_token=first.next_page_token, **fields)

    assert [*first.rows, *second.rows] == list(whole.rows)
    assert (len(first.rows), whole.next_page_token, second.next_page_token) == (3, "", "")


@pytest.mark.parametrize(
    "fields",
    [
        {"granularity": 0},
        {"group_by": [LABEL]},
        {"group_by": [PROVIDER, PROVIDER]},
        {"label_value": "x"},
        {"start_time": {"seconds": 2_000_000_000}, "end_time": {"seconds": 1_000_000_000}},
        {"start_time": {"seconds": 1_700_000_000}, "end_time": {"seconds": 1_800_000_000}, "granularity": HOUR},
        {"start_time": {"seconds": 1_000_000_000}},
        {"end_time": {"seconds": 1_000_000_000}},
        {"page_size": -1},
    ],
)
def test_bad_queries_are_refused(professional: Customer, fields: dict[str, Any]) -> None:
    code, info = refusal(lambda: query(professional, **fields))

    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


def test_the_books_are_compared(free: Customer) -> None:
    list(free.complete())
    request = pb.ReconcileUsageRequest(account_id=free.account_id)
    answered = free.target.operate(free.target.usage.ReconcileUsage, request)
    code, info = refusal(lambda: free.call(free.target.usage.ReconcileUsage, request))

    assert (list(answered.drifts), answered.accounts_compared, answered.next_page_token) == ([], 1, "")
    assert answered.HasField("as_of_time")
    assert (code, info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ADMIN_REQUIRED")


def test_sessions_of_a_period_are_listed(free: Customer) -> None:
    list(free.complete(request_id="a"))
    start = free.usage().period_start_time
    before = {"seconds": start.seconds - 86_400}

    def listed(**fields: Any) -> list[str]:
        answered = free.call(free.target.usage.ListSessions, pb.ListSessionsRequest(**fields))
        return [record.session.request_id for record in answered.sessions]

    while not listed():
        pass  # as above
    assert listed(period_time=start) == ["a"]
    assert listed(period_time=before) == []
