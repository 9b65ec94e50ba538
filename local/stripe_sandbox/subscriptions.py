"""Subscriptions: started, changed, cancelled, resumed. What time does to them is `lifecycle`."""

from __future__ import annotations

from typing import Any

from . import collection, ids, invoice_items, invoices, lifecycle
from .context import Context
from .errors import ApiError, absent_parameter, invalid
from .fields import apply, merged_metadata
from .invoice_lines import amount_of, line
from .lists import Condition, equals, inline, page, time_range
from .params import TIME_RANGE, anything, array, boolean, choice, integer, metadata, now_or_time, record, text
from .payment_methods import card_of, resolve
from .periods import DAY, HOUR, next_end
from .prices import plan_of
from .routing import delete, get, listing, post
from .store import Json
from .subscription_status import end

_DETAILS = record({"comment": text, "feedback": text})
_TRIAL_SETTINGS = record(
    {"end_behavior": record({"missing_payment_method": choice("cancel", "create_invoice", "pause")})}
)
_ITEM = record(
    {
        "id": text,
        "price": text,
        "quantity": integer,
        "metadata": metadata,
        "deleted": boolean,
        "clear_usage": boolean,
    }
)
SHARED = {
    "automatic_tax": record({"enabled": boolean}),
    "cancel_at": anything,
    "cancel_at_period_end": boolean,
    "collection_method": choice("charge_automatically"),
    "default_payment_method": text,
    "description": text,
    "items": array(_ITEM),
    "metadata": metadata,
    "off_session": boolean,
    "payment_behavior": choice("allow_incomplete", "default_incomplete", "error_if_incomplete"),
    "payment_settings": anything,
    "proration_behavior": choice("always_invoice", "create_prorations", "none"),
    "trial_end": now_or_time,
    "trial_settings": _TRIAL_SETTINGS,
}
FIRST_PAYMENT_SECONDS = 23 * HOUR


def make_item(
    ctx: Context, subscription_id: str, price: Json, quantity: int, start: int, anchor: int, meta: Any
) -> Json:
    recurring = price["recurring"]
    return {
        "id": ids.new("si"),
        "object": "subscription_item",
        "billing_thresholds": None,
        "created": start,
        "current_period_end": next_end(anchor, start, recurring["interval"], recurring["interval_count"]),
        "current_period_start": start,
        "discounts": [],
        "metadata": merged_metadata({}, meta or {}),
        "plan": plan_of(price),
        "price": price,
        "quantity": quantity,
        "subscription": subscription_id,
        "tax_rates": [],
    }


def recurring_price(ctx: Context, price_id: str, param: str) -> Json:
    price = ctx.need(price_id, "price", param=param)
    if price["recurring"] is None:
        raise invalid(
            f"The price specified is set to `type=one_time` but this field only accepts prices with"
            f" `type=recurring`: {price_id}",
            param,
        )
    if price["recurring"]["usage_type"] == "metered":
        raise invalid("This sandbox bills licensed prices only.", param)
    if not price["active"]:
        raise invalid("The price specified is inactive. This field only accepts active prices.", param)
    return price


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
) -> Json:
    """Creates a subscription and its first invoice, and collects it. Raises card_error for `error_if_incomplete`.

    `items` are {price: object, quantity, metadata}. A trial makes an invoice of nothing.
    """
    now = ctx.now_of(customer)
    trialing = trial_end is not None and trial_end > now
    anchor = trial_end if trialing and trial_end is not None else now
    subscription_id, invoice_id = ids.new("sub"), ids.new("in")
    made = [
        make_item(ctx, subscription_id, item["price"], item.get("quantity") or 1, now, anchor, item.get("metadata"))
        for item in items
    ]
    if len({item["price"]["currency"] for item in made}) > 1:
        raise invalid("All prices on a subscription must have the same currency.", "items")
    if trialing:
        for item in made:
            item["current_period_end"] = anchor
    waiting = invoice_items.take_pending(ctx, customer["id"], subscription_id)
    due = max(0, sum(entry["amount"] for entry in waiting) + (0 if trialing else sum(_amount(item) for item in made)))
    chosen = method or customer["invoice_settings"]["default_payment_method"]
    refusal = card_of(ctx.need(chosen, "payment_method")).refusal(on_session=on_session) if chosen else None
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
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
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
        "discounts": [],
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
            "save_default_payment_method": "off",
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
    }
    ctx.create(subscription, "customer.subscription.created")
    lines = waiting + [_first_line(ctx, subscription, item, trialing) for item in made]
    invoice = invoices.draft(
        ctx,
        customer,
        lines,
        reason="subscription_create",
        currency=subscription["currency"],
        period=(now, now),
        subscription=subscription,
        invoice_id=invoice_id,
    )
    invoices.finalize(ctx, invoice)
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


def _amount(item: Json) -> int:
    return amount_of(item["price"], item["quantity"])


def _first_line(ctx: Context, subscription: Json, item: Json, trialing: bool) -> Json:
    product = ctx.need(item["price"]["product"], "product")
    return line(
        item,
        item["price"],
        product,
        quantity=item["quantity"],
        period=(item["current_period_start"], item["current_period_end"]),
        amount=0 if trialing else None,
        description=f"Trial period for {product['name']}" if trialing else None,
        subscription=subscription["id"],
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


@post(
    "/v1/subscriptions",
    {
        **SHARED,
        "customer": text,
        "currency": text,
        "trial_period_days": integer,
        "billing_mode": record({"type": choice("classic", "flexible")}, required=["type"]),
    },
    ["customer"],
)
def create(ctx: Context, params: Json) -> Json:
    customer = ctx.need(params["customer"], "customer", param="customer")
    if not params.get("items"):
        raise absent_parameter("items")
    chosen: list[Json] = []
    for i, item in enumerate(params["items"]):
        if not item.get("price"):
            raise absent_parameter(f"items[{i}][price]")
        price = recurring_price(ctx, item["price"], f"items[{i}][price]")
        chosen.append({"price": price, "quantity": item.get("quantity"), "metadata": item.get("metadata")})
    method = None
    if params.get("default_payment_method"):
        method = resolve(ctx, params["default_payment_method"], param="default_payment_method")["id"]
    behavior = (params.get("trial_settings") or {}).get("end_behavior") or {}
    subscription = start(
        ctx,
        customer,
        chosen,
        method=method,
        trial_end=trial_from(params, ctx.now_of(customer)),
        meta=params.get("metadata"),
        behavior=params.get("payment_behavior") or "allow_incomplete",
        mode=(params.get("billing_mode") or {}).get("type") or "flexible",
        description=params.get("description"),
        missing_method=behavior.get("missing_payment_method") or "create_invoice",
    )
    if params.get("cancel_at_period_end") or params.get("cancel_at"):
        changed = dict(subscription)
        _set_cancellation(ctx, changed, params)
        ctx.save(changed)
        lifecycle.schedule(ctx, changed)
        return changed
    return subscription


@get("/v1/subscriptions/{subscription}")
def retrieve(ctx: Context, params: Json, subscription: str) -> Json:
    return ctx.need(subscription, "subscription")


@listing(
    "/v1/subscriptions",
    {
        "customer": text,
        "price": text,
        "status": choice(
            "active",
            "all",
            "canceled",
            "ended",
            "incomplete",
            "incomplete_expired",
            "past_due",
            "paused",
            "trialing",
            "unpaid",
        ),
        "collection_method": choice("charge_automatically", "send_invoice"),
        "current_period_end": TIME_RANGE,
        "current_period_start": TIME_RANGE,
        "test_clock": text,
    },
)
def listed(ctx: Context, params: Json) -> Json:
    where: list[Condition] = []
    if params.get("customer"):
        where.append(equals("customer", params["customer"]))
    status = params.get("status")
    if status is None:
        # Stripe leaves out what is canceled unless asked.
        where.append(("json_extract(body, '$.status') != 'canceled'", []))
    elif status == "ended":
        where.append(("json_extract(body, '$.status') IN ('canceled', 'incomplete_expired')", []))
    elif status != "all":
        where.append(equals("status", status))
    if params.get("price"):
        where.append(equals("items.data[0].price.id", params["price"]))
    if params.get("collection_method"):
        where.append(equals("collection_method", params["collection_method"]))
    for name in ("current_period_end", "current_period_start"):
        if params.get(name) is not None:
            where += time_range(f"json_extract(body, '$.items.data[0].{name}')", params[name])
    if params.get("test_clock"):
        where.append(equals("test_clock", params["test_clock"]))
    elif not params.get("customer"):
        where.append(("json_extract(body, '$.test_clock') IS NULL", []))
    return page(ctx, "subscription", params, "/v1/subscriptions", where)


def _set_cancellation(ctx: Context, subscription: Json, params: Json) -> None:
    ends = [item["current_period_end"] for item in subscription["items"]["data"]]
    when: int | None
    if params.get("cancel_at_period_end"):
        when, flag = max(ends), True
    elif params.get("cancel_at") is not None and params["cancel_at"] != "":
        named = {"min_period_end": min(ends), "max_period_end": max(ends)}
        when = named.get(params["cancel_at"]) or integer(params["cancel_at"], "cancel_at")
        flag = subscription["billing_mode"]["type"] == "classic" and when in ends
        if when is not None and when <= ctx.now_of(subscription["customer"]):
            raise invalid("cancel_at must be a timestamp in the future.", "cancel_at")
    else:
        when, flag = None, False
    asked = when is not None
    subscription |= {
        "cancel_at": when,
        "cancel_at_period_end": flag,
        "canceled_at": ctx.now_of(subscription["customer"]) if asked else None,
        "cancellation_details": subscription["cancellation_details"]
        | {"reason": "cancellation_requested" if asked else None},
    }


@post(
    "/v1/subscriptions/{subscription}",
    {
        **SHARED,
        "billing_cycle_anchor": choice("now", "unchanged"),
        "cancellation_details": _DETAILS,
        "proration_date": integer,
    },
)
def update(ctx: Context, params: Json, subscription: str) -> Json:
    before = ctx.need(subscription, "subscription")
    final = before["status"] in ("canceled", "incomplete_expired")
    if final and set(params) - {"cancellation_details", "metadata"}:
        raise ApiError("A canceled subscription can only update its cancellation_details and metadata.")
    after = apply(before, params, ("description",))
    if params.get("cancellation_details"):
        after["cancellation_details"] = before["cancellation_details"] | params["cancellation_details"]
    if "default_payment_method" in params:
        given = params["default_payment_method"]
        if given is not None:
            method = ctx.need(given, "payment_method", param="default_payment_method")
            if method["customer"] != before["customer"]:
                raise invalid(
                    "The payment method must be attached to the subscription's customer.", "default_payment_method"
                )
        after["default_payment_method"] = given
    if params.get("trial_settings"):
        after["trial_settings"] = {
            "end_behavior": before["trial_settings"]["end_behavior"] | params["trial_settings"]["end_behavior"]
        }
    if "cancel_at_period_end" in params or "cancel_at" in params:
        _set_cancellation(ctx, after, params)
    if params.get("trial_end") == "now" and before["status"] == "trialing":
        after["trial_end"] = now = ctx.now_of(before["customer"])
        if lifecycle.trial_over(ctx, after, now):
            return ctx.need(subscription, "subscription")
    change = None
    if params.get("items") or params.get("trial_end") is not None or params.get("billing_cycle_anchor") == "now":
        from . import plan_change

        change = plan_change.apply_to(ctx, after, params)
    ctx.save(after, "customer.subscription.updated", before)
    lifecycle.schedule(ctx, after)
    if change is not None:
        change.collect(ctx, after, params.get("payment_behavior") or "allow_incomplete")
    return ctx.need(subscription, "subscription")


@delete(
    "/v1/subscriptions/{subscription}",
    {"cancellation_details": _DETAILS, "invoice_now": boolean, "prorate": boolean},
)
def cancel(ctx: Context, params: Json, subscription: str) -> Json:
    found = ctx.need(subscription, "subscription")
    if found["status"] in ("canceled", "incomplete_expired"):
        raise ApiError(f"No such subscription: '{subscription}'", status=404, code="resource_missing", param="id")
    return end(ctx, found, reason="cancellation_requested", details=params.get("cancellation_details"))


@post(
    "/v1/subscriptions/{subscription}/resume",
    {"billing_cycle_anchor": choice("now", "unchanged"), "proration_behavior": text},
)
def resume(ctx: Context, params: Json, subscription: str) -> Json:
    return lifecycle.resume(ctx, ctx.need(subscription, "subscription"))


@post("/v1/subscriptions/{subscription}/pause", lenient=True)
def pause(ctx: Context, params: Json, subscription: str) -> Json:
    found = ctx.need(subscription, "subscription")
    if found["status"] not in ("active", "trialing", "past_due"):
        raise invalid(f"A subscription with status {found['status']} cannot be paused.")
    return lifecycle.pause(ctx, found, "pause_requested")


@listing("/v1/subscription_items", {"subscription": text})
def listed_items(ctx: Context, params: Json) -> Json:
    if not params.get("subscription"):
        raise absent_parameter("subscription")
    found: Json = ctx.need(params["subscription"], "subscription", param="subscription")["items"]
    return {key: value for key, value in found.items() if key != "total_count"}
