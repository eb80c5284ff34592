"""How long the router believes what billing said of a key."""

from __future__ import annotations

import asyncio

import pytest

from services.router.adapters import billing_client
from services.router.adapters.billing_client import ApiKeys, Identity
from services.shared.auth import Caller, CallerKind
from services.shared.errors import FlowStackError, Reason
from services.shared.secret import Secret


class HandClock:
    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def now_us(self) -> int:
        return round(self.now_s * 1_000_000)

    def monotonic_s(self) -> float:
        return self.now_s


class FakeBilling:
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.error: FlowStackError | None = None
        self.expires_us: int | None = None
        self.gate: asyncio.Event | None = None

    async def __call__(self, key: Secret) -> Identity:
        self.asked.append(key.reveal())
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return Identity(Caller(CallerKind.CUSTOMER, f"acct_{key.reveal()}", "key_1"), self.expires_us)


DOWN = FlowStackError(Reason.BILLING_UNAVAILABLE, "Down.")
REVOKED = FlowStackError(Reason.API_KEY_REVOKED, "Revoked.")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def billing() -> FakeBilling:
    return FakeBilling()


@pytest.fixture
def keys(clock: HandClock, billing: FakeBilling) -> ApiKeys:
    return ApiKeys(billing, clock)


async def reason(keys: ApiKeys, key: str) -> Reason:
    with pytest.raises(FlowStackError) as caught:
        await keys.authenticate(Secret(key))
    return caught.value.reason


async def test_a_fresh_answer_is_not_asked_for_again(keys: ApiKeys, billing: FakeBilling, clock: HandClock) -> None:
    for _ in range(3):
        assert (await keys.authenticate(Secret("a"))).account_id == "acct_a"
        clock.now_s += 3
    assert billing.asked == ["a"]

    clock.now_s += 2
    billing.error = REVOKED
    assert await reason(keys, "a") is Reason.API_KEY_REVOKED


async def test_a_key_outlives_billing_by_five_minutes_from_its_last_answer(
    keys: ApiKeys, billing: FakeBilling, clock: HandClock
) -> None:
    await keys.authenticate(Secret("a"))
    billing.error = DOWN
    for _ in range(9):
        clock.now_s += 33
        assert (await keys.authenticate(Secret("a"))).account_id == "acct_a"
    clock.now_s += 4

    assert await reason(keys, "a") is Reason.BILLING_UNAVAILABLE
    assert await reason(keys, "never seen") is Reason.BILLING_UNAVAILABLE


async def test_a_refusal_is_remembered_shortly(keys: ApiKeys, billing: FakeBilling, clock: HandClock) -> None:
    billing.error = FlowStackError(Reason.API_KEY_INVALID, "No.")
    assert await reason(keys, "a") is Reason.API_KEY_INVALID
    assert await reason(keys, "a") is Reason.API_KEY_INVALID
    assert billing.asked == ["a"]

    billing.error = None
    clock.now_s += 2
    assert (await keys.authenticate(Secret("a"))).account_id == "acct_a"


async def test_a_revoked_key_stays_refused_while_billing_is_down(
    keys: ApiKeys, billing: FakeBilling, clock: HandClock
) -> None:
    await keys.authenticate(Secret("a"))
    clock.now_s += 11
    billing.error = REVOKED
    assert await reason(keys, "a") is Reason.API_KEY_REVOKED
    clock.now_s += 5
    billing.error = DOWN

    assert await reason(keys, "a") is Reason.BILLING_UNAVAILABLE


async def test_a_key_is_never_good_beyond_its_expiry(keys: ApiKeys, billing: FakeBilling, clock: HandClock) -> None:
    billing.expires_us = clock.now_us() + 5_000_000
    await keys.authenticate(Secret("a"))
    clock.now_s += 5

    assert await reason(keys, "a") is Reason.API_KEY_EXPIRED
    assert billing.asked == ["a"], "known without asking"


async def test_callers_at_the_same_time_share_one_question(keys: ApiKeys, billing: FakeBilling) -> None:
    billing.gate = asyncio.Event()
    tasks = [asyncio.create_task(keys.authenticate(Secret("a"))) for _ in range(10)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.sleep(0)
    billing.gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)

    assert billing.asked == ["a"]
    assert isinstance(answers[0], asyncio.CancelledError)
    assert all(isinstance(answer, Caller) for answer in answers[1:])


async def test_keys_with_the_same_beginning_are_different_keys(keys: ApiKeys, billing: FakeBilling) -> None:
    long = "fs_" + "x" * 500
    assert (await keys.authenticate(Secret(long + "1"))).account_id.endswith("1")
    assert (await keys.authenticate(Secret(long + "2"))).account_id.endswith("2")
    assert b"xxxx" not in b"".join(keys._known)


async def test_memory_is_bounded(keys: ApiKeys, billing: FakeBilling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(billing_client, "ENTRIES_MAX", 3)
    for name in "abcd":
        await keys.authenticate(Secret(name))

    assert len(keys._known) == 3
    await keys.authenticate(Secret("d"))
    assert len(billing.asked) == 4


async def test_wrong_keys_do_not_push_out_good_ones(
    keys: ApiKeys, billing: FakeBilling, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(billing_client, "ENTRIES_MAX", 3)
    await keys.authenticate(Secret("good"))
    billing.error = FlowStackError(Reason.API_KEY_INVALID, "No.")
    for number in range(10):
        assert await reason(keys, f"bad{number}") is Reason.API_KEY_INVALID
    billing.error = DOWN
    clock.now_s += 60

    assert (await keys.authenticate(Secret("good"))).account_id == "acct_good"
