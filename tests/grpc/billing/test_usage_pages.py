"""ListSessions and QueryUsage of odd and many sessions: pages that fit, tokens that fit, periods of long ago."""

from __future__ import annotations

import random
import string
from typing import Any

import pytest
from flowstack_protos.billing.v1 import alert_service_pb2 as alert_pb
from flowstack_protos.billing.v1 import usage_service_pb2 as pb

from services.billing.service.paging import PAGE_BYTES_MAX
from tests.grpc.billing.test_usage_history import DAY, listed, outcome, queried
from tests.support.billing import BillingUnderTest, Customer
from tests.support.clock import DAY_US, MINUTE_US, ManualClock, us
from tests.support.fake_quota_events import BYOK, FakeQuotaEvents
from tests.support.plans import Desk, stamp


async def listed_in_period(service: BillingUnderTest, customer: Customer, time_us: int) -> list[str]:
    return [one.session.session_id for one in await listed(service, customer, period_time=stamp(time_us))]


async def test_periods_of_an_earlier_subscription(
    service: BillingUnderTest, quota: FakeQuotaEvents, clock: ManualClock
) -> None:
    customer = await service.new_customer("free")
    first_us = clock.now_us()
    await quota.resolve(customer.account_id, "ses_1")
    clock.advance_us(us(2026, 5, 20) - clock.now_us())
    await Desk(service, customer).change("starter")  # a new subscription, with periods of its own
    await quota.until(lambda: quota.entitlements[customer.account_id].terms[-1].plan_id == "starter")
    second_us = clock.now_us()
    await quota.resolve(customer.account_id, "ses_2")
    clock.advance_us(us(2026, 8, 1) - clock.now_us())
    await quota.resolve(customer.account_id, "ses_3")
    await quota.drained()

    assert await listed_in_period(service, customer, first_us) == ["ses_1"]
    assert await listed_in_period(service, customer, us(2026, 4, 9)) == ["ses_1"]
    assert await listed_in_period(service, customer, us(2026, 4, 20)) == [], "the period after the first had none"
    assert await listed_in_period(service, customer, us(2026, 5, 19)) == []
    assert await listed_in_period(service, customer, second_us) == ["ses_2"]
    assert await listed_in_period(service, customer, us(2026, 7, 1)) == []
    assert await listed_in_period(service, customer, us(2026, 8, 10)) == ["ses_3"]
    assert await listed_in_period(service, customer, first_us - 1) == []
    assert await listed_in_period(service, customer, us(2020, 1, 1)) == []


async def test_a_page_of_sessions_fits_into_a_message(
    service: BillingUnderTest, quota: FakeQuotaEvents, customer: Customer
) -> None:
    labels = {f"{number:02}".ljust(64, "k"): "v" * 256 for number in range(16)}
    for number in range(900):
        await quota.resolve(customer.account_id, f"ses_{number:03}", labels=labels)
    await quota.drained()
    ids: list[str] = []
    request, pages = pb.ListSessionsRequest(page_size=1_000), 0
    while True:
        page = await service.usage.ListSessions(request, metadata=customer.metadata)
        assert page.ByteSize() <= PAGE_BYTES_MAX * 1.5
        ids += [record.session.session_id for record in page.sessions]
        request.page_token = page.next_page_token
        pages += 1
        if not page.next_page_token:
            break
    assert sorted(ids) == [f"ses_{number:03}" for number in range(900)]
    assert pages == 3


async def test_a_page_of_alerts_fits_into_a_message(
    service: BillingUnderTest, customer: Customer, clock: ManualClock
) -> None:
    for number in range(300):
        if number % 50 == 49:  # so many in a minute
            clock.advance_us(MINUTE_US + 1)
        data = f'{{"n":{number},"x":"{"y" * 16_000}"}}'
        await service.alerts.SendAlert(
            alert_pb.SendAlertRequest(message="m", data_json=data), metadata=customer.metadata
        )
    ids = set()
    request = alert_pb.ListAlertsRequest(page_size=1_000)
    while True:
        page = await service.alerts.ListAlerts(request, metadata=customer.metadata)
        assert page.ByteSize() <= PAGE_BYTES_MAX * 1.5
        ids |= {alert.alert_id for alert in page.alerts}
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert len(ids) == 300


@pytest.mark.parametrize("char", ["\x01", "\0", "字", "😀", '"', "\\"])
async def test_pages_of_labels_of_odd_characters(
    service: BillingUnderTest, quota: FakeQuotaEvents, customer: Customer, char: str
) -> None:
    size = 256 // len(char.encode())
    for number in range(3):
        said = outcome(char * (64 // len(char.encode())), char * size, BYOK)
        await quota.resolve(customer.account_id, f"ses_{number}", labels={"k": char * (size - number)}, outcome=said)
    await quota.drained()
    rows, totals = await queried(
        service,
        customer,
        page_size=1,
        granularity=DAY,
        group_by=[pb.USAGE_DIMENSION_PROVIDER, pb.USAGE_DIMENSION_MODEL, pb.USAGE_DIMENSION_LABEL],
        label_key="k",
    )
    stored = char.replace("\0", "\ufffd")
    assert [row.label_value for row in rows] == [stored * (size - number) for number in (2, 1, 0)]
    assert totals.sessions_committed == 3


async def test_labels_of_the_largest_size_are_booked(
    service: BillingUnderTest, quota: FakeQuotaEvents, customer: Customer
) -> None:
    def text(length: int) -> str:
        return "".join(random.choices(string.ascii_letters, k=length))

    labels = {text(64): text(256) for _ in range(16)}
    said = outcome(text(64), text(256), BYOK)
    await quota.resolve(customer.account_id, "ses_1", labels=labels, outcome=said)
    await quota.drained()
    (record,) = await listed(service, customer)
    assert record.session.labels == labels
    for key, value in labels.items():
        rows, _ = await queried(service, customer, granularity=DAY, label_key=key, label_value=value)
        assert [row.totals.sessions_committed for row in rows] == [1]


async def test_a_filter_of_few_sessions_among_many_answers_page_by_page(
    service: BillingUnderTest, quota: FakeQuotaEvents, customer: Customer, clock: ManualClock
) -> None:
    for number in range(5):
        await quota.resolve(customer.account_id, f"ses_{number}", request_id=f"r{number % 2}", api_key_id="key_1")
        clock.advance_us(DAY_US)
    await quota.drained()

    async def found(**fields: Any) -> list[str]:
        return [one.session.session_id for one in await listed(service, customer, **fields)]

    assert await found(request_id="r1") == ["ses_3", "ses_1"]
    assert await found(session_id="ses_2") == ["ses_2"]
    assert await found(session_id="ses_2", request_id="r1") == []
    assert await found(request_id="r0", labels={"no": "such"}) == []
