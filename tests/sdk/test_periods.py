"""What the published page says of refunds, and of resets: over the services, whose clock is moved to a period's end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import pytest
from flowstack_protos.billing.v1 import account_service_pb2 as accounts
from flowstack_protos.billing.v1 import invoice_pb2
from flowstack_protos.billing.v1 import invoice_service_pb2 as invoices
from flowstack_protos.billing.v1.subscription_service_pb2 import (
    CancelSubscriptionRequest,
    ChangePlanRequest,
    RevertPendingChangeRequest,
)

from flowstack import Agent, QuotaExceededError, SubscriptionEndedError
from flowstack._client import Client
from flowstack._connection import Connection
from flowstack._endpoints import endpoints_from
from flowstack._methods import AccountService, InvoiceService, SubscriptionService
from flowstack._values import dollars
from services.shared.periods import us_from_time
from tests.support.billing import ADMIN
from tests.support.clock import DAY_US, SECOND_US, ManualClock
from tests.support.clocked_suite import ClockedSuite, clocked_suite
from tests.support.threads import in_thread


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClockedSuite]:
    with in_thread(lambda: clocked_suite(tmp_path_factory.mktemp("clocked"))) as running:
        yield running


@pytest.fixture(scope="module")
def operator(suite: ClockedSuite) -> Iterator[Client]:
    with Client(Connection(endpoints_from({}, suite.endpoint), ADMIN)) as client:
        yield client


@dataclass
class Customer:
    """A customer, and the clock of the world that it lives in."""

    agent: Agent
    account_id: str
    operator: Client
    clock: ManualClock

    def change(self, plan_id: str) -> None:
        client = self.agent._core.blocking()
        assert client.call(SubscriptionService.ChangePlan, ChangePlanRequest(plan_id=plan_id)).entitlement_applied

    def cancel(self) -> None:
        self.agent._core.blocking().call(SubscriptionService.CancelSubscription, CancelSubscriptionRequest())

    def invoices(self) -> list[invoice_pb2.Invoice]:
        """What was charged or given back, oldest first."""
        request = invoices.ListInvoicesRequest(account_id=self.account_id)
        found = self.operator.call(InvoiceService.ListInvoices, request).invoices
        return [one for one in reversed(found) if one.kind != invoice_pb2.INVOICE_KIND_USAGE_STATEMENT]

    def charged(self) -> list[float]:
        return [dollars(invoice.total) for invoice in self.invoices()]

    def pay(self) -> None:
        for invoice in self.invoices():
            if invoice.state == invoice_pb2.INVOICE_STATE_OPEN:
                request = invoices.MarkInvoicePaidRequest(
                    account_id=self.account_id, invoice_id=invoice.invoice_id, payment_reference=invoice.number
                )
                self.operator.call(InvoiceService.MarkInvoicePaid, request)

    def until(self, moment: datetime, *, seconds_before: int = 0) -> None:
        """Lets time pass until then; what is owed is paid."""
        self.pay()
        self.clock.advance_us(us_from_time(moment) - seconds_before * SECOND_US - self.clock.now_us())

    def until_tier(self, tier: str) -> None:
        """Waits until billing has done what was due."""
        while self.agent.get_tier_info()["current_tier"] != tier:
            pass


def customer(suite: ClockedSuite, operator: Client, plan_id: str) -> Customer:
    request = accounts.CreateAccountRequest(display_name="P", email="p@example.com", plan_id=plan_id)
    account_id = operator.call(AccountService.CreateAccount, request).account.account_id
    wanted = accounts.CreateApiKeyRequest(account_id=account_id, display_name="p")
    secret = operator.call(AccountService.CreateApiKey, wanted).secret
    agent = Agent("periodical", secret, provider="echo", endpoint=suite.endpoint)
    return Customer(agent, account_id, operator, suite.clock)


@pytest.fixture
def free(suite: ClockedSuite, operator: Client) -> Iterator[Customer]:
    made = customer(suite, operator, "free")
    with made.agent:
        yield made


@pytest.fixture
def starter(suite: ClockedSuite, operator: Client) -> Iterator[Customer]:
    made = customer(suite, operator, "starter")
    with made.agent:
        yield made


def test_limits_reset_by_themselves_at_the_next_period(free: Customer) -> None:
    agent = free.agent
    for _ in range(25):
        agent.chat("Hello")
    with pytest.raises(QuotaExceededError) as caught:
        agent.chat("Hello")
    reset = caught.value.details["reset_time"]
    free.until(reset, seconds_before=1)
    with pytest.raises(QuotaExceededError):
        agent.chat("Hello")
    free.until(reset)
    reply = agent.chat("Hello")
    assert (reply.session.sessions_used, reply.session.sessions_remaining) == (1, 24)
    assert agent.get_usage().period_start == reset


def test_unused_sessions_do_not_roll_over(starter: Customer) -> None:
    agent = starter.agent
    agent.chat("Hello")
    usage = agent.get_usage()
    assert (usage.sessions_used, usage.sessions_remaining) == (1, 999)
    starter.until(usage.period_end)
    assert agent.chat("Hello").session.sessions_remaining == 999
    usage = agent.get_usage()
    assert (usage.sessions_used, usage.sessions_limit, usage.sessions_remaining) == (1, 1000, 999)


def test_a_downgrade_applies_at_the_next_period_and_gives_nothing_back(starter: Customer) -> None:
    agent = starter.agent
    agent.chat("Hello")
    ends = agent.get_usage().period_end
    starter.change("hobbyist")
    info = agent.get_tier_info()
    assert (info["current_tier"], info["pending_tier"], info["sessions_limit"]) == ("starter", "hobbyist", 1000)
    starter.until(ends, seconds_before=1)
    assert agent.chat("Hello").session.sessions_limit == 1000
    assert starter.charged() == [50.0]
    starter.until(ends)
    reply = agent.chat("Hello")
    assert (reply.session.sessions_used, reply.session.sessions_limit) == (1, 200)
    starter.until_tier("hobbyist")
    info = agent.get_tier_info()
    assert (info["pending_tier"], info["sessions_limit"], info["period_start"]) == (None, 200, ends)
    assert starter.charged() == [50.0, 15.0]


def test_a_downgrade_can_be_thought_better_of_until_then(starter: Customer) -> None:
    agent = starter.agent
    ends = agent.get_usage().period_end
    starter.change("free")
    starter.until(ends, seconds_before=1)
    agent._core.blocking().call(SubscriptionService.RevertPendingChange, RevertPendingChangeRequest())
    starter.until(ends)
    assert agent.chat("Hello").session.sessions_limit == 1000
    assert agent.get_tier_info()["current_tier"] == "starter"


def test_an_upgrade_is_immediate_within_the_period_and_keeps_its_end(starter: Customer) -> None:
    agent = starter.agent
    agent.chat("Hello")
    ends = agent.get_usage().period_end
    starter.change("professional")
    reply = agent.chat("Hello")
    assert (reply.session.sessions_used, reply.session.sessions_limit) == (2, 5000)
    assert agent.get_usage().period_end == ends
    assert starter.charged() == [50.0, 150.0]  # the difference in full, whatever of the period is left


def test_a_cancellation_serves_until_the_periods_end_and_is_over_then(starter: Customer) -> None:
    agent = starter.agent
    agent.vault.store("data", {"a": 1}, key="k")
    ends = agent.get_usage().period_end
    starter.cancel()
    assert agent.get_tier_info()["state"] == "cancelling"
    assert agent.chat("Hello").session.sessions_limit == 1000
    starter.until(ends, seconds_before=1)
    assert agent.chat("Hello") == "Hello"
    starter.until(ends)
    with pytest.raises(SubscriptionEndedError) as caught:
        agent.chat("Hello")
    assert "plan" in str(caught.value)
    # Nothing is charged any more and nothing is given back; data and usage stay readable.
    starter.clock.advance_us(40 * DAY_US)
    assert agent.get_tier_info()["state"] == "ended"
    assert starter.charged() == [50.0]
    assert agent.vault.retrieve("data", key="k") == {"a": 1}
    assert agent.get_usage().refusal_reason == "SUBSCRIPTION_ENDED"
    # Who comes back begins anew, at once.
    starter.change("free")
    assert agent.chat("Hello").session.sessions_limit == 25
