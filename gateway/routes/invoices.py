"""An account's invoices."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from gateway.auth import OrgBiller
from gateway.backend import Services
from gateway.operations import SESSION, operation
from gateway.paging import PageQuery, paged
from gateway.times import rfc3339
from tollway.billing.v1 import invoice_pb2 as pb

router = APIRouter(prefix="/v1/orgs/{slug}/invoices", tags=["billing"])
_PROBLEMS = ("account_not_found", "session_required", "insufficient_role", "invalid_argument")


class Invoice(BaseModel):
    id: str = Field(examples=["in_1TxYz"])
    number: str | None = Field(examples=["ABCD1234-0001"])
    status: str = Field(description="open, paid, uncollectible or void", examples=["paid"])
    amount_due: int = Field(description="Whole minor units of the currency.", examples=[1500])
    amount_paid: int = Field(examples=[1500])
    currency: str = Field(examples=["usd"])
    hosted_invoice_url: str | None = Field(description="Stripe's page on which it can be seen and paid.")
    invoice_pdf: str | None
    created_at: str = Field(examples=["2026-04-01T00:00:00Z"])
    paid_at: str | None = Field(description="null: not paid.")
    next_payment_attempt: str | None = Field(description="When it is charged again; null: it is not.")


class Invoices(BaseModel):
    invoices: list[Invoice]
    next_page_token: str | None = Field(description="null: this is the last page.")


@router.get("", summary="List the invoices", **paged(operation(*_PROBLEMS, credentials=SESSION)))
async def list_invoices(caller: OrgBiller, page: PageQuery, backend: Services, response: Response) -> Invoices:
    """Newest first, as last heard from Stripe; drafts are left out."""
    asked = pb.ListInvoicesRequest(account_id=caller.account_id, page_size=page.size, page_token=page.token)
    answer = await backend.billing.call(backend.invoices.ListInvoices, asked)
    response.headers["Cache-Control"] = "no-store"
    return Invoices(
        invoices=[_invoice(each) for each in answer.invoices], next_page_token=answer.next_page_token or None
    )


def _invoice(invoice: pb.AccountInvoice) -> Invoice:
    return Invoice(
        id=invoice.id,
        number=invoice.number or None,
        status=invoice.status,
        amount_due=invoice.amount_due,
        amount_paid=invoice.amount_paid,
        currency=invoice.currency,
        hosted_invoice_url=invoice.hosted_url or None,
        invoice_pdf=invoice.pdf_url or None,
        created_at=rfc3339(invoice.create_time),
        paid_at=rfc3339(invoice.paid_time) if invoice.HasField("paid_time") else None,
        next_payment_attempt=rfc3339(invoice.next_attempt_time) if invoice.HasField("next_attempt_time") else None,
    )
