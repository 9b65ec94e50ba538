"""Proto ⇄ command for invoices: translation and nothing else."""

from __future__ import annotations

from typing import Any

import grpc

from services.billing import events
from services.billing.application import invoices
from services.billing.application.context import Context
from services.billing.domain.subscription import Invoice
from tollway.billing.v1 import invoice_pb2, invoice_pb2_grpc

Rpc = grpc.aio.ServicerContext[Any, Any]


class InvoiceService(invoice_pb2_grpc.InvoiceServiceServicer):
    def __init__(self, context: Context) -> None:
        self._context = context

    async def ListInvoices(  # noqa: N802 - the contract's name
        self, request: invoice_pb2.ListInvoicesRequest, context: Rpc
    ) -> invoice_pb2.ListInvoicesResponse:
        page = await invoices.list_invoices(request.account_id, request.page_size, request.page_token, self._context)
        listed = [_message(request.account_id, invoice) for invoice in page.rows]
        return invoice_pb2.ListInvoicesResponse(invoices=listed, next_page_token=page.next_token)


def _message(account_id: str, invoice: Invoice) -> invoice_pb2.AccountInvoice:
    return invoice_pb2.AccountInvoice(
        id=invoice.id,
        account_id=account_id,
        number=invoice.number,
        status=invoice.status,
        amount_due=invoice.amount_due,
        amount_paid=invoice.amount_paid,
        currency=invoice.currency,
        hosted_url=invoice.hosted_url,
        pdf_url=invoice.pdf_url,
        create_time=events.timestamp(invoice.create_time),
        paid_time=events.timestamp(invoice.paid_time),
        next_attempt_time=events.timestamp(invoice.next_attempt_time) if invoice.status == "open" else None,
        failed=invoice.failed,
    )
