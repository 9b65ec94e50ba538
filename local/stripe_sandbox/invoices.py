"""Invoices, as callers read, make, pay and end them. What becomes of them by themselves is `invoice_life`."""

from __future__ import annotations

from . import collection, discounts, invoice_items, invoice_life
from .context import Context
from .errors import ApiError, invalid
from .fields import apply
from .lists import Condition, equals, page, time_range
from .params import TIME_RANGE, anything, boolean, choice, integer, metadata, text
from .payment_methods import resolve
from .periods import HOUR
from .routing import delete, get, listing, post
from .store import Json


@get("/v1/invoices/{invoice}")
def retrieve(ctx: Context, params: Json, invoice: str) -> Json:
    return ctx.need(invoice, "invoice")


@listing(
    "/v1/invoices",
    {
        "customer": text,
        "subscription": text,
        "status": choice("draft", "open", "paid", "uncollectible", "void"),
        "collection_method": choice("charge_automatically", "send_invoice"),
        "due_date": TIME_RANGE,
    },
)
def listed(ctx: Context, params: Json) -> Json:
    where: list[Condition] = []
    for name, column in (("customer", "customer"), ("subscription", "ref"), ("status", "status")):
        if params.get(name):
            where.append(equals(column, params[name]))
    if params.get("collection_method"):
        where.append(equals("collection_method", params["collection_method"]))
    if params.get("due_date"):
        where += time_range("json_extract(body, '$.due_date')", params["due_date"])
    return page(ctx, "invoice", params, "/v1/invoices", where)


@post(
    "/v1/invoices",
    {
        "customer": text,
        "subscription": text,
        "auto_advance": boolean,
        "collection_method": choice("charge_automatically", "send_invoice"),
        "currency": text,
        "days_until_due": integer,
        "default_payment_method": text,
        "description": text,
        "discounts": discounts.PARAM,
        "footer": text,
        "metadata": metadata,
        "pending_invoice_items_behavior": choice("include", "exclude"),
        "payment_settings": anything,
    },
    ["customer"],
)
def create(ctx: Context, params: Json) -> Json:
    """An invoice by hand, empty unless pending items are asked for (with a subscription they always are)."""
    customer = ctx.need(params["customer"], "customer", param="customer")
    subscription = None
    if params.get("subscription"):
        subscription = ctx.need(params["subscription"], "subscription", param="subscription")
    lines: list[Json] = []
    if subscription is not None or params.get("pending_invoice_items_behavior") == "include":
        lines = invoice_items.take_pending(ctx, customer["id"], subscription["id"] if subscription else None)
    currency = params.get("currency") or (lines[0]["currency"] if lines else customer["currency"] or "usd")
    now = ctx.now_of(customer)
    subtotal = sum(line["amount"] for line in lines)
    offers = discounts.offered(ctx, params.get("discounts") or [], customer, amount=subtotal, currency=currency)
    invoice = invoice_life.draft(
        ctx,
        customer,
        lines,
        reason="manual",
        subscription=subscription,
        discount_ids=discounts.redeem(ctx, offers, customer) or None,
        currency=currency,
        period=(now, now),
        auto_advance=bool(params.get("auto_advance", False)),
    )
    invoice = apply(invoice, params, ("description", "footer", "default_payment_method", "collection_method"))
    if params.get("days_until_due") is not None:
        invoice["due_date"] = now + params["days_until_due"] * 24 * HOUR
    if invoice["auto_advance"]:
        ctx.store.schedule(invoice["id"], "finalize", customer["test_clock"], now + invoice_life.DRAFT_SECONDS)
    return ctx.save(invoice)


@post(
    "/v1/invoices/{invoice}",
    {
        "auto_advance": boolean,
        "description": text,
        "footer": text,
        "metadata": metadata,
        "default_payment_method": text,
    },
)
def update(ctx: Context, params: Json, invoice: str) -> Json:
    before = ctx.need(invoice, "invoice")
    after = apply(before, params, ("auto_advance", "description", "footer", "default_payment_method"))
    return ctx.save(after, "invoice.updated", before)


@post("/v1/invoices/{invoice}/finalize", {"auto_advance": boolean})
def finalize_route(ctx: Context, params: Json, invoice: str) -> Json:
    found = ctx.need(invoice, "invoice")
    if found["status"] != "draft":
        raise invalid(
            "This invoice is already finalized, you can't re-finalize a non-draft invoice.", code="invoice_not_editable"
        )
    if params.get("auto_advance") is not None:
        found["auto_advance"] = params["auto_advance"]
    return invoice_life.finalize(ctx, found)


@post(
    "/v1/invoices/{invoice}/pay",
    {"payment_method": text, "paid_out_of_band": boolean, "off_session": boolean, "forgive": boolean, "source": text},
)
def pay(ctx: Context, params: Json, invoice: str) -> Json:
    """Collects now. Raises card_error when declined; the try stays on record."""
    found = ctx.need(invoice, "invoice")
    if found["status"] == "draft":
        invoice_life.finalize(ctx, found)
    if found["status"] == "paid":
        if found["amount_due"]:
            raise invalid("Invoice is already paid", code="invoice_already_paid")
        return found
    if found["status"] not in ("open", "uncollectible"):
        raise invalid(
            f"This invoice is {found['status']} and cannot be paid.", code="invoice_payment_intent_requires_action"
        )
    if params.get("paid_out_of_band"):
        collection.mark_paid(ctx, found)
        return found
    method = None
    if params.get("payment_method"):
        method = resolve(ctx, params["payment_method"], param="payment_method")
    refusal = collection.attempt(ctx, found, method)
    if refusal is not None:
        refusal.keep = True
        raise refusal
    return found


@post("/v1/invoices/{invoice}/send")
def send(ctx: Context, params: Json, invoice: str) -> Json:
    """Finalizes a draft and tells that it was mailed; nothing is mailed in test mode."""
    found = ctx.need(invoice, "invoice")
    if found["status"] == "draft":
        invoice_life.finalize(ctx, found)
    if found["status"] not in ("open", "paid", "uncollectible"):
        raise invalid(f"This invoice is {found['status']} and cannot be sent.", code="invoice_not_editable")
    ctx.emit("invoice.sent", found)
    return found


@post("/v1/invoices/{invoice}/void")
def void_route(ctx: Context, params: Json, invoice: str) -> Json:
    found = ctx.need(invoice, "invoice")
    if found["status"] not in ("open", "uncollectible"):
        raise invalid("You can only pass in open or uncollectible invoices.", code="invoice_not_editable")
    return invoice_life.void(ctx, found)


@post("/v1/invoices/{invoice}/mark_uncollectible")
def mark_uncollectible(ctx: Context, params: Json, invoice: str) -> Json:
    found = ctx.need(invoice, "invoice")
    if found["status"] != "open":
        raise invalid("You can only mark open invoices as uncollectible.", code="invoice_not_editable")
    return invoice_life.write_off(ctx, found)


@delete("/v1/invoices/{invoice}")
def remove(ctx: Context, params: Json, invoice: str) -> Json:
    found = ctx.need(invoice, "invoice")
    if found["status"] != "draft" or found["parent"] is not None:
        raise ApiError("You can only delete draft invoices that no subscription made.", code="invoice_not_editable")
    ctx.store.remove(invoice)
    ctx.emit("invoice.deleted", found)
    return {"id": invoice, "object": "invoice", "deleted": True}


@listing("/v1/invoices/{invoice}/lines")
def lines(ctx: Context, params: Json, invoice: str) -> Json:
    found: Json = ctx.need(invoice, "invoice")["lines"]
    return found
