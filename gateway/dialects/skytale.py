"""Skytale's billing: `/v1/billing`, `/v1/billing/checkout`, `/v1/billing/portal`, by API key.

The field names and answers are those of the "Billing & Plans" page of its documentation.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field

from gateway.auth import Biller, Caller
from gateway.backend import STRIPE_CALL_S, Services
from gateway.body import Body, Text, json_body
from gateway.headers import IdempotencyKey
from gateway.operations import API_KEY, operation
from gateway.times import rfc3339
from tollway.billing.v1 import billing_pb2 as pb

router = APIRouter(prefix="/v1/billing", tags=["billing"])
Url = Annotated[Text, Field(min_length=1, max_length=2048)]


class Status(BaseModel):
    plan: str = Field(examples=["pro"])
    status: str = Field(examples=["active"])
    current_period_end: str | None = Field(examples=["2026-04-01T00:00:00Z"])
    cancel_at_period_end: bool


class CheckoutBody(Body):
    tier: Text = Field(min_length=1, max_length=100, examples=["pro"])
    success_url: Url | None = Field(None, description="On an origin that the catalog allows.")
    cancel_url: Url | None = Field(None, description="On an origin that the catalog allows.")


class Checkout(BaseModel):
    checkout_url: str = Field(examples=["https://checkout.stripe.com/c/pay/cs_test_…"])


class PortalBody(Body):
    return_url: Url | None = Field(None, description="On an origin that the catalog allows.")


class Portal(BaseModel):
    portal_url: str = Field(examples=["https://billing.stripe.com/p/session/…"])


_PRIVATE = {"Cache-Control": "no-store"}


@router.get(
    "",
    summary="Read the billing status",
    **operation("api_key_required", "insufficient_scope", "account_not_found", credentials=(API_KEY,)),
)
async def read_billing(caller: Biller, backend: Services, response: Response) -> Status:
    """What the account is on now; sees a tier that changed a moment ago."""
    response.headers.update(_PRIVATE)
    return status_of(await billing_of(caller, backend))


async def billing_of(caller: Caller, backend: Services) -> pb.Billing:
    asked = pb.GetBillingRequest(account_id=caller.account_id)
    return (await backend.billing.call(backend.plans.GetBilling, asked)).billing


def status_of(billing: pb.Billing) -> Status:
    if billing.default_tier:
        # On free there is nothing that renews or ends, whatever an earlier subscription came to.
        return Status(plan=billing.tier, status="active", current_period_end=None, cancel_at_period_end=False)
    end = rfc3339(billing.current_period_end) if billing.HasField("current_period_end") else None
    return Status(
        plan=billing.tier,
        status=billing.status or "active",  # a contract has no subscription at Stripe
        current_period_end=end,
        cancel_at_period_end=billing.cancel_at_period_end,
    )


@router.post(
    "/checkout",
    summary="Open a checkout page",
    **operation(
        "api_key_required",
        "insufficient_scope",
        "invalid_argument",
        "unknown_tier",
        "contact_sales",
        "redirect_not_allowed",
        "already_subscribed",
        "stripe_unavailable",
        body=CheckoutBody,
        idempotent=True,
        credentials=(API_KEY,),
    ),
)
async def open_checkout(
    caller: Biller,
    request_id: IdempotencyKey,
    body: Annotated[CheckoutBody, Depends(json_body(CheckoutBody))],
    backend: Services,
    response: Response,
) -> Checkout:
    """Send the person to `checkout_url`. After payment the tier changes by itself."""
    answer = await backend.billing.call(
        backend.plans.CreateCheckout,
        pb.CreateCheckoutRequest(
            account_id=caller.account_id,
            tier=body.tier,
            success_url=body.success_url or "",
            cancel_url=body.cancel_url or "",
            request_id=request_id,
        ),
        timeout_s=STRIPE_CALL_S,
    )
    response.headers.update(_PRIVATE)
    return Checkout(checkout_url=answer.url)


@router.post(
    "/portal",
    summary="Open the billing portal",
    **operation(
        "api_key_required",
        "insufficient_scope",
        "redirect_not_allowed",
        "no_customer",
        "stripe_unavailable",
        body=PortalBody,
        body_required=False,
        credentials=(API_KEY,),
    ),
)
async def open_portal(
    caller: Biller,
    body: Annotated[PortalBody, Depends(json_body(PortalBody, optional=True))],
    backend: Services,
    response: Response,
) -> Portal:
    """Cards, invoices, cancelling. The address is short-lived: ask for a new one each time."""
    answer = await backend.billing.call(
        backend.plans.CreatePortalSession,
        pb.CreatePortalSessionRequest(account_id=caller.account_id, return_url=body.return_url or ""),
        timeout_s=STRIPE_CALL_S,
    )
    response.headers.update(_PRIVATE)
    return Portal(portal_url=answer.url)
