"""What time does to a subscription: renewal, the end of a trial, the end of a cancelled period, expiry."""

from __future__ import annotations

from . import discounts, ids, invoice_items, invoice_life, plan_change, usage_lines
from .context import Context
from .errors import ApiError
from .invoice_lines import item_line
from .periods import DAY, next_end
from .store import Json
from .subscription_status import end

# How long before a renewal `invoice.upcoming` is sent; in Stripe a dashboard setting, here PUT /_sandbox/settings.
DEFAULT_UPCOMING_DAYS = 7


def schedule(ctx: Context, subscription: Json) -> None:
    """Sets when the subscription turns next: its first period end, trial end or cancellation."""
    if subscription["status"] in ("canceled", "incomplete_expired"):
        ctx.store.cancel_jobs(subscription["id"])
        return
    if subscription["status"] == "paused":
        for task in ("turn", "upcoming"):
            ctx.store.cancel_jobs(subscription["id"], task)
        return
    turn_at = next_turn(subscription)
    ctx.store.schedule(subscription["id"], "turn", subscription["test_clock"], turn_at)
    upcoming = turn_at - int(ctx.store.setting("upcoming_days", DEFAULT_UPCOMING_DAYS)) * DAY
    if upcoming > ctx.now(subscription["test_clock"]) and subscription["cancel_at"] is None:
        ctx.store.schedule(subscription["id"], "upcoming", subscription["test_clock"], upcoming)
    else:
        ctx.store.cancel_jobs(subscription["id"], "upcoming")


def next_turn(subscription: Json) -> int:
    times = [item["current_period_end"] for item in subscription["items"]["data"]]
    if subscription["cancel_at"] is not None:
        times.append(subscription["cancel_at"])
    return int(min(times))


def turn_due(ctx: Context, subscription_id: str) -> None:
    turn(ctx, ctx.need(subscription_id, "subscription"))


def turn(ctx: Context, subscription: Json) -> Json | None:
    """What falls due now; returns the invoice that it made."""
    now = ctx.now(subscription["test_clock"])
    if subscription["cancel_at"] is not None and subscription["cancel_at"] <= now:
        return close(ctx, subscription, prorate=bool(subscription.get("_prorates_at_end")))
    if subscription["status"] == "incomplete":
        # Its first period never began; it expires instead.
        ctx.store.cancel_jobs(subscription["id"], "turn")
        return None
    if subscription["status"] == "trialing" and trial_over(ctx, subscription, now):
        return None
    return renew(ctx, subscription, now)


def trial_over(ctx: Context, subscription: Json, now: int) -> bool:
    """Handles a trial that ends without a card, as it was told to; False if the subscription goes on."""
    if subscription["trial_end"] > now:
        return False
    customer = ctx.need(subscription["customer"], "customer")
    if subscription["default_payment_method"] or customer["invoice_settings"]["default_payment_method"]:
        return False
    behavior = subscription["trial_settings"]["end_behavior"]["missing_payment_method"]
    if behavior == "cancel":
        end(ctx, subscription, reason="payment_failed")
        return True
    if behavior == "pause":
        pause(ctx, subscription, "trial_end_without_payment_method")
        return True
    return False


def renew(ctx: Context, subscription: Json, now: int) -> Json:
    """Rolls the periods that are over into the next and drafts their invoice: what was used in the old ones, and the
    new ones in advance."""
    if subscription.get("_next_price"):
        subscription = _taken_over(ctx, subscription)
    customer = ctx.need(subscription["customer"], "customer")
    invoice_id = ids.new("in")
    items: list[Json] = []
    usage: list[Json] = []
    lines: list[Json] = invoice_items.take_pending(ctx, customer["id"], subscription["id"])
    previous = (now, now)
    for item in subscription["items"]["data"]:
        if item["current_period_end"] <= now:
            recurring = item["price"]["recurring"]
            begin = item["current_period_end"]
            previous = (item["current_period_start"], begin)
            if usage_lines.is_metered(item) and subscription["status"] != "trialing":
                usage.append({"item": item, "period": list(previous)})
                lines += usage_lines.lines(ctx, customer["id"], item, previous, subscription["id"])
            item = item | {
                "current_period_start": begin,
                "current_period_end": next_end(
                    subscription["billing_cycle_anchor"], begin, recurring["interval"], recurring["interval_count"]
                ),
            }
            if not usage_lines.is_metered(item):
                lines.append(item_line(ctx, item, subscription["id"]))
        items.append(item)
    # Unpaid subscriptions go on making invoices, but nobody tries to collect them.
    collect = subscription["status"] != "unpaid"
    going_on = discounts.running(ctx, subscription["discounts"], now)
    after = subscription | {
        "discounts": going_on,
        "items": subscription["items"] | {"data": items},
        "latest_invoice": invoice_id,
        "status": "active" if subscription["status"] == "trialing" else subscription["status"],
    }
    discounts.end(ctx, [one for one in subscription["discounts"] if one not in going_on])
    ctx.save(after, "customer.subscription.updated", subscription)
    schedule(ctx, after)
    return _draft(ctx, customer, after, lines, previous, invoice_id, usage, collect=collect)


def _taken_over(ctx: Context, before: Json) -> Json:
    """The subscription with the plan that was chosen for its next period; it begins with the period, unprorated."""
    after = {name: value for name, value in before.items() if name != "_next_price"}
    licensed = next(item for item in before["items"]["data"] if not usage_lines.is_metered(item))
    plan_change.set_items(ctx, after, [{"id": licensed["id"], "price": before["_next_price"]}])
    return after


def _draft(
    ctx: Context,
    customer: Json,
    subscription: Json,
    lines: list[Json],
    period: tuple[int, int],
    invoice_id: str,
    usage: list[Json],
    *,
    collect: bool,
) -> Json:
    invoice = invoice_life.draft(
        ctx,
        customer,
        lines,
        reason="subscription_cycle",
        currency=subscription["currency"],
        period=period,
        subscription=subscription,
        auto_advance=collect,
        invoice_id=invoice_id,
        usage=usage,
    )
    if collect:
        at = ctx.now_of(customer) + invoice_life.DRAFT_SECONDS
        ctx.store.schedule(invoice_id, "finalize", customer["test_clock"], at)
    return invoice


def close(
    ctx: Context,
    subscription: Json,
    *,
    prorate: bool = False,
    bill: bool = True,
    at_once: bool = False,
    details: Json | None = None,
) -> Json | None:
    """Cancels now, on request; returns the last invoice, for use that was not billed yet and what was pending.

    `at_once` finalizes it without an hour as a draft; `prorate` credits paid time that is not used any more.
    """
    now = ctx.now_of(subscription["customer"])
    if prorate:
        plan_change.credit_rest(ctx, subscription, now)
    ended = end(ctx, subscription, reason="cancellation_requested", details=details)
    if not bill:
        return None
    customer = ctx.need(subscription["customer"], "customer")
    lines = invoice_items.take_pending(ctx, customer["id"], subscription["id"])
    usage: list[Json] = []
    if subscription["status"] != "trialing":
        for item in filter(usage_lines.is_metered, subscription["items"]["data"]):
            period = (item["current_period_start"], min(now, item["current_period_end"]))
            usage.append({"item": item, "period": list(period)})
            lines += usage_lines.lines(ctx, customer["id"], item, period, subscription["id"])
    if not lines:
        return None
    invoice_id = ids.new("in")
    after = ended | {"latest_invoice": invoice_id}
    ctx.store.put(after)
    begin = min(item["current_period_start"] for item in subscription["items"]["data"])
    invoice = _draft(ctx, customer, after, lines, (begin, now), invoice_id, usage, collect=True)
    if at_once:
        invoice_life.finalize_due(ctx, invoice_id)
    return invoice


def trial_will_end_due(ctx: Context, subscription_id: str) -> None:
    ctx.store.cancel_jobs(subscription_id, "trial_will_end")
    subscription = ctx.need(subscription_id, "subscription")
    if subscription["status"] == "trialing":
        ctx.emit("customer.subscription.trial_will_end", subscription)


def expire_due(ctx: Context, subscription_id: str) -> None:
    """The first payment was not made in 23 hours: final, and its invoice void."""
    before = ctx.need(subscription_id, "subscription")
    ctx.store.cancel_jobs(subscription_id)
    if before["status"] != "incomplete":
        return
    invoice = ctx.need(before["latest_invoice"], "invoice")
    if invoice["status"] in ("open", "draft"):
        invoice_life.void(ctx, invoice)
    now = ctx.now(before["test_clock"])
    ctx.save(
        before | {"status": "incomplete_expired", "ended_at": now, "canceled_at": now},
        "customer.subscription.updated",
        before,
    )


def collect_again_due(ctx: Context, subscription_id: str) -> None:
    """The end of a paused collection."""
    before = ctx.need(subscription_id, "subscription")
    ctx.save(before | {"pause_collection": None}, "customer.subscription.updated", before)


def pause(ctx: Context, subscription: Json, why: str) -> Json:
    now = ctx.now_of(subscription["customer"])
    after = subscription | {
        "status": "paused",
        "status_details": {"paused": {"subscription": {"type": why}, "transitioned_at": now, "type": "subscription"}},
    }
    ctx.save(after, "customer.subscription.paused")
    ctx.store.cancel_jobs(subscription["id"], "turn")
    return after


def resume(ctx: Context, subscription: Json) -> Json:
    """Starts a paused subscription again with a new period from now; returns the draft of its invoice."""
    if subscription["status"] != "paused":
        raise ApiError("This subscription is not paused and cannot be resumed.")
    now = ctx.now_of(subscription["customer"])
    items = [item | {"current_period_start": now, "current_period_end": now} for item in subscription["items"]["data"]]
    started = subscription | {
        "status": "active",
        "status_details": None,
        "billing_cycle_anchor": now,
        "items": subscription["items"] | {"data": items},
    }
    ctx.save(started, "customer.subscription.resumed")
    return renew(ctx, started, now)
