"""InvoiceService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from flowstack_protos.billing.v1 import invoice_service_pb2 as pb
from flowstack_protos.billing.v1.invoice_service_pb2_grpc import InvoiceServiceServicer

from services.billing.convert import invoices as convert
from services.billing.service.corrections import Correction, CorrectionService
from services.billing.service.invoices import InvoiceService
from services.billing.service.paging import PageRequest
from services.billing.servicer.caller import actor_of_call
from services.shared.auth import account_of_call
from services.shared.times import us_from_proto

Context = grpc.aio.ServicerContext


class InvoiceServicer(InvoiceServiceServicer):
    """Reading, previewing, paying and correcting invoices."""

    def __init__(self, invoices: InvoiceService, corrections: CorrectionService) -> None:
        self._invoices = invoices
        self._corrections = corrections

    async def ListInvoices(
        self, request: pb.ListInvoicesRequest, context: Context[Any, Any]
    ) -> pb.ListInvoicesResponse:
        """See the contract."""
        page = await self._invoices.list(
            account_of_call(request.account_id),
            convert.filter_from_proto(request),
            PageRequest(request.page_size, request.page_token),
        )
        invoices = [convert.view_to_proto(view) for view in page.items]
        return pb.ListInvoicesResponse(invoices=invoices, next_page_token=page.next_token)

    async def GetInvoice(self, request: pb.GetInvoiceRequest, context: Context[Any, Any]) -> pb.GetInvoiceResponse:
        """See the contract."""
        view = await self._invoices.get(account_of_call(request.account_id), request.invoice_id)
        return pb.GetInvoiceResponse(invoice=convert.view_to_proto(view))

    async def PreviewInvoice(
        self, request: pb.PreviewInvoiceRequest, context: Context[Any, Any]
    ) -> pb.PreviewInvoiceResponse:
        """See the contract."""
        account_id = account_of_call(request.account_id)
        return convert.preview_to_proto(await self._invoices.preview(account_id, request.plan_id, request.plan_version))

    async def DownloadInvoice(
        self, request: pb.DownloadInvoiceRequest, context: Context[Any, Any]
    ) -> AsyncIterator[pb.DownloadInvoiceResponse]:
        """See the contract."""
        account_id = account_of_call(request.account_id)
        document = await self._invoices.download(account_id, request.invoice_id, request.credit_note_id)
        for part in convert.document_to_proto(document):
            yield part

    async def MarkInvoicePaid(
        self, request: pb.MarkInvoicePaidRequest, context: Context[Any, Any]
    ) -> pb.MarkInvoicePaidResponse:
        """See the contract."""
        paid = await self._corrections.mark_paid(
            _correction(request, context), request.payment_reference, us_from_proto(request.pay_time)
        )
        return convert.paid_to_proto(paid)

    async def VoidInvoice(self, request: pb.VoidInvoiceRequest, context: Context[Any, Any]) -> pb.VoidInvoiceResponse:
        """See the contract."""
        return convert.voided_to_proto(await self._corrections.void(_correction(request, context), request.reason))

    async def CreateCreditNote(
        self, request: pb.CreateCreditNoteRequest, context: Context[Any, Any]
    ) -> pb.CreateCreditNoteResponse:
        """See the contract."""
        lines = convert.credit_lines_from_proto(request)
        note, credited = await self._corrections.credit(_correction(request, context), lines, request.reason)
        return convert.credited_to_proto(note, credited)


def _correction(
    request: pb.MarkInvoicePaidRequest | pb.VoidInvoiceRequest | pb.CreateCreditNoteRequest, context: Context[Any, Any]
) -> Correction:
    account_id = account_of_call(request.account_id)
    return Correction(account_id, request.invoice_id, actor_of_call(context), request.request_id)
