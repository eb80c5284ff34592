"""Session events become ledger rows, each once, whatever is redelivered, lost or restarted."""

from __future__ import annotations

import json
from typing import Any

import pytest
import structlog
from flowstack_protos.type.v1 import type_pb2

from services.billing.config import BillingSettings
from services.billing.domain.ledger import PARTITIONS, partition_of
from tests.support.billing import BillingUnderTest, billing
from tests.support.clock import ManualClock
from tests.support.database import read_rows
from tests.support.fake_quota_events import COMMITTED, EXPIRED, MANAGED, RELEASED, FakeQuotaEvents


def rows(settings: BillingSettings, table: str = "ledger") -> list[dict[str, Any]]:
    """The rows of a table, once billing has let the database go."""
    return read_rows(settings.billing_database, table)


def cursors(settings: BillingSettings) -> dict[int, str]:
    return {row["partition"]: row["cursor"] for row in rows(settings, "partition_cursors") if row["cursor"]}


async def new_account(service: BillingUnderTest) -> str:
    return (await service.open_account("starter")).account.account_id


async def test_a_row_holds_what_the_session_was(
    settings: BillingSettings, clock: ManualClock, quota: FakeQuotaEvents
) -> None:
    outcome = type_pb2.SessionOutcome(
        finish_reason=type_pb2.FINISH_REASON_STOP,
        served_provider="bedrock",
        served_model="claude",
        served_credential_mode=type_pb2.CREDENTIAL_MODE_MANAGED,
        input_tokens=0,
        output_tokens=12,
        attempts=[type_pb2.Attempt(provider="openai", model="gpt", failure=type_pb2.ATTEMPT_FAILURE_STALLED)],
        provider_request_id="req_1",
    )
    async with billing(settings, clock) as service:
        account_id = await new_account(service)
        await quota.resolve(
            account_id,
            "ses_1",
            mode=MANAGED,
            reserve_us=clock.now_us() + 5,
            outcome=outcome,
            api_key_id="key_1",
            request_id="r1",
            labels={"team": "ä", "app": "x"},
        )
        await quota.drained()
    (row,) = rows(settings)
    detail = json.loads(row.pop("detail"))
    assert row == {
        "account_id": account_id,
        "session_id": "ses_1",
        "event": COMMITTED,
        "event_us": clock.now_us(),
        "state": type_pb2.SESSION_STATE_COMMITTED,
        "period_start_us": clock.now_us(),
        "reserve_us": clock.now_us() + 5,
        "expire_us": clock.now_us() + 330_000_005,
        "resolve_us": clock.now_us(),
        "credential_mode": MANAGED,
        "served_provider": "bedrock",
        "served_model": "claude",
        "served_credential_mode": MANAGED,
        "provider_cost_micro": None,
        "price_table_version": "",
        "input_tokens": 0,
        "output_tokens": 12,
        # What the provider did not say is unknown, not 0.
        "cached_input_tokens": None,
        "cache_write_tokens": None,
        "reasoning_tokens": None,
        "tokens_estimated": 0,
        "finish_reason": type_pb2.FINISH_REASON_STOP,
        "release_reason": 0,
        "api_key_id": "key_1",
        "request_id": "r1",
        "labels": '{"app":"x","team":"ä"}',
        "entitlement_revision": 1,
        "insert_us": clock.now_us(),
    }
    assert detail == {
        "candidates": [["echo", "echo-1", MANAGED]],
        "attempts": [["openai", "gpt", type_pb2.ATTEMPT_FAILURE_STALLED, None, None]],
        "provider_request_id": "req_1",
    }


async def test_text_that_cannot_be_stored_does_not_hold_its_partition_up(
    settings: BillingSettings, clock: ManualClock, quota: FakeQuotaEvents
) -> None:
    outcome = type_pb2.SessionOutcome(served_model="m\0", provider_request_id="p\0")
    async with billing(settings, clock) as service:
        account_id = await new_account(service)
        await quota.resolve(account_id, "ses_1", outcome=outcome, request_id="a\0b", labels={"k\0": "v\0"})
        await quota.resolve(account_id, "ses_2")
        await quota.drained()
    row, _ = rows(settings)
    assert (row["request_id"], row["served_model"]) == ("a\ufffdb", "m\ufffd")
    assert json.loads(row["labels"]) == {"k\0": "v\0"}
    assert json.loads(row["detail"])["provider_request_id"] == "p\0"


async def test_every_ending_has_its_row(settings: BillingSettings, clock: ManualClock, quota: FakeQuotaEvents) -> None:
    async with billing(settings, clock) as service:
        account_id = await new_account(service)
        for event in (COMMITTED, RELEASED, EXPIRED):
            await quota.resolve(account_id, f"ses_{event}", event)
        await quota.drained()
    assert [row["event"] for row in rows(settings)] == [COMMITTED, RELEASED, EXPIRED]


async def test_events_of_all_partitions_are_read(
    settings: BillingSettings, clock: ManualClock, quota: FakeQuotaEvents
) -> None:
    async with billing(settings, clock) as service:
        accounts = [await new_account(service) for _ in range(20)]
        for number in range(100):
            await quota.resolve(accounts[number % 20], f"ses_{number:03}")
        await quota.drained()
    found = [(row["account_id"], row["session_id"]) for row in rows(settings)]
    assert sorted(found) == sorted((accounts[number % 20], f"ses_{number:03}") for number in range(100))
    expected = {partition: f"e1:{partition}:{len(found)}" for partition, found in quota.events.items() if found}
    assert cursors(settings) == expected


@pytest.mark.parametrize("switch", ["redeliver", "duplicate"])
async def test_redelivery_counts_nothing_twice(
    settings: BillingSettings, clock: ManualClock, quota: FakeQuotaEvents, switch: str
) -> None:
    setattr(quota, switch, True)
    for restart in range(3):
        async with billing(settings, clock) as service:
            if restart == 0:
                account_id = await new_account(service)
            await quota.resolve(account_id, f"ses_{restart}")
            await quota.drained()
    assert [row["session_id"] for row in rows(settings)] == ["ses_0", "ses_1", "ses_2"]


async def test_a_lost_acknowledgement_is_made_up_for(
    settings: BillingSettings, clock: ManualClock, quota: FakeQuotaEvents
) -> None:
    quota.refuse_acknowledgements = True
    async with billing(settings, clock) as service:
        await quota.resolve(await new_account(service), "ses_1")
        await quota.drained()
    assert len(rows(settings)) == 1


async def test_events_that_come_while_billing_is_off_are_read_later(
    settings: BillingSettings, clock: ManualClock, quota: FakeQuotaEvents
) -> None:
    async with billing(settings, clock) as service:
        account_id = await new_account(service)
    await quota.resolve(account_id, "ses_1")
    async with billing(settings, clock):
        await quota.drained()
    assert len(rows(settings)) == 1


async def test_a_cut_stream_is_taken_up_again(
    settings: BillingSettings, clock: ManualClock, quota: FakeQuotaEvents
) -> None:
    async with billing(settings, clock) as service:
        account_id = await new_account(service)
        await quota.resolve(account_id, "ses_1")
        await quota.drained()
        await quota.set_unavailable(True)
        await quota.resolve(account_id, "ses_2")
        await quota.set_unavailable(False)
        await quota.drained()
        await quota.stop()
        await quota.resolve(account_id, "ses_3")
        await quota.restart()
        await quota.drained()
    assert [row["session_id"] for row in rows(settings)] == ["ses_1", "ses_2", "ses_3"]


async def test_an_event_of_an_unknown_account_is_kept_aside_and_reported(
    settings: BillingSettings, clock: ManualClock, quota: FakeQuotaEvents
) -> None:
    with structlog.testing.capture_logs() as lines:
        async with billing(settings, clock) as service:
            account_id = await new_account(service)
            for number in range(2):
                await quota.resolve("acct_unknown", f"ses_{number}")
            await quota.resolve(account_id, "ses_known")
            await quota.drained()
    assert [row["session_id"] for row in rows(settings)] == ["ses_known"]
    strays = rows(settings, "stray_events")
    partition = partition_of("acct_unknown")
    assert [(row["account_id"], row["session_id"], row["partition"], row["cursor"]) for row in strays] == [
        ("acct_unknown", f"ses_{number}", partition, f"e1:{partition}:{number + 1}") for number in range(2)
    ]
    assert {"event": "event_of_unknown_account", "account_id": "acct_unknown", "log_level": "error"} in lines


async def test_a_replaced_store_is_read_from_its_beginning(
    settings: BillingSettings, clock: ManualClock, quota: FakeQuotaEvents
) -> None:
    async with billing(settings, clock) as service:
        account_id = await new_account(service)
        await quota.resolve(account_id, "ses_1")
        await quota.drained()
        await quota.replace_store()
        # The new store has a session of the old one's, and one of its own.
        await quota.resolve(account_id, "ses_1")
        await quota.resolve(account_id, "ses_2")
        await quota.drained()
    assert [row["session_id"] for row in rows(settings)] == ["ses_1", "ses_2"]
    assert cursors(settings) == {partition_of(account_id): f"e1':{partition_of(account_id)}:2"}


def test_partitions_are_quotas() -> None:
    # crc32 mod 64 is quota's contract; 0xCBF43926 is the checksum's published check value for this text.
    assert PARTITIONS == 64
    assert partition_of("123456789") == 0xCBF43926 % 64
