"""Invoices: draft, then open with a number and its links, then paid (or void, or uncollectible)."""

from __future__ import annotations

import secrets

from . import collection, ids, invoice_items
from .context import Context
from .errors import ApiError, invalid
from .fields import apply
from .lists import Condition, equals, inline, page, time_range
from .params import TIME_RANGE, anything, boolean, choice, integer, metadata, text
from .payment_methods import resolve
from .periods import HOUR
from .routing import delete, get, listing, post
from .store import Json

# A renewal's invoice stays a draft this long, so that it can still be changed.
DRAFT_SECONDS = HOUR


def draft(
    ctx: Context,
    customer: Json,
    lines: list[Json],
    *,
    reason: str,
    currency: str,
    period: tuple[int, int],
    subscription: Json | None = None,
    auto_advance: bool = True,
    invoice_id: str | None = None,
) -> Json:
    """A draft invoice with its event. The caller schedules or runs finalization."""
    invoice_id = invoice_id or ids.new("in")
    subtotal = sum(line["amount"] for line in lines)
    for line in lines:
        line["invoice"] = invoice_id
        waiting = ((line["parent"] or {}).get("invoice_item_details") or {}).get("invoice_item")
        if waiting is not None:
            ctx.store.put(ctx.need(waiting, "invoiceitem") | {"invoice": invoice_id})
    now = ctx.now_of(customer)
    parent: Json | None = None
    if subscription is not None:
        parent = {
            "quote_details": None,
            "subscription_details": {"metadata": subscription["metadata"], "subscription": subscription["id"]},
            "type": "subscription_details",
        }
    invoice: Json = {
        "id": invoice_id,
        "object": "invoice",
        "account_country": "US",
        "account_name": ctx.store.setting("business_name", "Sandbox"),
        "account_tax_ids": None,
        "amount_due": max(subtotal, 0),
        "amount_overpaid": 0,
        "amount_paid": 0,
        "amount_remaining": max(subtotal, 0),
        "amount_shipping": 0,
        "application": None,
        "attempt_count": 0,
        "attempted": False,
        "auto_advance": auto_advance,
        "automatic_tax": {
            "disabled_reason": None,
            "enabled": False,
            "liability": None,
            "provider": None,
            "status": None,
        },
        "automatically_finalizes_at": now + DRAFT_SECONDS if auto_advance else None,
        "billing_reason": reason,
        "collection_method": "charge_automatically",
        "created": now,
        "currency": currency,
        "custom_fields": None,
        "customer": customer["id"],
        "customer_account": None,
        "customer_address": customer["address"],
        "customer_email": customer["email"],
        "customer_name": customer["name"],
        "customer_phone": customer["phone"],
        "customer_shipping": customer["shipping"],
        "customer_tax_exempt": customer["tax_exempt"],
        "customer_tax_ids": [],
        "default_payment_method": None,
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "due_date": None,
        "effective_at": None,
        "ending_balance": None,
        "footer": customer["invoice_settings"]["footer"],
        "from_invoice": None,
        "hosted_invoice_url": None,
        "invoice_pdf": None,
        "issuer": {"type": "self"},
        "last_finalization_error": None,
        "latest_revision": None,
        "lines": inline(lines, f"/v1/invoices/{invoice_id}/lines"),
        "livemode": False,
        "metadata": {},
        "next_payment_attempt": now + DRAFT_SECONDS if auto_advance else None,
        "number": None,
        "on_behalf_of": None,
        "parent": parent,
        "payment_settings": {"default_mandate": None, "payment_method_options": None, "payment_method_types": None},
        "payments": inline([], f"/v1/invoice_payments?invoice={invoice_id}"),
        "period_end": period[1],
        "period_start": period[0],
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "receipt_number": None,
        "rendering": None,
        "shipping_cost": None,
        "shipping_details": None,
        "starting_balance": 0,
        "statement_descriptor": None,
        "status": "draft",
        "status_transitions": {
            "finalized_at": None,
            "marked_uncollectible_at": None,
            "paid_at": None,
            "voided_at": None,
        },
        "subtotal": subtotal,
        "subtotal_excluding_tax": subtotal,
        "test_clock": customer["test_clock"],
        "total": subtotal,
        "total_discount_amounts": [],
        "total_excluding_tax": subtotal,
        "total_pretax_credit_amounts": [],
        "total_taxes": [],
        "webhooks_delivered_at": None,
    }
    return ctx.create(invoice, "invoice.created")


def finalize(ctx: Context, invoice: Json) -> Json:
    """Gives the draft its number and links; an invoice of nothing is paid at once. Changes it in place."""
    before = ctx.need(invoice["customer"], "customer")
    sequence = before["next_invoice_sequence"]
    ctx.store.put(before | {"next_invoice_sequence": sequence + 1})
    now = ctx.now_of(before)
    token = f"test_{invoice['id'].removeprefix('in_')}{secrets.token_hex(8)}"
    link = f"{ctx.base_url}/i/{invoice['id']}/{token}"
    invoice |= {
        "number": f"{before['invoice_prefix']}-{sequence:04d}",
        "status": "open",
        "effective_at": now,
        "hosted_invoice_url": link,
        "invoice_pdf": f"{link}/pdf",
        "automatically_finalizes_at": None,
        "ending_balance": 0,
        "next_payment_attempt": now if invoice["auto_advance"] and invoice["amount_due"] else None,
        "status_transitions": invoice["status_transitions"] | {"finalized_at": now},
        "_token": token,
    }
    ctx.store.cancel_jobs(invoice["id"], "finalize")
    if invoice["amount_due"]:
        collection.request_payment(ctx, invoice)
    ctx.save(invoice, "invoice.finalized")
    if not invoice["amount_due"]:
        collection.mark_paid(ctx, invoice)
    return invoice


def finalize_due(ctx: Context, invoice_id: str) -> None:
    """What an automatic invoice does when its draft time is over: finalize and collect."""
    invoice = ctx.need(invoice_id, "invoice")
    if invoice["status"] != "draft":
        return
    finalize(ctx, invoice)
    if invoice["status"] == "open":
        collection.attempt(ctx, invoice)


def void(ctx: Context, invoice: Json) -> Json:
    ctx.store.cancel_jobs(invoice["id"])
    invoice |= {
        "status": "void",
        "auto_advance": False,
        "amount_remaining": 0,
        "next_payment_attempt": None,
        "status_transitions": invoice["status_transitions"] | {"voided_at": ctx.now_of(invoice["customer"])},
    }
    return ctx.save(invoice, "invoice.voided")


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
        "footer": text,
        "metadata": metadata,
        "pending_invoice_items_behavior": choice("include", "exclude", "include_and_require"),
        "payment_settings": anything,
    },
    ["customer"],
)
def create(ctx: Context, params: Json) -> Json:
    """An invoice by hand, of the customer's pending items."""
    customer = ctx.need(params["customer"], "customer", param="customer")
    lines: list[Json] = []
    if params.get("pending_invoice_items_behavior") != "exclude":
        lines = invoice_items.take_pending(ctx, customer["id"], None)
    currency = params.get("currency") or (lines[0]["currency"] if lines else customer["currency"] or "usd")
    now = ctx.now_of(customer)
    invoice = draft(
        ctx,
        customer,
        lines,
        reason="manual",
        currency=currency,
        period=(now, now),
        auto_advance=bool(params.get("auto_advance", False)),
    )
    invoice = apply(invoice, params, ("description", "footer", "default_payment_method", "collection_method"))
    if params.get("days_until_due") is not None:
        invoice["due_date"] = now + params["days_until_due"] * 24 * HOUR
    if invoice["auto_advance"]:
        ctx.store.schedule(invoice["id"], "finalize", customer["test_clock"], now + DRAFT_SECONDS)
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
    return finalize(ctx, found)


@post(
    "/v1/invoices/{invoice}/pay",
    {"payment_method": text, "paid_out_of_band": boolean, "off_session": boolean, "forgive": boolean, "source": text},
)
def pay(ctx: Context, params: Json, invoice: str) -> Json:
    """Collects now. Raises card_error when declined; the try stays on record."""
    found = ctx.need(invoice, "invoice")
    if found["status"] == "draft":
        finalize(ctx, found)
    if found["status"] == "paid":
        if found["amount_due"]:
            raise invalid("Invoice is already paid", code="invoice_already_paid")
        return found
    if found["status"] != "open":
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


@post("/v1/invoices/{invoice}/void")
def void_route(ctx: Context, params: Json, invoice: str) -> Json:
    found = ctx.need(invoice, "invoice")
    if found["status"] not in ("open", "uncollectible"):
        raise invalid("You can only pass in open or uncollectible invoices.", code="invoice_not_editable")
    return void(ctx, found)


@post("/v1/invoices/{invoice}/mark_uncollectible")
def mark_uncollectible(ctx: Context, params: Json, invoice: str) -> Json:
    found = ctx.need(invoice, "invoice")
    if found["status"] != "open":
        raise invalid("You can only mark open invoices as uncollectible.", code="invoice_not_editable")
    ctx.store.cancel_jobs(invoice)
    moved = found["status_transitions"] | {"marked_uncollectible_at": ctx.now_of(found["customer"])}
    found |= {
        "status": "uncollectible",
        "auto_advance": False,
        "next_payment_attempt": None,
        "status_transitions": moved,
    }
    return ctx.save(found, "invoice.marked_uncollectible")


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
