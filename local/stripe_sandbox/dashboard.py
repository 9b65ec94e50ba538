"""What a person does in Stripe's dashboard, for tests: refunds and disputes that no API call of the product made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from . import disputes, refunds
from .context import Context
from .control import body_of, refused, sandbox_of
from .errors import ApiError
from .lists import render
from .store import Json


def _charge(ctx: Context, body: Json) -> Json:
    """The charge that `charge`, `payment_intent` or `invoice` names: of an invoice, the one that paid it."""
    given = {name: body[name] for name in ("charge", "payment_intent") if body.get(name)}
    if body.get("invoice"):
        invoice = ctx.need(body["invoice"], "invoice", param="invoice")
        payments = invoice["payments"]["data"]
        if not payments:
            raise ApiError("Nothing was charged for this invoice.", param="invoice")
        given = {"payment_intent": payments[0]["payment"]["payment_intent"]}
    return refunds.charge_of(ctx, given)


async def _run(request: Request, names: set[str], work: Callable[[Context, Json], Json]) -> JSONResponse:
    sandbox = sandbox_of(request)
    try:
        body = await body_of(request)
    except ValueError as error:
        return refused(str(error))
    if set(body) - names:
        return refused(f"unknown: {', '.join(sorted(set(body) - names))}")
    if body.get("amount") is not None and type(body["amount"]) is not int:
        return refused("amount is whole minor units")
    # No request id and no idempotency key, as with all that happens in the dashboard.
    ctx = sandbox.context()
    try:
        made = sandbox.run(ctx, lambda ctx: work(ctx, body))
    except ApiError as error:
        return refused(error.message)
    return JSONResponse(render(sandbox.context(), made, []))


_WHICH = {"charge", "payment_intent", "invoice", "amount"}


async def refund(request: Request) -> JSONResponse:
    """`{"invoice" | "charge" | "payment_intent": id, "amount": minor, "reason": …}`; by default all that is left."""

    def work(ctx: Context, body: Json) -> Json:
        reason = body.get("reason")
        if reason not in (None, "duplicate", "fraudulent", "requested_by_customer"):
            raise ApiError("reason is duplicate, fraudulent or requested_by_customer")
        return refunds.make(ctx, _charge(ctx, body), {"amount": body.get("amount"), "reason": reason})

    return await _run(request, _WHICH | {"reason"}, work)


async def dispute(request: Request) -> JSONResponse:
    """Like `refund`, with a `reason` of disputes (fraudulent by default); `inquiry: true` takes no money back."""

    def work(ctx: Context, body: Json) -> Json:
        reason: Any = body.get("reason", "fraudulent")
        if reason not in disputes.REASONS:
            raise ApiError(f"reason is one of {', '.join(disputes.REASONS)}")
        charge = _charge(ctx, body)
        return disputes.make(ctx, charge, reason=reason, amount=body.get("amount"), inquiry=bool(body.get("inquiry")))

    return await _run(request, _WHICH | {"reason", "inquiry"}, work)


async def close_dispute(request: Request) -> JSONResponse:
    """`{"status": "won" | "lost" | "warning_closed"}`: the bank's decision."""

    def work(ctx: Context, body: Json) -> Json:
        if body.get("status") not in ("won", "lost", "warning_closed"):
            raise ApiError("status is won, lost or warning_closed")
        return disputes.close(ctx, ctx.need(request.path_params["dispute"], "dispute"), body["status"])

    return await _run(request, {"status"}, work)
