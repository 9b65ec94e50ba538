"""The refund by policy: what it would be, and asking for it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field

from gateway.auth import Caller, in_org
from gateway.backend import STRIPE_CALL_S, Services
from gateway.operations import SESSION, operation
from gateway.times import rfc3339
from tollway.billing.v1 import auth_pb2
from tollway.billing.v1 import refund_pb2 as pb

router = APIRouter(prefix="/v1/orgs/{slug}/billing/refund", tags=["billing"])
OrgOwner = Annotated[Caller, Depends(in_org(auth_pb2.ROLE_OWNER))]
_PROBLEMS = ("account_not_found", "session_required", "insufficient_role", "stripe_unavailable", "store_unavailable")
_PRIVATE = {"Cache-Control": "no-store"}


class Refund(BaseModel):
    id: str = Field(examples=["rfd_019ab0c4d5e67f8899aabbccddeeff00"])
    status: str = Field(
        description="pending: it goes on by itself. refunded. refused: the subscription has ended, and what was used "
        "until then was too much.",
        examples=["refunded"],
    )
    amount: int = Field(description="Whole minor units of the currency.", examples=[1500])
    currency: str = Field(examples=["usd"])
    invoice_id: str = Field(examples=["in_1TxYz"])
    stripe_refund_id: str | None = Field(description="null: not made yet.", examples=["re_1TxYz"])
    used: int | None = Field(description="Units used in all at the subscription's end; null: not counted yet.")
    created_at: str = Field(examples=["2026-04-01T00:00:00Z"])


class RefundOffer(BaseModel):
    eligible: bool
    reason: str | None = Field(description="null: a refund is due.", examples=["refund_window_over"])
    message: str = Field(examples=["The base fee will be refunded, and the subscription ends at once."])
    ends_subscription: bool = Field(description="Always true: a refund ends the subscription.")
    amount: int | None = Field(description="Whole minor units; null: nothing is due.")
    currency: str | None
    until: str | None = Field(description="When the time for a refund ends; null without a paid subscription.")
    used: int
    fewer_than: int
    refund: Refund | None = Field(description="The one that the account had.")


@router.get("", summary="See what a refund would be", **operation(*_PROBLEMS, credentials=SESSION))
async def preview_refund(caller: OrgOwner, backend: Services, response: Response) -> RefundOffer:
    """Whether a refund is due, how much, and that it ends the subscription. Changes nothing."""
    asked = pb.PreviewRefundRequest(account_id=caller.account_id)
    offer = await backend.billing.call(backend.refunds.PreviewRefund, asked, timeout_s=STRIPE_CALL_S)
    response.headers.update(_PRIVATE)
    due = not offer.reason
    return RefundOffer(
        eligible=due,
        reason=offer.reason.lower() or None,
        message=offer.message,
        ends_subscription=True,
        amount=offer.amount if due else None,
        currency=offer.currency if due else None,
        until=rfc3339(offer.window_end_time) if offer.HasField("window_end_time") else None,
        used=offer.used,
        fewer_than=offer.fewer_than,
        refund=_refund(offer.refund) if offer.HasField("refund") else None,
    )


@router.post(
    "",
    summary="End the subscription and refund its base fee",
    **operation(
        *_PROBLEMS,
        "refund_not_offered",
        "nothing_to_refund",
        "refund_window_over",
        "refund_usage_exceeded",
        credentials=SESSION,
    ),
)
async def create_refund(caller: OrgOwner, backend: Services, response: Response) -> Refund:
    """Ends the subscription at once, counts what was used, and gives the base fee back with its tax. An account has one
    refund: asking again goes on with it and shows how it stands."""
    asked = pb.CreateRefundRequest(account_id=caller.account_id, actor=caller.actor)
    answer = await backend.billing.call(backend.refunds.CreateRefund, asked, timeout_s=STRIPE_CALL_S)
    response.headers.update(_PRIVATE)
    return _refund(answer.refund)


def _refund(refund: pb.Refund) -> Refund:
    return Refund(
        id=refund.id,
        status=pb.RefundState.Name(refund.state).removeprefix("REFUND_STATE_").lower(),
        amount=refund.amount,
        currency=refund.currency,
        invoice_id=refund.invoice_id,
        stripe_refund_id=refund.stripe_refund_id or None,
        used=refund.used if refund.HasField("used") else None,
        created_at=rfc3339(refund.create_time),
    )
