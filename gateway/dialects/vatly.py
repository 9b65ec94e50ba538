"""Vatly's billing: `/admin/billing/checkout`, `…/portal`, `…/subscription`, by token of the identity provider.

The field names and answers are those of the "Billing" page of its documentation: what is asked for lies in `data`, the
request's id in `meta`. Refusals are problem documents that have the same `meta`.
"""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from gateway import facts
from gateway.auth import OutsideBiller
from gateway.backend import STRIPE_CALL_S, Services
from gateway.body import Body, Text, json_body
from gateway.headers import IdempotencyKey
from gateway.operations import OUTSIDE_TOKEN, operation
from tollway.billing.v1 import billing_pb2 as pb

router = APIRouter(prefix="/admin/billing", tags=["billing"])
Url = Annotated[Text, Field(min_length=1, max_length=2048)]
T = TypeVar("T")
_PRIVATE = {"Cache-Control": "no-store"}
_TOKEN = (OUTSIDE_TOKEN,)
_REFUSALS = ("token_required", "insufficient_role", "account_not_found")


class Meta(BaseModel):
    request_id: str = Field(description="Names this request in the logs; also in X-Request-Id.")


class Enveloped(BaseModel, Generic[T]):
    data: T
    meta: Meta


class CheckoutBody(Body):
    price_id: Text = Field(
        min_length=1, max_length=255, description="A price of GET /v1/plans, by its id.", examples=["price_1Q…"]
    )
    success_url: Url | None = Field(None, description="On an origin that the catalog allows.")
    cancel_url: Url | None = Field(None, description="On an origin that the catalog allows.")


class Checkout(BaseModel):
    session_id: str = Field(examples=["cs_test_…"])
    url: str = Field(examples=["https://checkout.stripe.com/c/pay/cs_test_…"])


class PortalBody(Body):
    return_url: Url | None = Field(None, description="On an origin that the catalog allows.")


class Portal(BaseModel):
    url: str = Field(examples=["https://billing.stripe.com/p/session/…"])


class Subscription(BaseModel):
    customer_id: str | None = Field(description="null: never subscribed", examples=["cus_…"])
    subscription_id: str | None = Field(description="null: never subscribed", examples=["sub_…"])
    subscription_status: str | None = Field(
        description="Stripe's word for it; it stays when the subscription is over.", examples=["active"]
    )
    tier: str = Field(examples=["business"])


@router.post(
    "/checkout",
    status_code=201,
    summary="Create a checkout session",
    **operation(
        *_REFUSALS,
        "invalid_argument",
        "unknown_price",
        "redirect_not_allowed",
        "already_subscribed",
        "stripe_unavailable",
        body=CheckoutBody,
        idempotent=True,
        credentials=_TOKEN,
    ),
)
async def create_admin_checkout(
    caller: OutsideBiller,
    request_id: IdempotencyKey,
    body: Annotated[CheckoutBody, Depends(json_body(CheckoutBody))],
    backend: Services,
    request: Request,
    response: Response,
) -> Enveloped[Checkout]:
    """Send the person to `url`. After payment the tier changes by itself."""
    answer = await backend.billing.call(
        backend.plans.CreateCheckout,
        pb.CreateCheckoutRequest(
            account_id=caller.account_id,
            price_id=body.price_id,
            success_url=body.success_url or "",
            cancel_url=body.cancel_url or "",
            request_id=request_id,
        ),
        timeout_s=STRIPE_CALL_S,
    )
    response.headers.update(_PRIVATE)
    return Enveloped(data=Checkout(session_id=answer.session_id, url=answer.url), meta=_meta(request))


@router.post(
    "/portal",
    summary="Create a billing portal session",
    **operation(
        *_REFUSALS,
        "redirect_not_allowed",
        "no_customer",
        "stripe_unavailable",
        body=PortalBody,
        body_required=False,
        credentials=_TOKEN,
    ),
)
async def create_admin_portal(
    caller: OutsideBiller,
    body: Annotated[PortalBody, Depends(json_body(PortalBody, optional=True))],
    backend: Services,
    request: Request,
    response: Response,
) -> Enveloped[Portal]:
    """Plan, cards, cancelling. The address is short-lived: ask for a new one each time."""
    asked = pb.CreatePortalSessionRequest(account_id=caller.account_id, return_url=body.return_url or "")
    answer = await backend.billing.call(backend.plans.CreatePortalSession, asked, timeout_s=STRIPE_CALL_S)
    response.headers.update(_PRIVATE)
    return Enveloped(data=Portal(url=answer.url), meta=_meta(request))


@router.get("/subscription", summary="Get the subscription's status", **operation(*_REFUSALS, credentials=_TOKEN))
async def read_admin_subscription(
    caller: OutsideBiller, backend: Services, request: Request, response: Response
) -> Enveloped[Subscription]:
    """What the account is on now; sees a tier that changed a moment ago."""
    answer = await backend.billing.call(backend.plans.GetBilling, pb.GetBillingRequest(account_id=caller.account_id))
    response.headers.update(_PRIVATE)
    billing = answer.billing
    subscribed = bool(billing.stripe_subscription_id)
    found = Subscription(
        # An abandoned checkout leaves a customer at Stripe, and is no subscription.
        customer_id=billing.stripe_customer_id if subscribed else None,
        subscription_id=billing.stripe_subscription_id or None,
        subscription_status=(billing.status or None) if subscribed else None,
        tier=billing.tier,
    )
    return Enveloped(data=found, meta=_meta(request))


def _meta(request: Request) -> Meta:
    return Meta(request_id=facts.of(request.scope).request_id)
