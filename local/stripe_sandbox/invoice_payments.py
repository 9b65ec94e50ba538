"""Invoice payments: which payment intent is to pay, or paid, which invoice."""

from __future__ import annotations

from .context import Context
from .lists import Condition, equals, page
from .params import record, text
from .routing import get, listing
from .store import Json


@get("/v1/invoice_payments/{payment}")
def retrieve_payment(ctx: Context, params: Json, payment: str) -> Json:
    return ctx.need(payment, "invoice_payment")


@listing(
    "/v1/invoice_payments", {"invoice": text, "status": text, "payment": record({"type": text, "payment_intent": text})}
)
def listed_payments(ctx: Context, params: Json) -> Json:
    where: list[Condition] = []
    if params.get("invoice"):
        where.append(equals("ref", params["invoice"]))
    if params.get("status"):
        where.append(equals("status", params["status"]))
    wanted = (params.get("payment") or {}).get("payment_intent")
    if wanted:
        where.append(equals("payment.payment_intent", wanted))
    return page(ctx, "invoice_payment", params, "/v1/invoice_payments", where)
