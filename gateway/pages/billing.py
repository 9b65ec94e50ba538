"""`/dash/{slug}/billing`: the plan, usage, keys and invoices of an account, and buying."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from gateway.backend import STRIPE_CALL_S, Backend, Services
from gateway.pages import live, rendering
from gateway.pages.visits import Posting, Visit, Visiting
from gateway.problems import Problem, from_error
from services.kit.errors import TollwayError
from tollway.billing.v1 import billing_pb2

router = APIRouter(prefix="/dash/{slug}/billing", include_in_schema=False)
# What has just been done, by the word in the address.
DONE = {
    "checkout-canceled": "Nothing was charged, and your plan stays as it is.",
    "cap-set": "Your cap is in force from the next use on.",
    "cap-removed": "Your cap was removed.",
    "key-revoked": "The key was revoked. It is refused from now on.",
    "plan-changed": "Your plan was changed.",
    "canceled": "Your subscription will end with the period that is paid for.",
    "resumed": "Your subscription goes on and renews as before.",
    "refunded": "Your base fee is on its way back, and the subscription has ended.",
    "refund-pending": "Your refund is under way. Look again in a moment.",
}


async def page(request: Request, visit: Visit, *, status: int = 200, problem: str = "", **values: Any) -> Response:
    """The whole page; `problem` is what a form was refused for."""
    account, keys, invoices = await asyncio.gather(
        live.read(request, visit),
        live.keys(request, visit) if visit.may_see_keys else _nothing(),
        live.invoices(request, visit) if visit.may_bill else _nothing(),
    )
    paid = request.query_params.get("done") == "paid"
    return rendering.page(
        request,
        "billing.html",
        account.shop,
        status,
        visit=visit,
        form_token=visit.form_token,
        request_id=rendering.new_request_id(),  # of the key that the form on this page issues
        page=account,
        plan=account.plan,
        keys=keys[: live.KEYS],
        more_keys=len(keys) > live.KEYS,
        kinds=_kinds(account),
        invoices=invoices[: live.INVOICES],
        more_invoices=len(invoices) > live.INVOICES,
        problem=problem,
        done=DONE.get(request.query_params.get("done", ""), ""),
        waiting=paid and not account.plan.may_manage,
        paid=paid and account.plan.may_manage,
        **values,
    )


async def refused(request: Request, visit: Visit, error: Problem | TollwayError) -> Response:
    """The page again, with what was wrong said on top."""
    problem = error if isinstance(error, Problem) else from_error(error)
    if problem.status >= 500 or problem.status == 404:
        raise error
    return await page(request, visit, status=problem.status, problem=problem.detail)


async def _nothing() -> list[Any]:
    return []


def _kinds(account: live.Account) -> list[dict[str, Any]]:
    """The kinds of keys that there are; those that the plan does not let issue cannot be chosen."""
    gates = account.entitled.gates
    return [
        {"name": kind.name, "prefix": kind.prefix, "open": not kind.gate or gates[kind.gate]}
        for kind in account.shop.key_kinds
    ]


@router.get("")
async def billing_page(request: Request, visit: Visiting) -> Response:
    return await page(request, visit)


@router.get("/live")
async def live_part(request: Request, visit: Visiting) -> Response:
    """The usage as it is now, for the page's script."""
    account = await live.read(request, visit)
    response = rendering.page(request, "usage.html", account.shop, page=account, plan=account.plan)
    response.headers["Tollway-Version"] = str(account.billing.version)
    return response


@router.get("/state")
async def state(request: Request, visit: Visiting, backend: Services) -> Response:
    """Whether a subscription is live by now: what the page waits for after Checkout."""
    asked = billing_pb2.GetBillingRequest(account_id=visit.account.id)
    found = (await backend.billing.call(backend.plans.GetBilling, asked)).billing
    return JSONResponse(
        {"version": found.version, "live": found.live_subscription, "tier": found.tier},
        headers={"Cache-Control": "no-store"},
    )


@router.post("/upgrade")
async def upgrade(request: Request, posting: Posting, backend: Services) -> Response:
    """Leads to Stripe Checkout."""
    visit, form = posting
    visit.must(visit.may_bill)
    back = f"{request.app.state.public_url}{visit.path}"
    asked = billing_pb2.CreateCheckoutRequest(
        account_id=visit.account.id,
        tier=form.text("tier", 100, least=1),
        success_url=f"{back}?done=paid",
        cancel_url=f"{back}?done=checkout-canceled",
    )
    try:
        answer = await backend.billing.call(backend.plans.CreateCheckout, asked, timeout_s=STRIPE_CALL_S)
    except TollwayError as error:
        return await refused(request, visit, error)
    return RedirectResponse(answer.url, 303)


@router.post("/manage")
async def manage(request: Request, posting: Posting, backend: Services) -> Response:
    """Leads to Stripe's customer portal."""
    visit, _ = posting
    visit.must(visit.may_bill)
    try:
        return RedirectResponse(await portal(request, visit, backend), 303)
    except TollwayError as error:
        return await refused(request, visit, error)


async def portal(request: Request, visit: Visit, backend: Backend) -> str:
    """The portal's address."""
    asked = billing_pb2.CreatePortalSessionRequest(
        account_id=visit.account.id, return_url=f"{request.app.state.public_url}{visit.path}"
    )
    answer = await backend.billing.call(backend.plans.CreatePortalSession, asked, timeout_s=STRIPE_CALL_S)
    return answer.url
