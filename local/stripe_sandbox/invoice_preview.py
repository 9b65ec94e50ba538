"""Previews: the invoice that a change or the next renewal would make. They are made for real, read, and undone."""

from __future__ import annotations

from . import discounts, ids, invoice_items, invoice_totals, lifecycle, plan_change, subscription_start, subscriptions
from .context import Context
from .errors import ApiError, invalid
from .invoice_lines import amount_of
from .params import anything, array, boolean, choice, integer, metadata, record, text
from .routing import post
from .store import Json

_DETAILS = record(
    {
        **plan_change.FIELDS,
        "cancel_at": subscriptions.cancel_time,
        "cancel_at_period_end": boolean,
        "cancel_now": boolean,
        "billing_mode": anything,
        "metadata": metadata,
        "resume_at": choice("now"),
    }
)
_ITEM = record(
    {
        "amount": integer,
        "currency": text,
        "description": text,
        "discountable": boolean,
        "metadata": metadata,
        "period": record({"start": integer, "end": integer}),
        "price": text,
        "quantity": integer,
    }
)


@post(
    "/v1/invoices/create_preview",
    {
        "automatic_tax": anything,
        "currency": text,
        "customer": text,
        "discounts": discounts.PARAM,
        "invoice_items": array(_ITEM),
        "preview_mode": choice("next", "recurring"),
        "subscription": text,
        "subscription_details": _DETAILS,
    },
)
def create_preview(ctx: Context, params: Json) -> Json:
    with ctx.rehearsal():
        invoice = _made(ctx, params)
    return _as_preview(invoice)


def upcoming_due(ctx: Context, subscription_id: str) -> None:
    """Tells the next renewal some days before."""
    with ctx.rehearsal():
        invoice = _upcoming(ctx, ctx.need(subscription_id, "subscription"))
    if invoice is not None:
        ctx.emit("invoice.upcoming", _as_preview(invoice))


def _as_preview(invoice: Json) -> Json:
    suffix = invoice["id"].removeprefix("in_")
    preview_id = f"upcoming_in_{suffix}"
    for line in invoice["lines"]["data"]:
        line |= {"id": line["id"].replace("il_", "il_tmp_"), "invoice": preview_id}
    return invoice | {"id": preview_id, "lines": invoice["lines"] | {"url": f"/v1/invoices/{preview_id}/lines"}}


def _none(customer: str) -> ApiError:
    return ApiError(
        f"No upcoming invoices for customer: {customer}", status=404, code="invoice_upcoming_none", param="customer"
    )


def _made(ctx: Context, params: Json) -> Json:
    details = params.get("subscription_details") or {}
    if params.get("subscription"):
        subscription = ctx.need(params["subscription"], "subscription", param="subscription")
        if params.get("customer") not in (None, subscription["customer"]):
            raise invalid(f"No such subscription: '{subscription['id']}'", "subscription", "resource_missing")
        customer = ctx.need(subscription["customer"], "customer")
    elif params.get("customer"):
        customer = ctx.need(params["customer"], "customer", param="customer")
        subscription = None
    else:
        raise invalid("You must provide a customer or a subscription.", "customer", "parameter_missing")
    for i, item in enumerate(params.get("invoice_items") or []):
        _add(ctx, customer, subscription, item, i)
    invoice = _of_subscription(ctx, subscription, details) if subscription else _of_customer(ctx, customer, details)
    if invoice is None:
        raise _none(customer["id"])
    if "discounts" in params:
        offers = discounts.offered(
            ctx, params["discounts"], customer, amount=invoice["subtotal"], currency=invoice["currency"]
        )
        invoice["discounts"] = discounts.redeem(ctx, offers, customer, invoice=invoice["id"])
        invoice_totals.reckon(ctx, invoice)
    return invoice


def _add(ctx: Context, customer: Json, subscription: Json | None, item: Json, i: int) -> None:
    price = ctx.need(item["price"], "price", param=f"invoice_items[{i}][price]") if item.get("price") else None
    quantity = item.get("quantity") or 1
    amount = amount_of(price, quantity) if price else item.get("amount")
    if amount is None:
        raise invalid("Missing required param: amount.", f"invoice_items[{i}][amount]", "parameter_missing")
    now = ctx.now_of(customer)
    period = item.get("period") or {}
    invoice_items.add(
        ctx,
        customer["id"],
        amount=amount,
        currency=price["currency"] if price else item.get("currency") or customer["currency"] or "usd",
        description=item.get("description"),
        period=(period.get("start") or now, period.get("end") or now),
        price=price,
        quantity=quantity,
        subscription=subscription["id"] if subscription else None,
    )


def _of_subscription(ctx: Context, before: Json, details: Json) -> Json | None:
    if before["ended_at"] is not None:
        return None
    behavior = details.get("proration_behavior") or "create_prorations"
    if details.get("cancel_now"):
        return lifecycle.close(ctx, before, prorate=behavior != "none")
    if details.get("resume_at") == "now":
        return lifecycle.resume(ctx, before)
    after = dict(before)
    if "cancel_at_period_end" in details or "cancel_at" in details:
        subscriptions.set_cancellation(ctx, after, details)
    change = plan_change.apply_to(ctx, after, details) if plan_change.asked(details) else plan_change.Change()
    ctx.save(after)
    return change.draft(ctx, after) or _upcoming(ctx, after)


def _upcoming(ctx: Context, subscription: Json) -> Json | None:
    if subscription["status"] in ("canceled", "incomplete", "incomplete_expired", "paused"):
        return None
    ctx.as_of[subscription["test_clock"] or ""] = lifecycle.next_turn(subscription)
    return lifecycle.turn(ctx, subscription)


def _of_customer(ctx: Context, customer: Json, details: Json) -> Json | None:
    """Of a subscription that does not exist yet, or of the one that turns next."""
    if details.get("items"):
        items = subscription_start.chosen_items(ctx, details["items"], "subscription_details[items]")
        subscription = subscription_start.start(
            ctx,
            customer,
            items,
            trial_end=subscription_start.trial_from(details, ctx.now_of(customer)),
            behavior="default_incomplete",
        )
        return ctx.need(subscription["latest_invoice"], "invoice") | {"id": ids.new("in"), "status": "draft"}
    live = [one for one in ctx.store.all("subscription", customer=customer["id"]) if one["ended_at"] is None]
    for subscription in sorted(live, key=lifecycle.next_turn):
        return _upcoming(ctx, subscription)
    return None
