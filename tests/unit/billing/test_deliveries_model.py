"""Any history of attempts, failures, crashes, redelivery, new secrets and deletions, by two replicas.

Each alert reaches each of its webhooks at least once or is in the list of what could not be delivered; never is a
delivery in two pairs of hands within its lease, never attempted before it is due or more often than is promised, and
never signed by other secrets than those that are good.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook as StandardWebhook

from services.billing.adapters.sql.alert_tables import ALERT_DELIVERIES, ALERTS
from services.billing.adapters.sql.database import Database
from services.billing.adapters.webhooks.secrets import PepperSealer, StandardSigner
from services.billing.alert_store import AlertFilter
from services.billing.domain.alerts import AlertSeverity
from services.billing.domain.audit import Actor, ActorKind
from services.billing.domain.webhooks import (
    RETRY_DELAYS_S,
    AttemptResult,
    Delivery,
    DeliveryFailure,
    DeliveryState,
    WebhookFormat,
)
from services.billing.service.alerts import AlertService, OwnAlert
from services.billing.service.deliveries import AT_ONCE_OF_ACCOUNT, AT_ONCE_OF_WEBHOOK, LEASE_US, DeliveryDispatcher
from services.billing.service.paging import PageRequest
from services.billing.service.webhooks import OVERLAP_US, WebhookService
from services.shared.background import Backoff
from services.shared.errors import FlowStackError
from services.shared.secret import Secret
from tests.support.books import Books
from tests.support.clock import DAY_US, HOUR_US, SECOND_US, ManualClock
from tests.support.database import emptied

CUSTOMER: Final = Actor(ActorKind.CUSTOMER, "key_1")
ATTEMPTS_MAX: Final = 10
PENDING, DELIVERED, DEAD = DeliveryState.PENDING, DeliveryState.DELIVERED, DeliveryState.DEAD
TAKEN: Final = AttemptResult(DeliveryFailure.NONE, 200)
RESULTS: Final = (
    TAKEN,
    AttemptResult(DeliveryFailure.STATUS, 500),
    AttemptResult(DeliveryFailure.TIMED_OUT),
    AttemptResult(DeliveryFailure.TLS),
    AttemptResult(DeliveryFailure.STATUS, 410),
    AttemptResult(DeliveryFailure.STATUS, 503, 7_000.0),
)
HOOKS: Final = (0, 0, 1)
"""Whose webhooks they are: two of one account, one of another."""

Key = tuple[str, str]
"""An alert and a webhook."""

sends = st.tuples(st.just("send"), st.sampled_from([(0,), (1,), (0, 1), (2,)]))
runs = st.tuples(st.just("run"), st.sampled_from([(0,), (1,), (0, 1)]))
answers = st.tuples(st.just("answer"), st.integers(0, 20), st.sampled_from(RESULTS))
steps = st.lists(
    st.one_of(
        sends,
        runs,
        runs,
        runs,
        answers,
        answers,
        answers,
        st.tuples(st.just("down"), st.integers(1, 2 * ATTEMPTS_MAX)),
        st.tuples(st.just("crash"), st.integers(0, 1)),
        st.tuples(st.just("wait"), st.sampled_from([1, 4, 6, 59, 61, 400, 30_000, 100_000])),
        st.tuples(st.just("redeliver"), st.integers(0, 20), st.sampled_from([None, 0, 1, 2])),
        st.tuples(st.just("rotate"), st.integers(0, 2), st.sampled_from([None, 0, HOUR_US])),
        st.tuples(st.just("delete"), st.integers(0, 2)),
    ),
    min_size=20,
    max_size=50,
)


@dataclass(eq=False)
class Attempt:
    """A request that is at its receiver, and was not answered yet."""

    key: Key
    replica: int
    account_id: str
    answer: asyncio.Future[AttemptResult] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass
class Expected:
    """A delivery as it should stand."""

    account_id: str
    due_us: int
    state: DeliveryState = PENDING
    attempts: int = 0
    tries: int = 0
    holder: Attempt | None = None
    lease_end_us: int = 0
    was_taken: bool = False
    """A receiver has taken it, since it was asked for last."""


@dataclass
class Hook:
    """A webhook, with the secrets that are good and until when."""

    account_id: str
    webhook_id: str
    secret: str
    previous: str = ""
    previous_end_us: int = 0
    is_deleted: bool = False


class Sender:
    """One replica's way to the receivers."""

    def __init__(self, world: World, replica: int) -> None:
        self._world = world
        self._replica = replica

    async def check(self, account_id: str, url: str, form: WebhookFormat) -> str:
        """Everything is allowed."""
        return url

    async def post(self, account_id: str, url: Secret, headers: Mapping[str, str], body: str) -> AttemptResult:
        """Waits until the test answers."""
        try:
            attempt = self._world.arrive(self._replica, url.reveal(), headers, body)
        except AssertionError as error:
            # Who dispatches survives any error.
            self._world.broken.append(error)
            raise
        return await attempt.answer


class World:
    """Two replicas, three webhooks, and what has happened so far."""

    def __init__(self, database: Database, jitter: float) -> None:
        self.clock = ManualClock()
        self.books = [Books(database, self.clock) for _ in range(2)]
        self.alerts = [AlertService(books.context) for books in self.books]
        self.senders = [Sender(self, replica) for replica in range(2)]
        self.parts = (PepperSealer(Secret("pepper"), secrets.token_bytes), StandardSigner())
        self.webhooks = WebhookService(self.books[0].context, self.senders[0], *self.parts)
        self.backoff = Backoff(0.01, 0.02, lambda: jitter)
        self.dispatchers = [self.dispatcher(replica) for replica in range(2)]
        self.accounts: list[str] = []
        self.hooks: list[Hook] = []
        self.sent: list[tuple[str, str]] = []
        """Accounts and the ids of their alerts."""
        self.expected: dict[Key, Expected] = {}
        self.open: list[Attempt] = []
        self.broken: list[AssertionError] = []
        """Attempts that should not have been made."""

    def dispatcher(self, replica: int) -> DeliveryDispatcher:
        return DeliveryDispatcher(self.books[replica].context, self.senders[replica], *self.parts, self.backoff)

    async def begin(self) -> None:
        self.accounts = [await self.books[0].open_account() for _ in range(2)]
        for number, owner in enumerate(HOOKS):
            account_id = self.accounts[owner]
            url = f"https://hooks.example/{number}"
            made = await self.webhooks.create(account_id, url, "", WebhookFormat.STANDARD, CUSTOMER)
            self.hooks.append(Hook(account_id, made.webhook.webhook_id, made.secret.reveal()))

    def arrive(self, replica: int, url: str, headers: Mapping[str, str], body: str) -> Attempt:
        """A request comes in: is it one that may be made now, by this replica?"""
        hook, now_us = self.hooks[int(url[-1])], self.clock.now_us()
        attempt = Attempt((headers["webhook-id"], hook.webhook_id), replica, hook.account_id)
        expected = self.expected[attempt.key]
        assert expected.state is PENDING
        assert expected.due_us <= now_us, "attempted before it is due"
        assert expected.lease_end_us <= now_us, "claimed while it is in other hands"
        assert expected.tries < ATTEMPTS_MAX
        assert not hook.is_deleted
        good = [hook.secret, *([hook.previous] if now_us < hook.previous_end_us else [])]
        time = datetime.fromtimestamp(now_us // SECOND_US, UTC)
        assert headers["webhook-timestamp"] == str(now_us // SECOND_US)
        signed = {StandardWebhook(secret).sign(attempt.key[0], time, body) for secret in good}
        assert set(headers["webhook-signature"].split(" ")) == signed
        expected.holder, expected.lease_end_us = attempt, now_us + LEASE_US
        self.open.append(attempt)
        held = Counter(one.account_id for one in self.open if one.replica == replica)
        assert max(held.values()) <= AT_ONCE_OF_ACCOUNT
        to_webhook = Counter(one.key[1] for one in self.open if one.replica == replica)
        assert max(to_webhook.values()) <= AT_ONCE_OF_WEBHOOK
        return attempt

    async def do(self, what: str, *details: Any) -> None:
        await getattr(self, what)(*details)

    async def send(self, hooks: tuple[int, ...]) -> None:
        chosen = [self.hooks[number] for number in hooks]
        account_id, webhook_ids = chosen[0].account_id, tuple(hook.webhook_id for hook in chosen)
        own = OwnAlert(account_id, "m", AlertSeverity.INFO, "", webhook_ids, "")
        if any(hook.is_deleted for hook in chosen):
            with pytest.raises(FlowStackError, match="no such webhook"):
                await self.alerts[len(self.sent) % 2].send(own)
            return
        view = await self.alerts[len(self.sent) % 2].send(own)
        self.sent.append((account_id, view.alert.alert_id))
        for webhook_id in webhook_ids:
            self.expected[view.alert.alert_id, webhook_id] = Expected(account_id, self.clock.now_us())

    async def run(self, replicas: tuple[int, ...]) -> None:
        """Lets replicas claim what is due, at the same time, until every request is at its receiver."""
        claiming = [asyncio.create_task(self.dispatchers[replica].run_once()) for replica in replicas]
        while not all(task.done() for task in claiming):
            # Who finds nothing waits for a signal.
            for replica in replicas:
                self.books[replica].context.signals.deliveries.set()
            await asyncio.sleep(0)
        await asyncio.gather(*claiming)
        for replica in replicas:
            await self.until_running(replica)

    async def until_running(self, replica: int) -> None:
        running = self.dispatchers[replica]._running
        while len(running) != sum(attempt.replica == replica for attempt in self.open):
            await asyncio.sleep(0)

    async def answer(self, number: int, result: AttemptResult) -> None:
        if not self.open:
            return
        attempt = self.open.pop(number % len(self.open))
        attempt.answer.set_result(result)
        await self.until_running(attempt.replica)
        expected, now_us = self.expected[attempt.key], self.clock.now_us()
        if result is TAKEN:
            expected.was_taken = True
        if expected.holder is not attempt:
            return  # it was in other hands, or ended: what became of this attempt changes nothing
        tries, expected.tries, expected.attempts = expected.tries, expected.tries + 1, expected.attempts + 1
        expected.holder, expected.lease_end_us = None, 0
        if result is TAKEN:
            expected.state = DELIVERED
        elif expected.tries == ATTEMPTS_MAX or result.http_status == 410:
            expected.state = DEAD
        else:
            expected.due_us = (await self.stored())[attempt.key].next_attempt_us
            low_s, high_s = (max(RETRY_DELAYS_S[tries] * part, result.retry_after_s) for part in (0.9, 1.1))
            assert low_s <= (expected.due_us - now_us) / 1e6 <= high_s

    async def down(self, attempts: int) -> None:
        """Every receiver is down for so many attempts."""
        for _ in range(attempts):
            waiting = [one for one in self.expected.values() if one.state is PENDING]
            if not waiting:
                return
            next_us = min(max(one.due_us, one.lease_end_us) for one in waiting)
            self.clock.advance_us(max(0, next_us - self.clock.now_us()))
            await self.run((0, 1))
            while self.open:
                await self.answer(0, RESULTS[1])

    async def crash(self, replica: int) -> None:
        await self.dispatchers[replica].close()
        self.dispatchers[replica] = self.dispatcher(replica)
        self.open = [attempt for attempt in self.open if attempt.replica != replica]

    async def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    async def redeliver(self, number: int, hook_number: int | None) -> None:
        if not self.sent:
            return
        account_id, alert_id = self.sent[number % len(self.sent)]
        hook = None if hook_number is None else self.hooks[hook_number]
        work = self.alerts[number % 2].redeliver(account_id, alert_id, hook.webhook_id if hook else "")
        if hook and (hook.is_deleted or hook.account_id != account_id):
            with pytest.raises(FlowStackError, match="no such webhook"):
                await work
            return
        await work
        there = {one.webhook_id for one in self.hooks if not one.is_deleted}
        wanted = {hook.webhook_id} if hook else {w for a, w in self.expected if a == alert_id and w in there}
        for webhook_id in wanted:
            now_us = self.clock.now_us()
            expected = self.expected.setdefault((alert_id, webhook_id), Expected(account_id, now_us))
            expected.due_us = now_us
            if expected.state is not PENDING:
                expected.state, expected.tries, expected.was_taken = PENDING, 0, False
                expected.holder, expected.lease_end_us = None, 0

    async def rotate(self, number: int, overlap_us: int | None) -> None:
        hook = self.hooks[number]
        if not hook.is_deleted:
            rotated = await self.webhooks.rotate(hook.account_id, hook.webhook_id, overlap_us, CUSTOMER)
            hook.previous, hook.secret = hook.secret, rotated.secret.reveal()
            hook.previous_end_us = self.clock.now_us() + (OVERLAP_US if overlap_us is None else overlap_us)

    async def delete(self, number: int) -> None:
        hook = self.hooks[number]
        if hook.is_deleted:
            return
        await self.webhooks.delete(hook.account_id, hook.webhook_id, CUSTOMER)
        hook.is_deleted = True
        for (_, webhook_id), expected in self.expected.items():
            if webhook_id == hook.webhook_id and expected.state is PENDING:
                expected.state, expected.holder, expected.lease_end_us = DEAD, None, 0

    async def stored(self) -> dict[Key, Delivery]:
        alert_ids = defaultdict(list)
        for account_id, alert_id in self.sent:
            alert_ids[account_id].append(alert_id)
        found: list[Delivery] = []
        for account_id, some in alert_ids.items():
            store = self.books[0].context.store
            found += await store.transact(lambda t, a=account_id, ids=some: t.webhooks.deliveries(a, ids))  # type: ignore[misc]
        return {(delivery.alert_id, delivery.webhook_id): delivery for delivery in found}

    async def check(self) -> None:
        for error in self.broken:
            raise error
        told = {
            key: (one.state, one.attempts, one.tries, one.next_attempt_us) for key, one in (await self.stored()).items()
        }
        assert told == {
            key: (one.state, one.attempts, one.tries, one.due_us if one.state is PENDING else 0)
            for key, one in self.expected.items()
        }

    async def finish(self) -> None:
        """Everybody is well again: whatever is left has to come to its end, and nothing more was attempted."""
        for _ in range(ATTEMPTS_MAX * (1 + len(self.expected))):
            while self.open:
                await self.answer(0, TAKEN)
            if all(one.state is not PENDING for one in self.expected.values()):
                break
            self.clock.advance_us(DAY_US + HOUR_US)
            await self.run((0, 1))
        await self.check()
        dead = set[Key]()
        for account_id in self.accounts:
            wanted = AlertFilter(delivery_states=(DEAD,))
            letters = (await self.alerts[1].list(account_id, wanted, PageRequest(1_000, ""))).items
            dead |= {(d.alert_id, d.webhook_id) for letter in letters for d in letter.deliveries if d.state is DEAD}
        assert dead == {key for key, one in self.expected.items() if one.state is DEAD}
        assert all(one.was_taken for key, one in self.expected.items() if key not in dead)


@pytest.mark.timeout(300)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(history=steps, jitter=st.floats(0, 1))
async def test_each_alert_reaches_each_webhook_or_is_given_up(
    database: Database, history: list[tuple[Any, ...]], jitter: float
) -> None:
    async with database.engine.begin() as connection:
        await emptied(connection, ALERT_DELIVERIES, ALERTS)
    world = World(database, jitter)
    await world.begin()
    try:
        for step in history:
            await world.do(*step)
            await world.check()
        await world.finish()
    finally:
        for dispatcher in world.dispatchers:
            await dispatcher.close()
