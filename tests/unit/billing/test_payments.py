"""Invoices on their way to the payment provider: none is lost in an outage, none is sent twice."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from services.billing.adapters.sql.database import Database
from services.billing.adapters.stripe_client import StripeClient
from services.billing.domain.invoices import CreditNote, CreditNoteLine, Invoice
from services.billing.payments import PublishedInvoice
from services.billing.service.payments import PaymentDispatcher
from services.shared.background import Backoff
from services.shared.errors import FlowStackError, Reason
from services.shared.secret import Secret
from tests.support.books import Books
from tests.support.clock import ManualClock
from tests.support.go_programs import STRIPE_MOCK
from tests.support.stripe_mock import stripe_mock


class FakeProvider:
    """A payment provider in memory, which fails on demand, before or after it did what it was asked for."""

    def __init__(self) -> None:
        self.down = False
        self.loses_answers = False
        self.customers: dict[str, str] = {}
        self.states: dict[str, str] = {}
        self.credits: dict[str, int] = {}
        self.calls: list[str] = []

    def _admit(self, call: str) -> None:
        self.calls.append(call)
        if self.down:
            raise FlowStackError(Reason.PAYMENT_PROVIDER_UNAVAILABLE, "Down.")

    def _answer(self) -> None:
        if self.loses_answers:
            self.loses_answers = False
            raise FlowStackError(Reason.PAYMENT_PROVIDER_UNAVAILABLE, "The answer was lost.")

    async def create_customer(self, account_id: str, name: str, email: str) -> str:
        self._admit("customer")
        return self.customers.setdefault(account_id, f"cus_{len(self.customers)}")

    async def publish(self, invoice: Invoice, customer_id: str) -> PublishedInvoice:
        self._admit(f"publish {invoice.sequence_number}")
        self.states.setdefault(f"in_{invoice.invoice_id}", "open")
        self._answer()
        return PublishedInvoice(f"in_{invoice.invoice_id}", f"https://pay.example/{invoice.sequence_number}")

    async def mark_paid(self, invoice: Invoice, provider_id: str) -> None:
        self._admit(f"paid {invoice.sequence_number}")
        self.states[provider_id] = "paid"

    async def void(self, invoice: Invoice, provider_id: str) -> None:
        self._admit(f"void {invoice.sequence_number}")
        self.states[provider_id] = "void"

    async def credit(self, note: CreditNote, provider_id: str) -> None:
        self._admit(f"credit {note.sequence_number}")
        self.credits[note.credit_note_id] = note.total_micro
        self._answer()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def books(database: Database, clock: ManualClock) -> Books:
    return Books(database, clock, payments=True)


@pytest.fixture
def provider() -> FakeProvider:
    return FakeProvider()


@pytest.fixture
def payments(books: Books, provider: FakeProvider) -> PaymentDispatcher:
    return PaymentDispatcher(books.context, provider, Backoff(1.0, 60.0, lambda: 1.0))


async def drain(books: Books, payments: PaymentDispatcher, clock: ManualClock) -> None:
    """Lets time pass until nothing is waiting."""
    for _ in range(50):
        clock.advance(60)
        if not await books.context.store.transact(lambda t: t.payments.due(clock.now_us(), 1)):
            return
        await payments.run_once()
    raise AssertionError("the outbox does not drain")


async def test_an_invoice_is_published_and_can_be_paid_there(
    books: Books, payments: PaymentDispatcher, provider: FakeProvider, clock: ManualClock
) -> None:
    account_id = await books.open_account()
    await drain(books, payments, clock)
    (invoice,) = await books.invoices_of(account_id)
    assert invoice.payment_url == "https://pay.example/1"
    assert provider.states == {f"in_{invoice.invoice_id}": "open"}


async def test_an_outage_loses_nothing_and_keeps_the_order(
    books: Books, payments: PaymentDispatcher, provider: FakeProvider, clock: ManualClock
) -> None:
    provider.down = True
    account_id = await books.open_account()
    (fee,) = await books.invoices_of(account_id)
    await payments.run_once()
    await books.subscriptions.change_plan(books.wish(account_id), "professional", 0)
    _, upgrade = await books.invoices_of(account_id)
    await books.corrections.mark_paid(books.correction(account_id, fee.invoice_id), "wire", 0)
    line = CreditNoteLine(1, 5_000_000, "")
    note, _ = await books.corrections.credit(books.correction(account_id, upgrade.invoice_id), [line], "an outage")
    for _ in range(3):
        clock.advance(3600)
        await payments.run_once()
    provider.down = False
    provider.calls.clear()
    await drain(books, payments, clock)
    assert provider.states == {f"in_{fee.invoice_id}": "paid", f"in_{upgrade.invoice_id}": "open"}
    assert provider.credits == {note.credit_note_id: 5_000_000}
    assert provider.calls.index("publish 1") < provider.calls.index("paid 1")
    assert provider.calls.index("publish 2") < provider.calls.index("credit 1")


async def test_a_lost_answer_is_asked_for_again(
    books: Books, payments: PaymentDispatcher, provider: FakeProvider, clock: ManualClock
) -> None:
    provider.loses_answers = True
    account_id = await books.open_account()
    await drain(books, payments, clock)
    (invoice,) = await books.invoices_of(account_id)
    assert provider.calls.count("publish 1") == 2
    assert list(provider.states) == [f"in_{invoice.invoice_id}"]
    await books.corrections.void(books.correction(account_id, invoice.invoice_id), "a mistake")
    await drain(books, payments, clock)
    assert provider.states == {f"in_{invoice.invoice_id}": "void"}


async def test_what_was_issued_before_the_provider_came_is_left_alone(
    database: Database, clock: ManualClock, provider: FakeProvider
) -> None:
    without = Books(database, clock)
    account_id = await without.open_account()
    (invoice,) = await without.invoices_of(account_id)
    books = Books(database, clock, payments=True)
    payments = PaymentDispatcher(books.context, provider, Backoff(1.0, 60.0, lambda: 1.0))
    await books.corrections.mark_paid(books.correction(account_id, invoice.invoice_id), "wire", 0)
    await drain(books, payments, clock)
    assert provider.calls == []


@pytest.fixture(scope="module")
def stripe_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = STRIPE_MOCK.find()
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("stripe-mock is neither installed nor can be built: Go is missing")
        pytest.skip("stripe-mock is not installed, and there is no Go to build it with")
    with stripe_mock(program, tmp_path_factory.mktemp("stripe")) as address:
        yield address


@pytest.fixture
async def stripe_client(stripe_address: str) -> AsyncIterator[StripeClient]:
    client = StripeClient(Secret("sk_test_123"), stripe_address)
    yield client
    await client.close()


@pytest.mark.timeout(600)  # it may wait for the build
async def test_stripe_takes_every_call(books: Books, clock: ManualClock, stripe_client: StripeClient) -> None:
    account_id = await books.open_account()
    payments = PaymentDispatcher(books.context, stripe_client, Backoff(1.0, 60.0, lambda: 1.0))
    await drain(books, payments, clock)
    (fee,) = await books.invoices_of(account_id)
    provider_id = await books.context.store.transact(lambda t: t.payments.provider_id(fee.invoice_id))
    assert provider_id.startswith("in_")
    assert (await books.context.store.transact(lambda t: t.payments.provider_id(account_id))).startswith("cus_")
    await books.subscriptions.change_plan(books.wish(account_id), "professional", 0)
    _, upgrade = await books.invoices_of(account_id)
    line = CreditNoteLine(1, 5_000_000, "")
    await books.corrections.credit(books.correction(account_id, fee.invoice_id), [line], "an outage")
    await books.corrections.mark_paid(books.correction(account_id, fee.invoice_id), "wire", 0)
    await books.corrections.void(books.correction(account_id, upgrade.invoice_id), "a mistake")
    await drain(books, payments, clock)
    pending = await books.context.store.transact(lambda t: t.payments.due(2**62, 100))
    assert pending == []


async def test_a_stripe_that_is_not_there_is_told_without_the_key(tmp_path: Path) -> None:
    client = StripeClient(Secret("sk_test_secret"), "http://127.0.0.1:1")
    with pytest.raises(FlowStackError) as failed:
        await client.create_customer("acct_1", "Ada", "ada@example.org")
    assert failed.value.reason is Reason.PAYMENT_PROVIDER_UNAVAILABLE
    assert "sk_test" not in str(failed.value)
    assert "Ada" not in str(failed.value)
    await client.close()
