"""How long a service believes what billing said of a key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.shared import api_keys
from services.shared.api_keys import ApiKeys, Identity
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


class Pauses:
    """The waits between questions to a billing that is down, each held until a test lets it pass."""

    def __init__(self) -> None:
        self._gate = asyncio.Semaphore(0)
        self.begun = asyncio.Semaphore(0)

    async def __call__(self, _: float) -> None:
        self.begun.release()
        await self._gate.acquire()

    def pass_(self) -> None:
        self._gate.release()


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
async def keys(clock: HandClock, billing: FakeBilling, pauses: Pauses) -> AsyncIterator[ApiKeys]:
    keys = ApiKeys(billing, clock, pauses)
    yield keys
    await keys.close()


async def turns() -> None:
    """Lets every task that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


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
    monkeypatch.setattr(api_keys, "ENTRIES_MAX", 3)
    for name in "abcd":
        await keys.authenticate(Secret(name))

    assert len(keys._known) == 3
    await keys.authenticate(Secret("d"))
    assert len(billing.asked) == 4


async def test_wrong_keys_do_not_push_out_good_ones(
    keys: ApiKeys, billing: FakeBilling, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_keys, "ENTRIES_MAX", 3)
    await keys.authenticate(Secret("good"))
    billing.error = FlowStackError(Reason.API_KEY_INVALID, "No.")
    for number in range(10):
        assert await reason(keys, f"bad{number}") is Reason.API_KEY_INVALID
    billing.error = DOWN
    clock.now_s += 60

    assert (await keys.authenticate(Secret("good"))).account_id == "acct_good"


class HangingBilling(FakeBilling):
    """Takes each question and answers none until the gate opens; a question that times out fails as the client's do."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs = False
        self.questions: list[asyncio.Future[None]] = []

    async def __call__(self, key: Secret) -> Identity:
        if self.hangs:
            self.asked.append(key.reveal())
            question: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.questions.append(question)
            await question
            raise DOWN
        return await super().__call__(key)

    def time_out(self) -> None:
        """Lets the limit of every question that is asked now pass."""
        for question in self.questions:
            if not question.done():
                question.set_result(None)


@pytest.fixture
def hanging(clock: HandClock, pauses: Pauses) -> tuple[HangingBilling, ApiKeys]:
    billing = HangingBilling()
    return billing, ApiKeys(billing, clock, pauses)


async def test_a_billing_that_hangs_costs_one_wait_and_no_more(
    hanging: tuple[HangingBilling, ApiKeys], clock: HandClock, pauses: Pauses
) -> None:
    billing, keys = hanging
    for name in "ab":
        await keys.authenticate(Secret(name))
    clock.now_s += 11
    billing.hangs = True
    first = asyncio.create_task(keys.authenticate(Secret("a")))
    await turns()
    assert not first.done(), "billing is known to answer until it does not"
    billing.time_out()
    assert (await first).account_id == "acct_a"

    asked = len(billing.asked)
    for _ in range(100):
        for name in "ab":
            # Answered within the one turn that they get: nothing is waited for.
            call = asyncio.create_task(keys.authenticate(Secret(name)))
            await asyncio.sleep(0)
            assert call.done()
            assert call.result().account_id == f"acct_{name}"
        clock.now_s += 1
    assert len(billing.asked) == asked, "not one question for each request"

    pauses.pass_()
    await turns()
    assert len(billing.asked) == asked + 1, "one question in the background"
    assert (await keys.authenticate(Secret("b"))).account_id == "acct_b", "also while it hangs"
    billing.time_out()
    await keys.close()


async def test_once_billing_answers_again_a_revoked_key_is_refused(
    hanging: tuple[HangingBilling, ApiKeys], clock: HandClock, pauses: Pauses
) -> None:
    billing, keys = hanging
    for name in "ab":
        await keys.authenticate(Secret(name))
    clock.now_s += 11
    billing.hangs = True
    first = asyncio.create_task(keys.authenticate(Secret("a")))
    await turns()
    billing.time_out()
    await first
    billing.hangs, billing.error = False, REVOKED
    assert (await keys.authenticate(Secret("b"))).account_id == "acct_b", "nobody knows yet"
    # Without any further request billing is asked again.
    pauses.pass_()
    await turns()

    assert await reason(keys, "a") is Reason.API_KEY_REVOKED
    assert await reason(keys, "b") is Reason.API_KEY_REVOKED, "though its answer is under five minutes old"
    await keys.close()


async def test_a_billing_that_is_down_is_asked_until_it_answers(
    keys: ApiKeys, billing: FakeBilling, clock: HandClock, pauses: Pauses
) -> None:
    await keys.authenticate(Secret("a"))
    clock.now_s += 11
    billing.error = DOWN
    await keys.authenticate(Secret("a"))
    for count in range(3, 6):
        await pauses.begun.acquire()
        pauses.pass_()
        await turns()
        assert len(billing.asked) == count
    billing.error = None
    await pauses.begun.acquire()
    pauses.pass_()
    await turns()
    assert len(billing.asked) == 6
    pauses.pass_()
    await turns()

    assert len(billing.asked) == 6, "no longer once it has answered"
    clock.now_s += 9
    await keys.authenticate(Secret("a"))
    assert len(billing.asked) == 6, "its answer is fresh"


async def test_a_key_that_was_never_seen_is_asked_for_while_billing_is_down(
    keys: ApiKeys, billing: FakeBilling, clock: HandClock
) -> None:
    billing.error = DOWN
    assert await reason(keys, "a") is Reason.BILLING_UNAVAILABLE
    billing.error = None
    assert (await keys.authenticate(Secret("a"))).account_id == "acct_a"

    clock.now_s += 11
    billing.error = REVOKED
    assert await reason(keys, "a") is Reason.API_KEY_REVOKED, "the answer told that billing is back"


async def test_an_answer_that_is_of_no_use_does_not_pass_for_silence(
    keys: ApiKeys, billing: FakeBilling, clock: HandClock
) -> None:
    await keys.authenticate(Secret("a"))
    clock.now_s += 11
    billing.error = FlowStackError(Reason.INTERNAL, "A defect.")
    assert await reason(keys, "strange") is Reason.BILLING_UNAVAILABLE
    assert (await keys.authenticate(Secret("a"))).account_id == "acct_a", "the last good answer"

    billing.error = REVOKED
    assert await reason(keys, "a") is Reason.API_KEY_REVOKED, "billing answers, so nothing stale is served"


async def test_closing_ends_the_questions(keys: ApiKeys, billing: FakeBilling) -> None:
    billing.error = DOWN
    assert await reason(keys, "a") is Reason.BILLING_UNAVAILABLE
    await keys.close()

    assert [task for task in asyncio.all_tasks() if "ApiKeys" in repr(task)] == []
