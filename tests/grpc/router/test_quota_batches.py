"""What travels to quota together, and what does not wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.router.adapters import quota_client
from services.router.adapters.quota_client import BATCH_COMMANDS_WORTHWHILE, QuotaClient
from services.router.domain.quota import Grant, Reservation
from services.router.domain.request import Candidate, CredentialMode
from tests.support.fake_quota import FakeQuota, channel_to

CANDIDATES = (Candidate("echo", "echo-1", CredentialMode.BYOK),)
LONG_SECONDS = 60.0
"""Longer than any test takes."""


@pytest.fixture
async def client(quota: FakeQuota) -> AsyncIterator[QuotaClient]:
    """A client whose first command is on its way and not answered yet."""
    channel = channel_to(quota.address)
    client = QuotaClient(channel, answer_s=20)
    await client.start()
    quota.faults.late = {"reserve"}
    first = reserve(client, 0)
    await quota.until(lambda: len(quota.sessions) == 1)
    yield client
    quota.faults.answer_now.set()
    await asyncio.gather(first, return_exceptions=True)
    await client.close()
    await channel.channel.close()


def reserve(client: QuotaClient, number: int) -> asyncio.Task[Grant]:
    reservation = Reservation("acct_1", f"ses_{number:032x}", CANDIDATES, 330.0, "", "", {})
    return asyncio.create_task(client.reserve(reservation))


async def turns() -> None:
    """Lets everything go on that can."""
    for _ in range(100):
        await asyncio.sleep(0)


async def test_a_few_wait_for_the_answer_and_go_together(
    quota: FakeQuota, client: QuotaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota_client, "HOLD_SECONDS", LONG_SECONDS)
    waiting = []
    for number in range(1, 4):
        waiting.append(reserve(client, number))
        await turns()
    assert quota.batch_sizes == [1]
    quota.faults.answer_now.set()
    await asyncio.gather(*waiting)

    assert quota.batch_sizes == [1, 3]


async def test_they_do_not_wait_long(quota: FakeQuota, client: QuotaClient) -> None:
    reserve(client, 1)
    await quota.until(lambda: len(quota.sessions) == 2)

    assert quota.batch_sizes == [1, 1]
    assert not quota.faults.answer_now.is_set(), "the first is not answered yet"


async def test_many_do_not_wait(quota: FakeQuota, client: QuotaClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota_client, "HOLD_SECONDS", LONG_SECONDS)
    for number in range(1, BATCH_COMMANDS_WORTHWHILE + 1):
        reserve(client, number)
    await quota.until(lambda: len(quota.sessions) == 1 + BATCH_COMMANDS_WORTHWHILE)

    assert quota.batch_sizes == [1, BATCH_COMMANDS_WORTHWHILE]


async def test_what_is_held_back_fails_with_the_client(
    quota: FakeQuota, client: QuotaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota_client, "HOLD_SECONDS", LONG_SECONDS)
    held = reserve(client, 1)
    await turns()
    await client.close()

    with pytest.raises(Exception, match="Quota cannot be reached"):
        await held
