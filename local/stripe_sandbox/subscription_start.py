"""How a subscription begins: its items, its first invoice, its first payment or its trial."""

from __future__ import annotations

from . import collection, discounts, events, ids, invoice_items, invoice_life, invoice_totals, lifecycle
from .context import Context
from .discounts import Offer
from .errors import absent_parameter, invalid
from .fields import merged_metadata
from .invoice_lines import amount_of, item_line, line
from .lists import inline
from .payment_methods import refusal_of
from .periods import DAY, HOUR, next_end
from .prices import plan_of
from .store import Json
from .usage_lines import is_metered

FIRST_PAYMENT_SECONDS = 23 * HOUR


def make_item(
    subscription_id: str, price: Json, quantity: int | None, start: int, anchor: int, meta: dict[str, str] | None
) -> Json:
    recurring = price["recurring"]
    item: Json = {
        "id": ids.new("si"),
        "object": "subscription_item",
        "billing_thresholds": None,
        "created": start,
        "current_period_end": next_end(anchor, start, recurring["interval"], recurring["interval_count"]),
        "current_period_start": start,
        "discounts": [],
        "metadata": merged_metadata({}, meta or {}),
        "plan": plan_of(price),
        "price": events.snapshot(price),
        "subscription": subscription_id,
        "tax_rates": [],
    }
    if recurring["usage_type"] == "licensed":
        item["quantity"] = 1 if quantity is None else quantity
    elif quantity is not None:
        raise invalid("Quantities of metered prices come from their meter.", "quantity")
    return item


def recurring_price(ctx: Context, price_id: str, param: str) -> Json:
    price = ctx.need(price_id, "price", param=param)
    if price["recurring"] is None:
        raise invalid(
            f"The price specified is set to `type=one_time` but this field only accepts prices with"
            f" `type=recurring`: {price_id}",
            param,
        )
    if not price["active"]:
        raise invalid("The price specified is inactive. This field only accepts active prices.", param)
    return price


def chosen_items(ctx: Context, given: list[Json], name: str = "items") -> list[Json]:
    """The items of a new subscription, as `start` takes them."""
    chosen: list[Json] = []
    for i, item in enumerate(given):
        if not item.get("price"):
            raise absent_parameter(f"{name}[{i}][price]")
        price = recurring_price(ctx, item["price"], f"{name}[{i}][price]")
        chosen.append({"price": price, "quantity": item.get("quantity"), "metadata": item.get("metadata")})
    return chosen


def first_amount(items: list[Json]) -> int:
    """What these items cost for their first period, before discounts; of metered ones nothing is known yet."""
    licensed = [item for item in items if item["price"]["recurring"]["usage_type"] == "licensed"]
    return sum(amount_of(item["price"], item.get("quantity") or 1) for item in licensed)


def start(
    ctx: Context,
    customer: Json,
    items: list[Json],
    *,
    method: str | None = None,
    trial_end: int | None = None,
    meta: dict[str, str] | None = None,
    behavior: str = "allow_incomplete",
    mode: str = "flexible",
    description: str | None = None,
    missing_method: str = "create_invoice",
    on_session: bool = False,
    offers: list[Offer] | None = None,
    session: str | None = None,
    taxed: bool = False,
    keeps_method: bool = False,
) -> Json:
    """Creates a subscription and its first invoice, and collects it. Raises card_error for `error_if_incomplete`.

    `items` are {price: object, quantity, metadata}. A trial makes an invoice of nothing.
    """
    now = ctx.now_of(customer)
    trialing = trial_end is not None and trial_end > now
    anchor = trial_end if trialing and trial_end is not None else now
    subscription_id, invoice_id = ids.new("sub"), ids.new("in")
    made = [
        make_item(subscription_id, item["price"], item.get("quantity"), now, anchor, item.get("metadata"))
        for item in items
    ]
    if len({item["price"]["currency"] for item in made}) > 1:
        raise invalid("All prices on a subscription must have the same currency.", "items")
    if trialing:
        for item in made:
            item["current_period_end"] = anchor
    redeemed = discounts.redeem(ctx, offers or [], customer, subscription=subscription_id, session=session)
    lines = invoice_items.take_pending(ctx, customer["id"], subscription_id)
    lines += [_first_line(ctx, subscription_id, item, trialing) for item in made if not is_metered(item)]
    own = [customer["discount"]["id"]] if customer["discount"] else []
    applied = redeemed or discounts.running(ctx, own, now)
    due = invoice_totals.due(ctx, customer, lines, applied, taxed=taxed)
    chosen = method or customer["invoice_settings"]["default_payment_method"]
    refusal = refusal_of(ctx.need(chosen, "payment_method"), on_session=on_session) if chosen else None
    pays = due == 0 or (chosen is not None and refusal is None)
    if due and behavior == "default_incomplete":
        pays = False
    if due and not pays and behavior == "error_if_incomplete":
        if chosen is None:
            raise invalid(
                "This customer has no attached payment source or default payment method.", code="resource_missing"
            )
        if refusal is not None:
            raise refusal
    subscription: Json = {
        "id": subscription_id,
        "object": "subscription",
        "application": None,
        "application_fee_percent": None,
        "automatic_tax": {
            "disabled_reason": None,
            "enabled": taxed,
            "liability": {"type": "self"} if taxed else None,
        },
        "billing_cycle_anchor": anchor,
        "billing_cycle_anchor_config": None,
        "billing_mode": {
            "flexible": {"proration_discounts": "included"} if mode == "flexible" else None,
            "type": mode,
            **({"updated_at": now} if mode == "flexible" else {}),
        },
        "billing_schedules": [],
        "billing_thresholds": None,
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": None,
        "cancellation_details": {"comment": None, "feedback": None, "reason": None},
        "collection_method": "charge_automatically",
        "created": now,
        "currency": made[0]["price"]["currency"],
        "customer": customer["id"],
        "customer_account": None,
        "days_until_due": None,
        "default_payment_method": method,
        "default_source": None,
        "default_tax_rates": [],
        "description": description,
        "discounts": redeemed,
        "ended_at": None,
        "invoice_settings": {"account_tax_ids": None, "issuer": {"type": "self"}},
        "items": inline(made, f"/v1/subscription_items?subscription={subscription_id}") | {"total_count": len(made)},
        "latest_invoice": invoice_id,
        "livemode": False,
        "metadata": merged_metadata({}, meta or {}),
        "next_pending_invoice_item_invoice": None,
        "on_behalf_of": None,
        "pause_collection": None,
        "payment_settings": {
            "payment_method_options": None,
            "payment_method_types": None,
            "save_default_payment_method": "on_subscription" if keeps_method else "off",
        },
        "pending_invoice_item_interval": None,
        "pending_setup_intent": None,
        "pending_update": None,
        "schedule": None,
        "start_date": now,
        "status": "trialing" if trialing else ("active" if pays else "incomplete"),
        "test_clock": customer["test_clock"],
        "transfer_data": None,
        "trial_end": trial_end if trialing else None,
        "trial_settings": {"end_behavior": {"missing_payment_method": missing_method}},
        "trial_start": now if trialing else None,
        "_net": {},
    }
    ctx.create(subscription, "customer.subscription.created")
    invoice = invoice_life.draft(
        ctx,
        customer,
        lines,
        reason="subscription_create",
        currency=subscription["currency"],
        period=(now, now),
        subscription=subscription,
        invoice_id=invoice_id,
    )
    invoice_life.finalize(ctx, invoice)
    if invoice["status"] == "open" and behavior != "default_incomplete":
        collection.attempt(
            ctx, invoice, ctx.store.get(chosen, "payment_method") if chosen else None, on_session=on_session
        )
    if customer["currency"] is None:
        current = ctx.need(customer["id"], "customer")
        ctx.save(current | {"currency": subscription["currency"]}, "customer.updated", current)
    subscription = ctx.need(subscription_id, "subscription")
    if subscription["status"] == "incomplete":
        ctx.store.schedule(subscription_id, "expire", customer["test_clock"], now + FIRST_PAYMENT_SECONDS)
    lifecycle.schedule(ctx, subscription)
    if trialing and trial_end is not None:
        ctx.store.schedule(subscription_id, "trial_will_end", customer["test_clock"], max(now, trial_end - 3 * DAY))
    return subscription


def _first_line(ctx: Context, subscription_id: str, item: Json, trialing: bool) -> Json:
    if not trialing:
        return item_line(ctx, item, subscription_id)
    product = ctx.need(item["price"]["product"], "product")
    return line(
        item,
        item["price"],
        product,
        quantity=item["quantity"],
        period=(item["current_period_start"], item["current_period_end"]),
        amount=0,
        description=f"Trial period for {product['name']}",
        subscription=subscription_id,
    )


def trial_from(params: Json, now: int) -> int | None:
    """The trial's end from `trial_end` or `trial_period_days`."""
    if params.get("trial_period_days") is not None:
        if params["trial_period_days"] < 1:
            raise invalid("Trial period days must be at least 1.", "trial_period_days")
        return now + int(params["trial_period_days"]) * DAY
    if params.get("trial_end") in (None, "now"):
        return None
    if params["trial_end"] <= now:
        raise invalid("The trial end must be in the future.", "trial_end")
    return int(params["trial_end"])
