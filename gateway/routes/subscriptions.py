"""Changes to a live subscription: preview, change, cancel, resume."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field

from gateway.auth import OrgBiller
from gateway.backend import STRIPE_CALL_S, Services
from gateway.body import Body, Text, json_body
from gateway.operations import SESSION, operation
from gateway.times import Instant, rfc3339
from tollway.billing.v1 import subscription_pb2 as pb

router = APIRouter(prefix="/v1/orgs/{slug}/billing", tags=["billing"])
_PROBLEMS = ("account_not_found", "session_required", "insufficient_role", "no_subscription", "stripe_unavailable")
_CHANGE = ("unknown_tier", "contact_sales", "plan_unchanged", "catalog_not_pushed", "invalid_argument")
_PRIVATE = {"Cache-Control": "no-store"}


class Line(BaseModel):
    description: str
    amount: int = Field(description="Whole minor units; negative for a credit.")


class Counter(BaseModel):
    limit: str = Field(examples=["messages_per_month"])
    meters: list[str]
    used: int
    before: int | None = Field(description="null: unlimited, or no such limit.")
    after: int | None = Field(description="null: unlimited, or no such limit.")
    restarts: bool = Field(description="The billing period begins anew, and the counter with it.")


class ChangePreview(BaseModel):
    current_tier: str
    tier: str
    total: int = Field(description="Of the invoice made at the change; negative: a credit for later invoices.")
    amount_due: int = Field(description="Charged at once. Whole minor units of the currency.")
    currency: str
    lines: list[Line]
    proration_time: str = Field(description="Give it back with the change, and the amounts are these.")
    counters: list[Counter]


class ChangeBody(Body):
    tier: Text = Field(min_length=1, max_length=100, examples=["pro"])
    proration_time: Instant | None = Field(
        None, description="The preview's, so that its amounts hold; RFC 3339. null: now."
    )


class Changed(BaseModel):
    tier: str


class Canceled(BaseModel):
    ends_at: str | None = Field(examples=["2026-05-01T00:00:00Z"])


class Resumed(BaseModel):
    cancel_at_period_end: bool = Field(description="Always false.")


@router.get("/preview", summary="Preview a change of plan", **operation(*_PROBLEMS, *_CHANGE, credentials=SESSION))
async def preview_change(
    caller: OrgBiller,
    tier: Annotated[str, Query(min_length=1, max_length=100, examples=["pro"])],
    backend: Services,
    response: Response,
) -> ChangePreview:
    """The invoice that the change would make now, and what would happen to counters. Changes nothing."""
    asked = pb.PreviewChangeRequest(account_id=caller.account_id, tier=tier)
    found = await backend.billing.call(backend.subscriptions.PreviewChange, asked, timeout_s=STRIPE_CALL_S)
    response.headers.update(_PRIVATE)
    return ChangePreview(
        current_tier=found.current_tier,
        tier=found.tier,
        total=found.total,
        amount_due=found.amount_due,
        currency=found.currency,
        lines=[Line(description=line.description, amount=line.amount) for line in found.lines],
        proration_time=rfc3339(found.proration_time),
        counters=[
            Counter(
                limit=each.limit_name,
                meters=list(each.meters),
                used=each.used,
                before=each.limit_before if each.HasField("limit_before") else None,
                after=each.limit_after if each.HasField("limit_after") else None,
                restarts=each.restarts,
            )
            for each in found.counters
        ],
    )


@router.post(
    "/change",
    summary="Change the plan",
    **operation(*_PROBLEMS, *_CHANGE, "payment_declined", body=ChangeBody, credentials=SESSION),
)
async def change_plan(
    caller: OrgBiller,
    body: Annotated[ChangeBody, Depends(json_body(ChangeBody))],
    backend: Services,
    response: Response,
) -> Changed:
    """Now, with the unused time credited and the new plan's charged at once. A declined card changes nothing."""
    asked = pb.ChangePlanRequest(account_id=caller.account_id, actor=caller.actor, tier=body.tier)
    if body.proration_time is not None:
        asked.proration_time.FromDatetime(body.proration_time)
    answer = await backend.billing.call(backend.subscriptions.ChangePlan, asked, timeout_s=STRIPE_CALL_S)
    response.headers.update(_PRIVATE)
    return Changed(tier=answer.tier)


@router.post("/cancel", summary="Cancel at the period's end", **operation(*_PROBLEMS, credentials=SESSION))
async def cancel_subscription(caller: OrgBiller, backend: Services, response: Response) -> Canceled:
    """The plan stays until the period ends. Asking twice changes nothing."""
    asked = pb.CancelSubscriptionRequest(account_id=caller.account_id, actor=caller.actor)
    answer = await backend.billing.call(backend.subscriptions.CancelSubscription, asked, timeout_s=STRIPE_CALL_S)
    response.headers.update(_PRIVATE)
    return Canceled(ends_at=rfc3339(answer.end_time) if answer.HasField("end_time") else None)


@router.post("/resume", summary="Take a cancellation back", **operation(*_PROBLEMS, credentials=SESSION))
async def resume_subscription(caller: OrgBiller, backend: Services, response: Response) -> Resumed:
    """The plan renews as before. Asking twice changes nothing."""
    asked = pb.ResumeSubscriptionRequest(account_id=caller.account_id, actor=caller.actor)
    await backend.billing.call(backend.subscriptions.ResumeSubscription, asked, timeout_s=STRIPE_CALL_S)
    response.headers.update(_PRIVATE)
    return Resumed(cancel_at_period_end=False)
