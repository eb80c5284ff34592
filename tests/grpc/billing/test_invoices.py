"""InvoiceService on both stores: reading, previewing, printing, paying, voiding, crediting."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import pytest
from flowstack_protos.billing.v1 import invoice_pb2
from flowstack_protos.billing.v1 import invoice_service_pb2 as pb
from flowstack_protos.billing.v1 import subscription_service_pb2 as subscription_pb
from flowstack_protos.billing.v1 import usage_service_pb2 as usage_pb
from pypdf import PdfReader
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from services.billing.config import BillingSettings
from tests.support.billing import ADMIN, BillingUnderTest, Customer, billing, failure_of, reason_of
from tests.support.clock import DAY_US, ManualClock, us
from tests.support.fake_quota_events import MANAGED, FakeQuotaEvents
from tests.support.plans import Desk, amount_of, dollars, stamp


@pytest.fixture
def desk(service: BillingUnderTest, customer: Customer) -> Desk:
    return Desk(service, customer)


async def pdf_of(desk: Desk, invoice_id: str, credit_note_id: str = "") -> tuple[pb.InvoiceDocument, bytes]:
    request = pb.DownloadInvoiceRequest(invoice_id=invoice_id, credit_note_id=credit_note_id)
    stream = desk.service.invoices.DownloadInvoice(request, metadata=desk.customer.metadata)
    first, *parts = [part async for part in stream]
    assert all(0 < len(part.chunk) <= 64 * 1024 for part in parts)
    return first.document, b"".join(part.chunk for part in parts)


def column_heights(content: bytes, days: int) -> list[float]:
    """Of a statement's chart, whose rectangles are the last ones on its page; in points, to a tenth."""
    words = PdfReader(io.BytesIO(content)).pages[0].get_contents().get_data().split()  # type: ignore[union-attr]
    return [round(float(words[place - 1]), 1) for place, word in enumerate(words) if word == b"re"][-days:]


async def test_the_first_fee_is_invoiced_with_the_account(desk: Desk, clock: ManualClock) -> None:
    (invoice,) = await desk.invoices()
    assert invoice.state == invoice_pb2.INVOICE_STATE_OPEN
    assert invoice.kind == invoice_pb2.INVOICE_KIND_PERIOD_FEE
    assert invoice.number.startswith("INV-")
    assert invoice.number.endswith("-00001")
    assert (invoice.customer_name, invoice.customer_email) == ("Ada", "ada@example.org")
    assert invoice.due_time.ToMicroseconds() == clock.now_us() + 14 * DAY_US
    (line,) = invoice.lines
    assert line.description == "Starter, 10 March to 10 April 2026"
    assert amount_of(line.amount) == line.quantity * amount_of(line.unit_price) == amount_of(invoice.amount_due) == 50
    request = pb.GetInvoiceRequest(invoice_id=invoice.invoice_id)
    got = await desk.service.invoices.GetInvoice(request, metadata=desk.customer.metadata)
    assert got.invoice == invoice


async def test_nothing_to_pay_makes_no_invoice(service: BillingUnderTest) -> None:
    assert await Desk(service, await service.new_customer("free")).invoices() == []


async def test_another_accounts_invoice_is_not_found(service: BillingUnderTest, desk: Desk) -> None:
    (invoice,) = await desk.invoices()
    other = await service.new_customer("starter")
    request = pb.GetInvoiceRequest(invoice_id=invoice.invoice_id)
    assert await reason_of(service.invoices.GetInvoice(request, metadata=other.metadata)) == "INVOICE_NOT_FOUND"
    download = pb.DownloadInvoiceRequest(invoice_id=invoice.invoice_id)
    stream = service.invoices.DownloadInvoice(download, metadata=other.metadata)
    assert await reason_of(stream) == "INVOICE_NOT_FOUND"


async def test_invoices_have_pages_and_filters(desk: Desk, clock: ManualClock) -> None:
    for _ in range(3):
        clock.advance_us(31 * DAY_US)
        await desk.view()
    found, token = [], ""
    while True:
        request = pb.ListInvoicesRequest(page_size=3, page_token=token)
        page = await desk.service.invoices.ListInvoices(request, metadata=desk.customer.metadata)
        found.append([invoice.sequence_number for invoice in page.invoices])
        token = page.next_page_token
        if not token:
            break
        last = token
    assert found == [[4, 3, 2], [1]]
    foreign = pb.ListInvoicesRequest(page_token=last, states=[invoice_pb2.INVOICE_STATE_OPEN])
    _, error = await failure_of(desk.service.invoices.ListInvoices(foreign, metadata=desk.customer.metadata))
    assert [violation.field for violation in error.violations] == ["page_token"]
    assert len(await desk.invoices(states=[invoice_pb2.INVOICE_STATE_PAID])) == 0
    assert len(await desk.invoices(start_time=stamp(us(2026, 4, 1)), end_time=stamp(us(2026, 5, 1)))) == 1


async def test_a_payment_is_recorded_once(desk: Desk, clock: ManualClock) -> None:
    (invoice,) = await desk.invoices()
    paid = await desk.pay(invoice.invoice_id)
    assert paid.invoice.state == invoice_pb2.INVOICE_STATE_PAID
    assert (amount_of(paid.invoice.amount_paid), amount_of(paid.invoice.amount_due)) == (50, 0)
    assert paid.entitlement_applied
    clock.advance(60)
    assert (await desk.pay(invoice.invoice_id)).invoice == paid.invoice
    assert await reason_of(desk.pay(invoice.invoice_id, "wire 2")) == "INVOICE_NOT_OPEN"
    assert await reason_of(desk.void(invoice.invoice_id)) == "INVOICE_NOT_OPEN"


async def test_a_payment_in_the_future_is_refused(desk: Desk, clock: ManualClock) -> None:
    (invoice,) = await desk.invoices()
    _, error = await failure_of(desk.pay(invoice.invoice_id, pay_time=stamp(clock.now_us() + 1_000_000)))
    assert [violation.field for violation in error.violations] == ["pay_time"]


async def test_a_void_invoice_stays_void_and_charges_nothing(desk: Desk) -> None:
    (invoice,) = await desk.invoices()
    voided = await desk.void(invoice.invoice_id, request_id="v1")
    assert voided.invoice.state == invoice_pb2.INVOICE_STATE_VOID
    assert amount_of(voided.invoice.amount_due) == 0
    assert (await desk.void(invoice.invoice_id, request_id="v1")).invoice == voided.invoice
    assert await reason_of(desk.void(invoice.invoice_id)) == "INVOICE_NOT_OPEN"
    assert await reason_of(desk.pay(invoice.invoice_id)) == "INVOICE_NOT_OPEN"
    assert await reason_of(desk.credit(invoice.invoice_id, 1, "c1")) == "INVOICE_NOT_OPEN"
    usage = await desk.service.usage.GetUsage(usage_pb.GetUsageRequest(), metadata=desk.customer.metadata)
    assert amount_of(usage.usage.current_charges) == 0
    # Its number is not used again.
    assert (await desk.change("professional")).invoice.sequence_number == 2


async def test_credits_add_up_to_the_line_and_no_further(desk: Desk) -> None:
    (invoice,) = await desk.invoices()
    first = await desk.credit(invoice.invoice_id, 20.5, "c1")
    assert first.credit_note.number.startswith("CN-")
    assert (amount_of(first.invoice.amount_credited), amount_of(first.invoice.amount_due)) == (20.5, 29.5)
    assert amount_of(first.credit_note.refund_amount) == 0
    assert (await desk.credit(invoice.invoice_id, 20.5, "c1")).credit_note == first.credit_note
    _, error = await failure_of(desk.credit(invoice.invoice_id, 29.500001, "c2"))
    assert [violation.field for violation in error.violations] == ["lines[0].amount"]
    _, error = await failure_of(desk.credit(invoice.invoice_id, 1, "c2", line=2))
    assert [violation.field for violation in error.violations] == ["lines[0].line_number"]
    assert await reason_of(desk.void(invoice.invoice_id)) == "INVOICE_NOT_OPEN"
    last = await desk.credit(invoice.invoice_id, 29.5, "c3")
    assert last.invoice.state == invoice_pb2.INVOICE_STATE_PAID
    assert [note.sequence_number for note in last.invoice.credit_notes] == [1, 2]


async def test_a_credit_of_what_was_paid_is_a_refund(desk: Desk) -> None:
    (invoice,) = await desk.invoices()
    await desk.pay(invoice.invoice_id)
    credited = await desk.credit(invoice.invoice_id, 10, "c1")
    assert amount_of(credited.credit_note.refund_amount) == 10
    after = credited.invoice
    assert (amount_of(after.amount_credited), amount_of(after.amount_paid), amount_of(after.amount_due)) == (10, 40, 0)


async def previewed(desk: Desk, **fields: Any) -> pb.PreviewInvoiceResponse:
    request = pb.PreviewInvoiceRequest(**fields)
    answer: pb.PreviewInvoiceResponse = await desk.service.invoices.PreviewInvoice(
        request, metadata=desk.customer.metadata
    )
    return answer


async def test_the_preview_of_the_next_invoice(desk: Desk) -> None:
    await desk.change("hobbyist")
    period_end = (await desk.view()).subscription.period_end_time
    answer = await previewed(desk)
    assert (amount_of(answer.invoice.total), answer.issue_time) == (15, period_end)
    assert answer.invoice.state == invoice_pb2.INVOICE_STATE_DRAFT
    assert (answer.invoice.number, answer.invoice.sequence_number) == ("", 0)
    assert amount_of((await previewed(desk, plan_id="professional")).invoice.total) == 200
    assert await reason_of(previewed(desk, plan_id="gold")) == "PLAN_NOT_FOUND"
    assert await reason_of(previewed(desk, plan_id="enterprise")) == "CONTRACT_REQUIRED"
    await desk.cancel()
    assert await reason_of(previewed(desk)) == "SUBSCRIPTION_ENDED"
    assert len(await desk.invoices()) == 1


async def test_the_preview_of_a_contract_to_come_is_its_first_invoice(
    service: BillingUnderTest, clock: ManualClock
) -> None:
    desk = Desk(service, await service.new_customer("free"))
    start_us = clock.now_us() + 3 * DAY_US
    contract = subscription_pb.Contract(plan_id="starter", price=dollars(40), effective_time=stamp(start_us))
    agreed = await desk.contract(contract)
    answer = await previewed(desk)
    assumed = await previewed(desk, plan_id="professional")
    assert (amount_of(answer.invoice.total), answer.issue_time) == (40, stamp(start_us))
    assert (answer.invoice.period_start_time, answer.invoice.subscription_id) == (stamp(start_us), "")
    assert answer.invoice.lines[0].change_id == agreed.change.change_id
    assert (amount_of(assumed.invoice.total), assumed.issue_time) == (200, stamp(start_us))

    clock.advance_us(3 * DAY_US)
    await desk.view()
    (issued,) = await desk.invoices()
    assert list(issued.lines) == list(answer.invoice.lines)
    period = (issued.period_start_time, issued.period_end_time)
    assert period == (answer.invoice.period_start_time, answer.invoice.period_end_time)


async def test_a_contract_after_the_free_period_is_not_previewed_yet(
    service: BillingUnderTest, clock: ManualClock
) -> None:
    desk = Desk(service, await service.new_customer("free"))
    period_end = (await desk.view()).subscription.period_end_time
    start = stamp(clock.now_us() + 90 * DAY_US)
    await desk.contract(subscription_pb.Contract(plan_id="starter", effective_time=start))
    answer = await previewed(desk)
    assert (amount_of(answer.invoice.total), answer.issue_time) == (0, period_end)
    assert answer.invoice.subscription_id == (await desk.view()).subscription.subscription_id


async def test_a_contract_after_the_end_is_previewed(desk: Desk, clock: ManualClock) -> None:
    await desk.cancel()
    clock.advance_us(40 * DAY_US)
    await desk.pay_all()
    assert await reason_of(previewed(desk)) == "SUBSCRIPTION_ENDED"
    start = stamp(clock.now_us() + 50 * DAY_US)
    await desk.contract(subscription_pb.Contract(plan_id="starter", price=dollars(40), effective_time=start))
    answer = await previewed(desk)
    assert (amount_of(answer.invoice.total), answer.issue_time) == (40, start)
    assert answer.invoice.period_start_time == start


async def test_a_download_is_the_same_bytes_and_says_what_it_is(desk: Desk) -> None:
    (invoice,) = await desk.invoices()
    document, content = await pdf_of(desk, invoice.invoice_id)
    assert document.file_name == f"{invoice.number}.pdf"
    assert (document.content_type, document.size_bytes) == ("application/pdf", len(content))
    assert document.sha256 == hashlib.sha256(content).hexdigest()
    assert await pdf_of(desk, invoice.invoice_id) == (document, content)
    printed = PdfReader(io.BytesIO(content)).pages[0].extract_text()
    assert invoice.number in printed
    assert "$50.00" in printed
    note = (await desk.credit(invoice.invoice_id, 5, "c1")).credit_note
    changed, _ = await pdf_of(desk, invoice.invoice_id)
    assert changed.sha256 != document.sha256
    credited, _ = await pdf_of(desk, invoice.invoice_id, note.credit_note_id)
    assert credited.file_name == f"{note.number}.pdf"
    missing = pb.DownloadInvoiceRequest(invoice_id=invoice.invoice_id, credit_note_id="cn_1")
    stream = desk.service.invoices.DownloadInvoice(missing, metadata=desk.customer.metadata)
    assert await reason_of(stream) == "CREDIT_NOTE_NOT_FOUND"


async def test_a_period_is_stated_once_every_session_of_it_is_resolved(
    desk: Desk, quota: FakeQuotaEvents, clock: ManualClock
) -> None:
    for number in range(3):
        await quota.resolve(desk.account_id, f"ses_{number}", mode=MANAGED if number else 2)
    await quota.drained()
    last_us = us(2026, 4, 10, 12) - 1
    clock.advance_us(last_us + 1 - clock.now_us())
    await desk.view()
    statement = [invoice_pb2.INVOICE_KIND_USAGE_STATEMENT]
    assert await desk.invoices(kinds=statement) == []
    # The period's last session resolves in the next one, and only then does the watermark pass.
    clock.advance(100)
    await quota.resolve(desk.account_id, "ses_late", reserve_us=last_us)
    await quota.drained()
    clock.advance(60)
    while not (found := await desk.invoices(kinds=statement)):
        await desk.pay((await desk.invoices())[0].invoice_id)
    (invoice,) = found
    assert invoice.state == invoice_pb2.INVOICE_STATE_PAID
    assert amount_of(invoice.total) == 0
    assert {line.kind: line.quantity for line in invoice.lines} == {
        invoice_pb2.INVOICE_LINE_KIND_MANAGED_SESSIONS: 2,
        invoice_pb2.INVOICE_LINE_KIND_BYOK_SESSIONS: 2,
    }
    assert invoice.period_end_time.ToMicroseconds() == last_us + 1


async def test_a_statement_shows_its_days_and_stays_as_it_was_printed(
    desk: Desk, quota: FakeQuotaEvents, clock: ManualClock
) -> None:
    (fee,) = await desk.invoices()
    start_us = clock.now_us()
    clock.advance(13 * 86_400)
    for session_id, day in {"ses_first": 0, "ses_same_day": 0, "ses_later": 12}.items():
        await quota.resolve(desk.account_id, session_id, reserve_us=start_us + day * DAY_US)
    await quota.drained()
    statement = [invoice_pb2.INVOICE_KIND_USAGE_STATEMENT]
    clock.advance(18 * 86_400 + 60)
    await quota.resolve(desk.account_id, "ses_next_period")
    await quota.drained()
    while not (found := await desk.invoices(kinds=statement)):
        await desk.pay(fee.invoice_id)
    printed = await pdf_of(desk, found[0].invoice_id)
    words = PdfReader(io.BytesIO(printed[1])).pages[0].extract_text()
    for piece in ("Sessions by day", "3 of 1,000 sessions used", "limit 1,000", "10 Mar", "14 Mar", "7 Apr"):
        assert piece in words, piece
    heights = column_heights(printed[1], days=32)
    assert {day: height / heights[12] for day, height in enumerate(heights) if height} == {0: 2.0, 12: 1.0}

    await desk.change("professional")
    await quota.resolve(desk.account_id, "ses_stray", reserve_us=start_us + 20 * DAY_US)
    await quota.drained()
    assert await pdf_of(desk, found[0].invoice_id) == printed
    _, content = await pdf_of(desk, fee.invoice_id)
    assert "Sessions by day" not in PdfReader(io.BytesIO(content)).pages[0].extract_text()


async def test_what_is_issued_or_booked_cannot_be_changed_in_the_database(
    settings: BillingSettings, clock: ManualClock, quota: FakeQuotaEvents
) -> None:
    async with billing(settings, clock) as service:
        desk = Desk(service, await service.new_customer("starter"))
        (invoice,) = await desk.invoices()
        await desk.credit(invoice.invoice_id, 5, "c1")
        await quota.resolve(desk.account_id, "ses_1")
        await quota.drained()
    address = settings.database_url().replace("postgresql://", "postgresql+psycopg://")
    engine = create_engine(address)
    for statement in (
        "UPDATE invoices SET total_micro = 1",
        "UPDATE invoices SET lines = '[]'",
        "UPDATE invoices SET usage = ''",
        "UPDATE invoices SET customer_name = 'Eve'",
        "DELETE FROM invoices",
        "UPDATE credit_notes SET total_micro = 1",
        "DELETE FROM credit_notes",
        "UPDATE audit_events SET actor_id = ''",
        "DELETE FROM audit_events",
        "UPDATE ledger SET input_tokens = 1",
        "UPDATE ledger SET labels = '{}'",
        "DELETE FROM ledger",
    ):
        with pytest.raises(DBAPIError, match=r"immutable|kept"), engine.begin() as connection:
            connection.execute(text(statement))
    engine.dispose()


@pytest.mark.parametrize("method", ["MarkInvoicePaid", "VoidInvoice"])
async def test_an_unknown_invoice(desk: Desk, method: str) -> None:
    call = desk.pay("inv_nothing") if method == "MarkInvoicePaid" else desk.void("inv_nothing")
    assert await reason_of(call) == "INVOICE_NOT_FOUND"
    assert ADMIN
