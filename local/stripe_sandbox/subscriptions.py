"""Subscriptions: started, changed, cancelled, resumed. What time does to them is `lifecycle`."""

from __future__ import annotations

from typing import Any

from . import discounts, invoice_life, lifecycle, plan_change, subscription_start
from .context import Context
from .errors import ApiError, absent_parameter, invalid
from .fields import apply
from .lists import Condition, equals, page, time_range
from .params import TIME_RANGE, anything, array, boolean, choice, integer, metadata, now_or_time, record, text
from .payment_methods import resolve
from .routing import delete, get, listing, post
from .store import Json

_DETAILS = record({"comment": text, "feedback": text})
_TRIAL_SETTINGS = record(
    {"end_behavior": record({"missing_payment_method": choice("cancel", "create_invoice", "pause")})}
)


def cancel_time(value: Any, name: str) -> int | str | None:
    return value if value in ("min_period_end", "max_period_end") else integer(value, name)


_PAUSE_COLLECTION = record(
    {"behavior": choice("keep_as_draft", "mark_uncollectible", "void"), "resumes_at": integer}, required=["behavior"]
)

_PAYMENT_SETTINGS = record(
    {
        "payment_method_options": anything,
        "payment_method_types": array(choice("card")),
        "save_default_payment_method": choice("off", "on_subscription"),
    }
)
SHARED = {
    "automatic_tax": record({"enabled": boolean}),
    "cancel_at": cancel_time,
    "cancel_at_period_end": boolean,
    "collection_method": choice("charge_automatically"),
    "default_payment_method": text,
    "description": text,
    "discounts": discounts.PARAM,
    "items": array(plan_change.ITEM),
    "metadata": metadata,
    "off_session": boolean,
    "payment_behavior": choice("allow_incomplete", "default_incomplete", "error_if_incomplete"),
    "payment_settings": _PAYMENT_SETTINGS,
    "proration_behavior": choice("always_invoice", "create_prorations", "none"),
    "trial_end": now_or_time,
    "trial_settings": _TRIAL_SETTINGS,
}


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
    chosen = subscription_start.chosen_items(ctx, params["items"])
    method = None
    if params.get("default_payment_method"):
        method = resolve(ctx, params["default_payment_method"], param="default_payment_method")["id"]
    behavior = (params.get("trial_settings") or {}).get("end_behavior") or {}
    offers = discounts.offered(
        ctx,
        params.get("discounts") or [],
        customer,
        amount=subscription_start.first_amount(chosen),
        currency=chosen[0]["price"]["currency"],
    )
    subscription = subscription_start.start(
        ctx,
        customer,
        chosen,
        method=method,
        trial_end=subscription_start.trial_from(params, ctx.now_of(customer)),
        meta=params.get("metadata"),
        behavior=params.get("payment_behavior") or "allow_incomplete",
        mode=(params.get("billing_mode") or {}).get("type") or "flexible",
        description=params.get("description"),
        missing_method=behavior.get("missing_payment_method") or "create_invoice",
        offers=offers,
        keeps_method=(params.get("payment_settings") or {}).get("save_default_payment_method") == "on_subscription",
        taxed=bool((params.get("automatic_tax") or {}).get("enabled")),
    )
    if params.get("cancel_at_period_end") or params.get("cancel_at"):
        changed = dict(subscription)
        set_cancellation(ctx, changed, params)
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


def set_cancellation(ctx: Context, subscription: Json, params: Json) -> None:
    ends = [item["current_period_end"] for item in subscription["items"]["data"]]
    when: int | None
    if params.get("cancel_at_period_end"):
        when, flag = max(ends), True
    elif params.get("cancel_at") is not None:
        when = {"min_period_end": min(ends), "max_period_end": max(ends)}.get(params["cancel_at"], params["cancel_at"])
        flag = subscription["billing_mode"]["type"] == "classic" and when in ends
        if when is not None and when <= ctx.now_of(subscription["customer"]):
            raise invalid("cancel_at must be a timestamp in the future.", "cancel_at")
    else:
        when, flag = None, False
    asked = when is not None
    prorated = (params.get("proration_behavior") or "create_prorations") != "none"
    subscription["_prorates_at_end"] = when is not None and when not in ends and prorated
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
        **plan_change.FIELDS,
        "cancellation_details": _DETAILS,
        "pause_collection": _PAUSE_COLLECTION,
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
        set_cancellation(ctx, after, params)
    if params.get("trial_end") == "now" and before["status"] == "trialing":
        after["trial_end"] = now = ctx.now_of(before["customer"])
        if lifecycle.trial_over(ctx, after, now):
            return ctx.need(subscription, "subscription")
    if params.get("payment_settings"):
        kept = params["payment_settings"].get("save_default_payment_method")
        if kept is not None:
            after["payment_settings"] = before["payment_settings"] | {"save_default_payment_method": kept}
    if params.get("automatic_tax"):
        taxed = bool(params["automatic_tax"].get("enabled"))
        liability = {"type": "self"} if taxed else None
        after["automatic_tax"] = {"disabled_reason": None, "enabled": taxed, "liability": liability}
    if "discounts" in params:
        _set_discounts(ctx, after, params["discounts"])
    if "pause_collection" in params:
        _set_pause(ctx, after, params["pause_collection"])
    change = plan_change.apply_to(ctx, after, params) if plan_change.asked(params) else plan_change.Change()
    if after["cancel_at_period_end"]:
        # A change may have moved the period's end, and the cancellation goes with it.
        after["cancel_at"] = max(item["current_period_end"] for item in after["items"]["data"])
    ctx.save(after, "customer.subscription.updated", before)
    lifecycle.schedule(ctx, after)
    change.collect(ctx, after, params.get("payment_behavior") or "allow_incomplete")
    return ctx.need(subscription, "subscription")


def _set_discounts(ctx: Context, subscription: Json, given: list[Json]) -> None:
    """Puts these in the place of those that there were; a discount named by its id stays."""
    customer = ctx.need(subscription["customer"], "customer")
    before = subscription["discounts"]
    stay = [one["discount"] for one in given if one.get("discount")]
    for i, one in enumerate(given):
        if one.get("discount") and one["discount"] not in before:
            raise invalid(f"No such discount: '{one['discount']}'", f"discounts[{i}][discount]", "resource_missing")
    offers = discounts.offered(
        ctx,
        [one for one in given if not one.get("discount")],
        customer,
        amount=subscription_start.first_amount(subscription["items"]["data"]),
        currency=subscription["currency"],
    )
    subscription["discounts"] = stay + discounts.redeem(ctx, offers, customer, subscription=subscription["id"])
    discounts.end(ctx, [one for one in before if one not in stay])


def _set_pause(ctx: Context, subscription: Json, given: Json | None) -> None:
    ctx.store.cancel_jobs(subscription["id"], "collect_again")
    if given is None:
        subscription["pause_collection"] = None
        return
    until = given.get("resumes_at")
    if until is not None:
        if until <= ctx.now_of(subscription["customer"]):
            raise invalid("resumes_at must be in the future.", "pause_collection[resumes_at]")
        ctx.store.schedule(subscription["id"], "collect_again", subscription["test_clock"], until)
    subscription["pause_collection"] = {"behavior": given["behavior"], "resumes_at": until}


@delete(
    "/v1/subscriptions/{subscription}",
    {"cancellation_details": _DETAILS, "invoice_now": boolean, "prorate": boolean},
)
def cancel(ctx: Context, params: Json, subscription: str) -> Json:
    found = ctx.need(subscription, "subscription")
    if found["status"] in ("canceled", "incomplete_expired"):
        raise ApiError(f"No such subscription: '{subscription}'", status=404, code="resource_missing", param="id")
    lifecycle.close(
        ctx,
        found,
        prorate=bool(params.get("prorate")),
        bill=bool(params.get("invoice_now")),
        at_once=True,
        details=params.get("cancellation_details"),
    )
    return ctx.need(subscription, "subscription")


@post(
    "/v1/subscriptions/{subscription}/resume",
    {"billing_cycle_anchor": record({"type": choice("now")}), "proration_behavior": text},
)
def resume(ctx: Context, params: Json, subscription: str) -> Json:
    """Starts a new period now and charges it at once."""
    draft = lifecycle.resume(ctx, ctx.need(subscription, "subscription"))
    invoice_life.finalize_due(ctx, draft["id"])
    return ctx.need(subscription, "subscription")


_FROM = {"unused_time_from": record({"type": choice("item_current_period_start", "none", "now")})}
_THROUGH = {"outstanding_usage_through": record({"type": choice("none", "now")})}


@post(
    "/v1/subscriptions/{subscription}/pause",
    {"bill_for": record(_FROM | _THROUGH), "invoicing_behavior": choice("pending_invoice_item"), "type": text},
)
def pause(ctx: Context, params: Json, subscription: str) -> Json:
    """Pauses at once; unused time is credited as pending invoice items unless `bill_for` says otherwise."""
    found = ctx.need(subscription, "subscription")
    if found["status"] not in ("active", "trialing", "past_due"):
        raise invalid(f"A subscription with status {found['status']} cannot be paused.")
    since = ((params.get("bill_for") or {}).get("unused_time_from") or {}).get("type") or "now"
    if since != "none":
        begin = min(item["current_period_start"] for item in found["items"]["data"])
        plan_change.credit_rest(ctx, found, ctx.now_of(found["customer"]) if since == "now" else begin)
    return lifecycle.pause(ctx, found, "pause_requested")


@listing("/v1/subscription_items", {"subscription": text})
def listed_items(ctx: Context, params: Json) -> Json:
    if not params.get("subscription"):
        raise absent_parameter("subscription")
    found: Json = ctx.need(params["subscription"], "subscription", param="subscription")["items"]
    return {key: value for key, value in found.items() if key != "total_count"}
