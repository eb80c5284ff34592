"""Invoices: issued with what they charge, printed, paid, voided, credited; never edited."""

from __future__ import annotations

import hashlib
from typing import Any

import grpc
import pytest
from flowstack_protos.billing.v1 import invoice_pb2
from flowstack_protos.billing.v1 import invoice_service_pb2 as pb
from flowstack_protos.billing.v1 import subscription_service_pb2 as subscriptions
from google.type.money_pb2 import Money

from tests.contract.target import Customer, details_of, refusal

OPEN, PAID, VOID = invoice_pb2.INVOICE_STATE_OPEN, invoice_pb2.INVOICE_STATE_PAID, invoice_pb2.INVOICE_STATE_VOID


def usd(units: int, nanos: int = 0) -> Money:
    """Dollars."""
    return Money(currency_code="USD", units=units, nanos=nanos)


def invoices_of(customer: Customer, **fields: Any) -> list[invoice_pb2.Invoice]:
    """The customer's invoices, newest first."""
    return list(customer.call(customer.target.invoices.ListInvoices, pb.ListInvoicesRequest(**fields)).invoices)


def read(customer: Customer, invoice_id: str) -> invoice_pb2.Invoice:
    """One invoice."""
    return customer.call(customer.target.invoices.GetInvoice, pb.GetInvoiceRequest(invoice_id=invoice_id)).invoice


def upgrade(customer: Customer) -> subscriptions.ChangePlanResponse:
    """To starter."""
    request = subscriptions.ChangePlanRequest(plan_id="starter")
    return customer.call(customer.target.subscriptions.ChangePlan, request)


def pay(customer: Customer, invoice_id: str, reference: str = "wire 1", **fields: Any) -> invoice_pb2.Invoice:
    """The operator records a payment."""
    request = pb.MarkInvoicePaidRequest(
        account_id=customer.account_id, invoice_id=invoice_id, payment_reference=reference, **fields
    )
    return customer.target.operate(customer.target.invoices.MarkInvoicePaid, request).invoice


def void(customer: Customer, invoice_id: str, **fields: Any) -> invoice_pb2.Invoice:
    """The operator voids an invoice."""
    request = pb.VoidInvoiceRequest(account_id=customer.account_id, invoice_id=invoice_id, reason="a mistake", **fields)
    return customer.target.operate(customer.target.invoices.VoidInvoice, request).invoice


def credit(
    customer: Customer, invoice_id: str, amount: Money, *lines: int, request_id: str = "r"
) -> pb.CreateCreditNoteResponse:
    """The operator credits lines of an invoice."""
    wanted = [pb.CreditNoteLineInput(line_number=number, amount=amount) for number in lines or (1,)]
    request = pb.CreateCreditNoteRequest(
        account_id=customer.account_id, invoice_id=invoice_id, lines=wanted, reason="sorry", request_id=request_id
    )
    return customer.target.operate(customer.target.invoices.CreateCreditNote, request)


def download(customer: Customer, invoice_id: str, credit_note_id: str = "") -> tuple[pb.InvoiceDocument, bytes]:
    """A document and its bytes."""
    request = pb.DownloadInvoiceRequest(invoice_id=invoice_id, credit_note_id=credit_note_id)
    first, *rest = customer.call(customer.target.invoices.DownloadInvoice, request)
    assert all(0 < len(part.chunk) <= 64 * 1024 for part in rest)
    return first.document, b"".join(part.chunk for part in rest)


def test_a_period_begins_with_its_invoice(hobbyist: Customer) -> None:
    standing = hobbyist.call(hobbyist.target.subscriptions.GetSubscription, subscriptions.GetSubscriptionRequest())
    subscription = standing.subscription
    (invoice,) = invoices_of(hobbyist)

    assert (invoice.kind, invoice.state, invoice.sequence_number) == (invoice_pb2.INVOICE_KIND_PERIOD_FEE, OPEN, 1)
    assert (invoice.subscription_id, invoice.account_id) == (subscription.subscription_id, hobbyist.account_id)
    assert (invoice.customer_name, invoice.customer_email) == ("C", "c@example.com")
    assert (invoice.period_start_time, invoice.period_end_time) == (
        subscription.period_start_time,
        subscription.period_end_time,
    )
    (line,) = invoice.lines
    assert (line.line_number, line.kind, line.quantity) == (1, invoice_pb2.INVOICE_LINE_KIND_FEE, 1)
    assert (line.plan_id, line.plan_version) == ("hobbyist", 1)
    assert line.description.startswith("Hobbyist, ")
    assert line.amount == line.unit_price == invoice.total == invoice.amount_due == usd(15)
    assert invoice.amount_paid == invoice.amount_credited == usd(0)
    assert invoice.due_time.seconds - invoice.issue_time.seconds == 14 * 24 * 3600
    assert subscription.payment_grace_end_time.seconds - invoice.due_time.seconds == 14 * 24 * 3600
    assert [(one.kind, one.invoice_id) for one in standing.changes] == [
        (subscriptions.CHANGE_KIND_START, invoice.invoice_id)
    ]
    assert read(hobbyist, invoice.invoice_id) == invoice


def test_what_costs_nothing_is_not_invoiced(free: Customer) -> None:
    assert invoices_of(free) == []


def test_an_upgrade_is_invoiced_with_its_difference(hobbyist: Customer) -> None:
    answered = upgrade(hobbyist)
    second, first = invoices_of(hobbyist)

    assert answered.invoice == second
    assert answered.change.invoice_id == second.invoice_id
    assert (second.kind, second.sequence_number) == (invoice_pb2.INVOICE_KIND_UPGRADE, 2)
    assert second.lines[0].kind == invoice_pb2.INVOICE_LINE_KIND_UPGRADE_DIFFERENCE
    assert second.lines[0].change_id == answered.change.change_id
    assert second.lines[0].description.startswith("Upgrade to Starter, ")
    assert [sum(line.amount.units for line in one.lines) for one in (second, first)] == [35, 15]
    assert [one.total.units for one in (second, first)] == [35, 15]
    numbers = [one.number.rpartition("-") for one in (first, second)]
    assert numbers[0][0] == numbers[1][0]
    assert [number[2] for number in numbers] == ["00001", "00002"]


def test_a_previewed_upgrade_shows_its_invoice(hobbyist: Customer) -> None:
    request = subscriptions.ChangePlanRequest(plan_id="starter", validate_only=True)
    invoice = hobbyist.call(hobbyist.target.subscriptions.ChangePlan, request).invoice

    assert (invoice.state, invoice.total, invoice.invoice_id) == (invoice_pb2.INVOICE_STATE_DRAFT, usd(35), "")
    assert not invoice.HasField("due_time")
    assert len(invoices_of(hobbyist)) == 1


def test_the_next_invoice_is_previewed(hobbyist: Customer) -> None:
    preview = hobbyist.target.invoices.PreviewInvoice
    period_end = invoices_of(hobbyist)[0].period_end_time
    usual = hobbyist.call(preview, pb.PreviewInvoiceRequest())
    other = hobbyist.call(preview, pb.PreviewInvoiceRequest(plan_id="professional"))
    _, unknown = refusal(lambda: hobbyist.call(preview, pb.PreviewInvoiceRequest(plan_id="none")))
    _, by_contract = refusal(lambda: hobbyist.call(preview, pb.PreviewInvoiceRequest(plan_id="enterprise")))
    down = subscriptions.ChangePlanRequest(plan_id="free")
    hobbyist.call(hobbyist.target.subscriptions.ChangePlan, down)
    lower = hobbyist.call(preview, pb.PreviewInvoiceRequest())
    hobbyist.call(hobbyist.target.subscriptions.CancelSubscription, subscriptions.CancelSubscriptionRequest())
    code, ending = refusal(lambda: hobbyist.call(preview, pb.PreviewInvoiceRequest()))

    assert [one.invoice.total.units for one in (usual, other, lower)] == [15, 200, 0]
    assert (usual.invoice.state, usual.issue_time) == (invoice_pb2.INVOICE_STATE_DRAFT, period_end)
    assert usual.invoice.period_start_time == period_end
    assert (unknown.reason, by_contract.reason) == ("PLAN_NOT_FOUND", "CONTRACT_REQUIRED")
    assert (code, ending.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SUBSCRIPTION_ENDED")


def test_an_invoice_is_printed(hobbyist: Customer) -> None:
    (invoice,) = invoices_of(hobbyist)
    document, content = download(hobbyist, invoice.invoice_id)
    again = download(hobbyist, invoice.invoice_id)

    assert content.startswith(b"%PDF")
    assert content.rstrip().endswith(b"%%EOF")
    assert (document.file_name, document.content_type) == (f"{invoice.number}.pdf", "application/pdf")
    assert (document.size_bytes, document.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert again == (document, content)


def test_a_payment_is_recorded_once(hobbyist: Customer) -> None:
    (invoice,) = invoices_of(hobbyist)
    paid = pay(hobbyist, invoice.invoice_id)
    again = pay(hobbyist, invoice.invoice_id)
    code, info = refusal(lambda: pay(hobbyist, invoice.invoice_id, "wire 2"))
    voiding, _ = refusal(lambda: void(hobbyist, invoice.invoice_id))

    assert (paid.state, paid.amount_paid, paid.amount_due) == (PAID, usd(15), usd(0))
    assert (paid.payment_reference, paid.HasField("pay_time")) == ("wire 1", True)
    assert again == paid
    assert (code, info.reason, dict(info.metadata)) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "INVOICE_NOT_OPEN",
        {"state": "PAID"},
    )
    assert voiding is grpc.StatusCode.FAILED_PRECONDITION


def test_void_twice_is_refused(hobbyist: Customer) -> None:
    (invoice,) = invoices_of(hobbyist)
    voided = void(hobbyist, invoice.invoice_id)
    code, info = refusal(lambda: void(hobbyist, invoice.invoice_id))
    paying, _ = refusal(lambda: pay(hobbyist, invoice.invoice_id))

    assert (voided.state, voided.void_reason, voided.amount_due) == (VOID, "a mistake", usd(0))
    assert voided.total == usd(15)
    assert (code, info.reason, dict(info.metadata)) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "INVOICE_NOT_OPEN",
        {"state": "VOID"},
    )
    assert paying is grpc.StatusCode.FAILED_PRECONDITION
    assert hobbyist.usage().current_charges == usd(0)
    assert [one.state for one in invoices_of(hobbyist, states=[VOID])] == [VOID]
    assert invoices_of(hobbyist, states=[OPEN, PAID]) == []


def test_a_repeated_voiding_is_answered_as_before(hobbyist: Customer) -> None:
    upgrade(hobbyist)
    second, first = invoices_of(hobbyist)
    voided = void(hobbyist, first.invoice_id, request_id="v")
    again = void(hobbyist, first.invoice_id, request_id="v")
    code, info = refusal(lambda: void(hobbyist, second.invoice_id, request_id="v"))

    assert again == voided
    assert (code, info.reason) == (grpc.StatusCode.ALREADY_EXISTS, "DUPLICATE_REQUEST")


def test_credits_add_up(hobbyist: Customer) -> None:
    (invoice,) = invoices_of(hobbyist)
    first = credit(hobbyist, invoice.invoice_id, usd(5, 250_000_000))
    repeat = credit(hobbyist, invoice.invoice_id, usd(5, 250_000_000))
    voiding = refusal(lambda: void(hobbyist, invoice.invoice_id))[1]
    too_much, info = refusal(lambda: credit(hobbyist, invoice.invoice_id, usd(10), request_id="s"))
    charged = hobbyist.usage().current_charges
    paid = pay(hobbyist, invoice.invoice_id)
    refund = credit(hobbyist, invoice.invoice_id, usd(9, 750_000_000), request_id="t")

    note = first.credit_note
    assert (note.total, note.refund_amount, note.sequence_number) == (usd(5, 250_000_000), usd(0), 1)
    assert (note.reason, note.lines[0].description) == ("sorry", invoice.lines[0].description)
    assert note.number == invoice.number.replace("INV-", "CN-")
    assert (first.invoice.state, first.invoice.amount_due) == (OPEN, usd(9, 750_000_000))
    assert repeat.credit_note == note
    assert voiding.reason == "INVOICE_NOT_OPEN"
    assert (too_much, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert charged == usd(9, 750_000_000)
    assert paid.amount_paid == usd(9, 750_000_000)
    assert refund.credit_note.refund_amount == usd(9, 750_000_000)
    assert (refund.invoice.amount_paid, refund.invoice.amount_credited) == (usd(0), usd(15))
    assert [one.sequence_number for one in read(hobbyist, invoice.invoice_id).credit_notes] == [1, 2]
    document, content = download(hobbyist, invoice.invoice_id, note.credit_note_id)
    assert (document.file_name, content[:4]) == (f"{note.number}.pdf", b"%PDF")


def test_a_credit_of_all_that_is_due_pays(hobbyist: Customer) -> None:
    (invoice,) = invoices_of(hobbyist)
    credited = credit(hobbyist, invoice.invoice_id, usd(15)).invoice

    assert (credited.state, credited.amount_due, credited.amount_paid) == (PAID, usd(0), usd(0))
    assert credited.HasField("pay_time")


@pytest.mark.parametrize(
    ("amount", "lines", "field"),
    [
        (usd(-1), (1,), "lines[0].amount"),
        (usd(0), (1,), "lines[0].amount"),
        (usd(1, 1), (1,), "lines[0].amount"),
        (Money(currency_code="EUR", units=1), (1,), "lines[0].amount"),
        (usd(16), (1,), "lines[0].amount"),
        (usd(1), (2,), "lines[0].line_number"),
        (usd(1), (0,), "lines[0].line_number"),
        (usd(1), (1, 1), ""),
    ],
)
def test_a_bad_credit_is_refused(hobbyist: Customer, amount: Money, lines: tuple[int, ...], field: str) -> None:
    (invoice,) = invoices_of(hobbyist)
    with pytest.raises(grpc.RpcError) as caught:
        credit(hobbyist, invoice.invoice_id, amount, *lines)

    info, bad = details_of(caught.value)
    assert info.reason == "INVALID_REQUEST"
    assert field in [violation.field for violation in bad.field_violations]
    assert invoices_of(hobbyist)[0].amount_credited == usd(0)


def test_what_is_not_there_is_not_found(hobbyist: Customer) -> None:
    other = hobbyist.target.open_account("hobbyist")
    (invoice,) = invoices_of(other)
    reasons = [
        refusal(lambda: read(hobbyist, invoice.invoice_id))[1].reason,
        refusal(lambda: void(hobbyist, invoice.invoice_id))[1].reason,
        refusal(lambda: download(hobbyist, "inv_none"))[1].reason,
        refusal(lambda: download(other, invoice.invoice_id, "cn_none"))[1].reason,
    ]

    assert reasons == ["INVOICE_NOT_FOUND", "INVOICE_NOT_FOUND", "INVOICE_NOT_FOUND", "CREDIT_NOTE_NOT_FOUND"]


def test_customers_correct_nothing(hobbyist: Customer) -> None:
    (invoice,) = invoices_of(hobbyist)
    request = pb.VoidInvoiceRequest(account_id=hobbyist.account_id, invoice_id=invoice.invoice_id, reason="x")
    code, info = refusal(lambda: hobbyist.call(hobbyist.target.invoices.VoidInvoice, request))

    assert (code, info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ADMIN_REQUIRED")
