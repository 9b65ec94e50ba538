"""Manashiki's billing: `/v1/orgs/{slug}/billing/status`, `…/checkout`, `…/portal`.

The field names and answers are those of the "Purchase & billing" page of its documentation, and of CONTRACT.md for
`downloadGuardrails`. A catalog without its meters and gates has nothing used, no limits and closed gates here.
"""

# ruff: noqa: N815 (the page's spelling)

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field

from gateway.auth import OrgBiller, OrgReader
from gateway.backend import STRIPE_CALL_S, Backend, Services
from gateway.body import Body, Text, json_body
from gateway.headers import IdempotencyKey
from gateway.limits import limit_of, remaining_of
from gateway.operations import QUOTA_READ, SESSION, operation
from gateway.problems import Problem
from gateway.times import rfc3339_millis
from tollway.billing.v1 import billing_pb2, entitlement_pb2
from tollway.quota.v1 import kill_switch_pb2, quota_pb2

router = APIRouter(prefix="/v1/orgs/{slug}/billing", tags=["billing"])
STAGING, LIVE = "staging_downloads", "live_downloads"
Url = Annotated[Text, Field(min_length=1, max_length=2048)]
_PRIVATE = {"Cache-Control": "no-store"}
_ORG = ("account_not_found", "session_required", "insufficient_role")


class Quota(BaseModel):
    used: int
    limit: int | None = Field(description="null: unlimited")
    remaining: int | None = Field(description="null: unlimited")


class LiveCap(Quota):
    autoStop: bool = Field(description="false: reaching it only warns.")


class Concurrency(BaseModel):
    active: int = Field(description="Signed download URLs that work now")
    limit: int | None = Field(description="null: unlimited")


class KillSwitch(BaseModel):
    enabled: bool
    reason: str | None


class Guardrails(BaseModel):
    stagingQuota: Quota
    liveCap: LiveCap
    concurrency: Concurrency
    killSwitch: KillSwitch
    supportContact: str = Field(examples=["mailto:contact@example.com"])


class Status(BaseModel):
    tier: str = Field(examples=["paid"])
    currentPeriodEnd: str | None = Field(examples=["2026-07-01T00:00:00.000Z"])
    stagingQuotaUsed: int
    stagingQuotaLimit: int | None = Field(description="null: unlimited")
    liveDownloadsThisPeriod: int
    customModelAllowed: bool
    liveKeyIssuanceAllowed: bool
    serviceKeyIssuanceAllowed: bool
    downloadGuardrails: Guardrails
    supportContactMailto: str = Field(examples=["mailto:contact@example.com"])


class CheckoutBody(Body):
    tier: Text | None = Field(None, min_length=1, max_length=100, description="Needed where several are for sale.")
    success_url: Url | None = Field(None, description="On an origin that the catalog allows.")
    cancel_url: Url | None = Field(None, description="On an origin that the catalog allows.")


class Checkout(BaseModel):
    url: str = Field(examples=["https://checkout.stripe.com/c/pay/cs_test_…"])
    sessionId: str = Field(examples=["cs_test_…"])


class PortalBody(Body):
    return_url: Url | None = Field(None, description="On an origin that the catalog allows.")


class Portal(BaseModel):
    url: str = Field(examples=["https://billing.stripe.com/p/session/…"])


@router.get("/status", summary="Check the entitlements", **operation(*_ORG, *QUOTA_READ, credentials=SESSION))
async def read_status(caller: OrgReader, backend: Services, response: Response) -> Status:
    """What the organization may do now, what it has used, and how its guardrails stand."""
    account_id = caller.account_id
    billed, usage, entitled, switches = await asyncio.gather(
        backend.billing.call(backend.plans.GetBilling, billing_pb2.GetBillingRequest(account_id=account_id)),
        backend.quota.call(backend.usage.GetUsage, quota_pb2.GetUsageRequest(account_id=account_id)),
        backend.billing.call(
            backend.entitlements.BatchGetEntitlements,
            entitlement_pb2.BatchGetEntitlementsRequest(account_ids=[account_id]),
        ),
        backend.quota.call(backend.switches.GetKillSwitch, kill_switch_pb2.GetKillSwitchRequest()),
    )
    response.headers.update(_PRIVATE)
    billing = billed.billing
    entitlements = next(iter(entitled.entitlements), entitlement_pb2.Entitlements())
    meters = {meter.meter: meter for meter in usage.meters}
    staging = meters.get(STAGING, quota_pb2.MeterUsage())
    live = meters.get(LIVE, quota_pb2.MeterUsage())
    cap = _first(live.limits, quota_pb2.LIMIT_KIND_CAP)
    period_runs = billing.HasField("current_period_end") and not billing.default_tier
    return Status(
        tier=entitlements.tier,  # of the same moment as its gates
        currentPeriodEnd=rfc3339_millis(billing.current_period_end) if period_runs else None,
        stagingQuotaUsed=staging.used,
        stagingQuotaLimit=limit_of(staging),
        liveDownloadsThisPeriod=live.used,
        customModelAllowed=entitlements.gates.get("custom_models", False),
        liveKeyIssuanceAllowed=entitlements.gates.get("live_key_issuance", False),
        serviceKeyIssuanceAllowed=entitlements.gates.get("service_key_issuance", False),
        downloadGuardrails=Guardrails(
            stagingQuota=Quota(used=staging.used, limit=limit_of(staging), remaining=remaining_of(staging)),
            liveCap=LiveCap(
                used=cap.used if cap else live.used,
                limit=limit_of(cap),
                remaining=remaining_of(cap),
                autoStop=cap.auto_stop if cap else True,  # armed by default
            ),
            concurrency=_concurrency([*live.limits, *staging.limits]),
            killSwitch=_kill_switch(switches.kill_switches),
            supportContact=entitlements.support_contact,
        ),
        supportContactMailto=entitlements.support_contact,
    )


@router.post(
    "/checkout",
    summary="Open a checkout page",
    **operation(
        *_ORG,
        "invalid_argument",
        "unknown_tier",
        "contact_sales",
        "redirect_not_allowed",
        "already_subscribed",
        "stripe_unavailable",
        body=CheckoutBody,
        body_required=False,
        idempotent=True,
        credentials=SESSION,
    ),
)
async def open_org_checkout(
    caller: OrgBiller,
    request_id: IdempotencyKey,
    body: Annotated[CheckoutBody, Depends(json_body(CheckoutBody, optional=True))],
    backend: Services,
    response: Response,
) -> Checkout:
    """Send the person to `url`. After payment the tier changes by itself."""
    answer = await backend.billing.call(
        backend.plans.CreateCheckout,
        billing_pb2.CreateCheckoutRequest(
            account_id=caller.account_id,
            tier=body.tier or await _only_tier(backend),
            success_url=body.success_url or "",
            cancel_url=body.cancel_url or "",
            request_id=request_id,
        ),
        timeout_s=STRIPE_CALL_S,
    )
    response.headers.update(_PRIVATE)
    return Checkout(url=answer.url, sessionId=answer.session_id)


@router.post(
    "/portal",
    summary="Open the billing portal",
    **operation(
        *_ORG,
        "redirect_not_allowed",
        "no_customer",
        "stripe_unavailable",
        body=PortalBody,
        body_required=False,
        credentials=SESSION,
    ),
)
async def open_org_portal(
    caller: OrgBiller,
    body: Annotated[PortalBody, Depends(json_body(PortalBody, optional=True))],
    backend: Services,
    response: Response,
) -> Portal:
    """Cards, invoices, cancelling. The address is short-lived: ask for a new one each time."""
    asked = billing_pb2.CreatePortalSessionRequest(account_id=caller.account_id, return_url=body.return_url or "")
    answer = await backend.billing.call(backend.plans.CreatePortalSession, asked, timeout_s=STRIPE_CALL_S)
    response.headers.update(_PRIVATE)
    return Portal(url=answer.url)


async def _only_tier(backend: Backend) -> str:
    """The tier that is for sale. Raises unknown_tier where there are several to choose from."""
    answer = await backend.billing.call(backend.plans.ListPlans, billing_pb2.ListPlansRequest())
    sold = [plan.tier for plan in answer.plans if plan.prices]
    if len(sold) != 1:
        said = f"is required, one of: {', '.join(sold)}"
        raise Problem("unknown_tier", "Say which plan.", fields=(("tier", said),))
    return sold[0]


def _first(limits: Iterable[quota_pb2.LimitState], kind: quota_pb2.LimitKind.ValueType) -> quota_pb2.LimitState | None:
    return next((state for state in limits if state.kind == kind), None)


def _concurrency(limits: Iterable[quota_pb2.LimitState]) -> Concurrency:
    state = _first(limits, quota_pb2.LIMIT_KIND_CONCURRENCY)
    return Concurrency(active=state.used if state else 0, limit=limit_of(state))


def _kill_switch(switches: Iterable[kill_switch_pb2.KillSwitch]) -> KillSwitch:
    """The one over every meter first; else one over downloads of either sort."""
    thrown = next((each for each in switches if each.enabled and each.meter in {"", STAGING, LIVE}), None)
    return KillSwitch(enabled=thrown is not None, reason=thrown.reason if thrown else None)
