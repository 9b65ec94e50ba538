"""The customer's balance: what downgrades left over, taken off (or added to) coming invoices."""

from __future__ import annotations

from . import ids
from .context import Context
from .lists import Condition, equals, page
from .params import integer, metadata, text
from .routing import get, listing, post
from .store import Json


def change(
    ctx: Context,
    customer_id: str,
    amount: int,
    currency: str,
    kind: str,
    *,
    invoice: str | None = None,
    description: str | None = None,
    meta: dict[str, str] | None = None,
) -> Json:
    """Adds to what the customer owes (negative: to what they are owed), in minor units, and keeps record of it."""
    before = ctx.need(customer_id, "customer")
    balance = before["balance"] + amount
    ctx.save(before | {"balance": balance, "currency": before["currency"] or currency}, "customer.updated", before)
    transaction: Json = {
        "id": ids.new("cbtxn"),
        "object": "customer_balance_transaction",
        "amount": amount,
        "checkout_session": None,
        "created": ctx.now_of(before),
        "credit_note": None,
        "currency": currency,
        "customer": customer_id,
        "customer_account": None,
        "description": description,
        "ending_balance": balance,
        "invoice": invoice,
        "livemode": False,
        "metadata": meta or {},
        "type": kind,
    }
    return ctx.create(transaction)


@post(
    "/v1/customers/{customer}/balance_transactions",
    {"amount": integer, "currency": text, "description": text, "metadata": metadata},
    ["amount", "currency"],
)
def create(ctx: Context, params: Json, customer: str) -> Json:
    return change(
        ctx,
        customer,
        params["amount"],
        params["currency"].lower(),
        "adjustment",
        description=params.get("description"),
        meta=params.get("metadata"),
    )


@listing("/v1/customers/{customer}/balance_transactions", {"invoice": text})
def listed(ctx: Context, params: Json, customer: str) -> Json:
    ctx.need(customer, "customer")
    where: list[Condition] = [equals("customer", customer)]
    if params.get("invoice"):
        where.append(equals("invoice", params["invoice"]))
    url = f"/v1/customers/{customer}/balance_transactions"
    return page(ctx, "customer_balance_transaction", params, url, where)


@get("/v1/customers/{customer}/balance_transactions/{transaction}")
def retrieve(ctx: Context, params: Json, customer: str, transaction: str) -> Json:
    ctx.need(customer, "customer")
    return ctx.need(transaction, "customer_balance_transaction")
