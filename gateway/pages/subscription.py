"""Changing the plan, cancelling, resuming, and the refund: each says first what it does."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from gateway.backend import STRIPE_CALL_S, Services
from gateway.pages import rendering
from gateway.pages.billing import refused
from gateway.pages.visits import Posting, Visiting, shop_of
from gateway.problems import Problem
from services.kit.errors import TollwayError
from tollway.billing.v1 import billing_pb2, refund_pb2, subscription_pb2

router = APIRouter(prefix="/dash/{slug}/billing", include_in_schema=False)


@router.get("/change")
async def change_page(request: Request, visit: Visiting, backend: Services) -> Response:
    """What a change would cost now and do to counters. Changes nothing."""
    visit.must(visit.may_bill)
    tier = request.query_params.get("tier", "")[:100]
    asked = subscription_pb2.PreviewChangeRequest(account_id=visit.account.id, tier=tier)
    try:
        found = await backend.billing.call(backend.subscriptions.PreviewChange, asked, timeout_s=STRIPE_CALL_S)
    except TollwayError as error:
        return await refused(request, visit, error)
    shop = await shop_of(request)
    names = {plan.tier: plan.display_name for plan in shop.plans}
    return rendering.page(
        request,
        "change.html",
        shop,
        visit=visit,
        form_token=visit.form_token,
        preview=found,
        proration_time=rendering.TEMPLATES.filters["instant"](found.proration_time),
        before=names.get(found.current_tier, found.current_tier),
        after=names.get(found.tier, found.tier),
    )


@router.post("/change")
async def change(request: Request, posting: Posting, backend: Services) -> Response:
    visit, form = posting
    visit.must(visit.may_bill)
    asked = subscription_pb2.ChangePlanRequest(
        account_id=visit.account.id, actor=visit.caller.actor, tier=form.text("tier", 100, least=1)
    )
    asked.proration_time.FromDatetime(_time(form.text("proration_time", 40)))
    try:
        await backend.billing.call(backend.subscriptions.ChangePlan, asked, timeout_s=STRIPE_CALL_S)
    except TollwayError as error:
        return await refused(request, visit, error)
    return RedirectResponse(f"{visit.path}?done=plan-changed", 303)


@router.get("/cancel")
async def cancel_page(request: Request, visit: Visiting, backend: Services) -> Response:
    visit.must(visit.may_bill)
    asked = billing_pb2.GetBillingRequest(account_id=visit.account.id)
    found = (await backend.billing.call(backend.plans.GetBilling, asked)).billing
    if not found.live_subscription:
        return RedirectResponse(visit.path, 303)
    return rendering.page(
        request, "cancel.html", await shop_of(request), visit=visit, form_token=visit.form_token, billing=found
    )


@router.post("/cancel")
async def cancel(request: Request, posting: Posting, backend: Services) -> Response:
    visit, _ = posting
    visit.must(visit.may_bill)
    asked = subscription_pb2.CancelSubscriptionRequest(account_id=visit.account.id, actor=visit.caller.actor)
    try:
        await backend.billing.call(backend.subscriptions.CancelSubscription, asked, timeout_s=STRIPE_CALL_S)
    except TollwayError as error:
        return await refused(request, visit, error)
    return RedirectResponse(f"{visit.path}?done=canceled", 303)


@router.post("/resume")
async def resume(request: Request, posting: Posting, backend: Services) -> Response:
    visit, _ = posting
    visit.must(visit.may_bill)
    asked = subscription_pb2.ResumeSubscriptionRequest(account_id=visit.account.id, actor=visit.caller.actor)
    try:
        await backend.billing.call(backend.subscriptions.ResumeSubscription, asked, timeout_s=STRIPE_CALL_S)
    except TollwayError as error:
        return await refused(request, visit, error)
    return RedirectResponse(f"{visit.path}?done=resumed", 303)


@router.get("/refund")
async def refund_page(request: Request, visit: Visiting, backend: Services) -> Response:
    """Whether a refund is due, and that it ends the subscription. Changes nothing."""
    visit.must(visit.may_refund)
    asked = refund_pb2.PreviewRefundRequest(account_id=visit.account.id)
    offer = await backend.billing.call(backend.refunds.PreviewRefund, asked, timeout_s=STRIPE_CALL_S)
    return rendering.page(
        request, "refund.html", await shop_of(request), visit=visit, form_token=visit.form_token, offer=offer
    )


@router.post("/refund")
async def refund(request: Request, posting: Posting, backend: Services) -> Response:
    visit, _ = posting
    visit.must(visit.may_refund)
    asked = refund_pb2.CreateRefundRequest(account_id=visit.account.id, actor=visit.caller.actor)
    try:
        answer = await backend.billing.call(backend.refunds.CreateRefund, asked, timeout_s=STRIPE_CALL_S)
    except TollwayError as error:
        return await refused(request, visit, error)
    done = "refunded" if answer.refund.state == refund_pb2.REFUND_STATE_REFUNDED else "refund-pending"
    if answer.refund.state == refund_pb2.REFUND_STATE_REFUSED:
        said = "The subscription has ended, and too much was used until then for a refund."
        return await refused(request, visit, Problem("refund_usage_exceeded", said))
    return RedirectResponse(f"{visit.path}?done={quote(done)}", 303)


def _time(given: str) -> datetime:
    try:
        at = datetime.fromisoformat(given)
        if at.tzinfo is not None and 1970 < at.year < 9999:
            return at.astimezone(UTC)
    except ValueError:
        pass
    raise Problem("form_malformed")
