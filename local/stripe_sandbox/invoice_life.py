"""An invoice's life: a draft, then open with a number and its links, then paid, void or uncollectible."""

from __future__ import annotations

import secrets

from . import collection, discounts, ids, invoice_totals, subscription_status, usage_lines
from .context import Context
from .lists import inline
from .periods import HOUR
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
    discount_ids: list[str] | None = None,
    usage: list[Json] | None = None,
) -> Json:
    """A draft invoice with its event. The caller schedules or runs finalization.

    `discount_ids` are the subscription's unless given. `usage` are the metered items and periods among the lines,
    counted again at finalization. What the subscription keeps of its discounts and what its items cost is set in place.
    """
    invoice_id = invoice_id or ids.new("in")
    if discount_ids is None:
        discount_ids = subscription["discounts"] if subscription is not None else []
        discount_ids = discount_ids or _of_customer(ctx, customer)
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
        "amount_due": 0,
        "amount_overpaid": 0,
        "amount_paid": 0,
        "amount_remaining": 0,
        "amount_shipping": 0,
        "application": None,
        "attempt_count": 0,
        "attempted": False,
        "auto_advance": auto_advance,
        "automatic_tax": invoice_totals.automatic_tax(
            enabled=subscription is not None and subscription["automatic_tax"]["enabled"]
        ),
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
        "discounts": list(discount_ids),
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
        "subtotal": 0,
        "subtotal_excluding_tax": 0,
        "test_clock": customer["test_clock"],
        "total": 0,
        "total_discount_amounts": [],
        "total_excluding_tax": 0,
        "total_pretax_credit_amounts": [],
        "total_taxes": [],
        "webhooks_delivered_at": None,
        "_usage": usage or [],
    }
    invoice_totals.reckon(ctx, invoice)
    ctx.create(invoice, "invoice.created")
    _end_used_up(ctx, invoice, subscription)
    if subscription is not None:
        _note(ctx, subscription, invoice)
    return invoice


def _of_customer(ctx: Context, customer: Json) -> list[str]:
    """The customer's own discount, while it runs."""
    discount = ctx.need(customer["id"], "customer")["discount"]
    return discounts.running(ctx, [discount["id"]], ctx.now_of(customer)) if discount is not None else []


def _end_used_up(ctx: Context, invoice: Json, subscription: Json | None) -> None:
    """Takes discounts that this invoice used up from its subscription (in place) or its customer."""
    going_on = discounts.after_invoice(ctx, invoice)
    gone = [one for one in invoice["discounts"] if one not in going_on]
    if subscription is not None:
        subscription["discounts"] = [one for one in subscription["discounts"] if one not in gone]
    customer = ctx.need(invoice["customer"], "customer")
    if customer["discount"] is not None and customer["discount"]["id"] in gone:
        ctx.save(customer | {"discount": None}, "customer.updated", customer)


def _note(ctx: Context, subscription: Json, invoice: Json) -> None:
    """Keeps with the subscription what its items were billed for their whole period."""
    billed = dict(subscription.get("_net") or {})
    metered = {one["item"]["id"] for one in invoice["_usage"]}
    for line in invoice["lines"]["data"]:
        details = (line["parent"] or {}).get("subscription_item_details")
        if details is not None and details["subscription_item"] not in metered:
            billed[details["subscription_item"]] = line["amount"] - sum(d["amount"] for d in line["discount_amounts"])
    subscription["_net"] = billed
    ctx.store.put(subscription)


def finalize(ctx: Context, invoice: Json) -> Json:
    """Gives the draft its number and links; an invoice of nothing is paid at once. Changes it in place."""
    usage_lines.refresh(ctx, invoice)
    invoice_totals.settle_balance(ctx, invoice)
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
    subscription = subscription_status.of_invoice(ctx, invoice)
    paused = subscription["pause_collection"] if subscription is not None else None
    if paused is not None and paused["behavior"] == "keep_as_draft":
        ctx.save(invoice | _STOPPED, "invoice.updated", invoice)
        return
    finalize(ctx, invoice)
    if invoice["status"] != "open":
        return
    if paused is None:
        collection.attempt(ctx, invoice)
    elif paused["behavior"] == "void":
        void(ctx, invoice)
    else:
        write_off(ctx, invoice)


_STOPPED = {"auto_advance": False, "automatically_finalizes_at": None, "next_payment_attempt": None}


def void(ctx: Context, invoice: Json) -> Json:
    ctx.store.cancel_jobs(invoice["id"])
    invoice_totals.give_back_balance(ctx, invoice)
    invoice |= {
        "status": "void",
        "auto_advance": False,
        "amount_remaining": 0,
        "next_payment_attempt": None,
        "status_transitions": invoice["status_transitions"] | {"voided_at": ctx.now_of(invoice["customer"])},
    }
    return ctx.save(invoice, "invoice.voided")


def write_off(ctx: Context, invoice: Json) -> Json:
    """Marks the invoice uncollectible; nobody tries to collect it any more, but it can still be paid."""
    ctx.store.cancel_jobs(invoice["id"])
    moved = invoice["status_transitions"] | {"marked_uncollectible_at": ctx.now_of(invoice["customer"])}
    invoice |= {
        "status": "uncollectible",
        "auto_advance": False,
        "next_payment_attempt": None,
        "status_transitions": moved,
    }
    ctx.save(invoice, "invoice.marked_uncollectible")
    subscription_status.after_write_off(ctx, invoice)
    return invoice
