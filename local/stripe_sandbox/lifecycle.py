"""What time does to a subscription: renewal, the end of a trial, the end of a cancelled period, expiry."""

from __future__ import annotations

from . import collection, ids, invoice_items, invoices
from .context import Context
from .errors import invalid
from .invoice_lines import line
from .periods import next_end
from .store import Json
from .subscription_status import end


def schedule(ctx: Context, subscription: Json) -> None:
    """Sets when the subscription turns next: its first period end, trial end or cancellation."""
    if subscription["status"] in ("canceled", "incomplete_expired"):
        ctx.store.cancel_jobs(subscription["id"])
        return
    if subscription["status"] == "paused":
        ctx.store.cancel_jobs(subscription["id"], "turn")
        return
    times = [item["current_period_end"] for item in subscription["items"]["data"]]
    if subscription["cancel_at"] is not None:
        times.append(subscription["cancel_at"])
    ctx.store.schedule(subscription["id"], "turn", subscription["test_clock"], min(times))


def turn_due(ctx: Context, subscription_id: str) -> None:
    subscription = ctx.need(subscription_id, "subscription")
    now = ctx.now(subscription["test_clock"])
    if subscription["cancel_at"] is not None and subscription["cancel_at"] <= now:
        end(ctx, subscription, reason="cancellation_requested")
        return
    if subscription["status"] == "incomplete":
        # Its first period never began; it expires instead.
        ctx.store.cancel_jobs(subscription_id, "turn")
        return
    if subscription["status"] == "trialing" and trial_over(ctx, subscription, now):
        return
    renew(ctx, subscription, now)


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
    """Rolls the periods that are over into the next and drafts their invoice."""
    customer = ctx.need(subscription["customer"], "customer")
    invoice_id = ids.new("in")
    items: list[Json] = []
    lines: list[Json] = invoice_items.take_pending(ctx, customer["id"], subscription["id"])
    previous = (now, now)
    for item in subscription["items"]["data"]:
        if item["current_period_end"] <= now:
            recurring = item["price"]["recurring"]
            begin = item["current_period_end"]
            previous = (item["current_period_start"], begin)
            item = item | {
                "current_period_start": begin,
                "current_period_end": next_end(
                    subscription["billing_cycle_anchor"], begin, recurring["interval"], recurring["interval_count"]
                ),
            }
            product = ctx.need(item["price"]["product"], "product")
            lines.append(
                line(
                    item,
                    item["price"],
                    product,
                    quantity=item["quantity"],
                    period=(begin, item["current_period_end"]),
                    subscription=subscription["id"],
                )
            )
        items.append(item)
    # Unpaid subscriptions go on making invoices, but nobody tries to collect them.
    collect = subscription["status"] != "unpaid"
    after = subscription | {
        "items": subscription["items"] | {"data": items},
        "latest_invoice": invoice_id,
        "status": "active" if subscription["status"] == "trialing" else subscription["status"],
    }
    ctx.save(after, "customer.subscription.updated", subscription)
    schedule(ctx, after)
    invoices.draft(
        ctx,
        customer,
        lines,
        reason="subscription_cycle",
        currency=subscription["currency"],
        period=previous,
        subscription=after,
        auto_advance=collect,
        invoice_id=invoice_id,
    )
    if collect:
        ctx.store.schedule(invoice_id, "finalize", customer["test_clock"], now + invoices.DRAFT_SECONDS)
    return after


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
        invoices.void(ctx, invoice)
    now = ctx.now(before["test_clock"])
    ctx.save(
        before | {"status": "incomplete_expired", "ended_at": now, "canceled_at": now},
        "customer.subscription.updated",
        before,
    )


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
    """Starts a paused subscription again with a new period from now, charged at once."""
    if subscription["status"] != "paused":
        raise invalid("This subscription is not paused and cannot be resumed.")
    now = ctx.now_of(subscription["customer"])
    started = subscription | {
        "status": "active",
        "status_details": None,
        "billing_cycle_anchor": now,
        "items": subscription["items"]
        | {"data": [item | {"current_period_end": now} for item in subscription["items"]["data"]]},
    }
    ctx.save(started, "customer.subscription.resumed")
    after = renew(ctx, started, now)
    ctx.store.cancel_jobs(after["latest_invoice"], "finalize")
    invoice = ctx.need(after["latest_invoice"], "invoice")
    invoices.finalize(ctx, invoice)
    if invoice["status"] == "open":
        collection.attempt(ctx, invoice)
    return ctx.need(subscription["id"], "subscription")
