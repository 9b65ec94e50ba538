"""How payments move a subscription between statuses, and how it ends."""

from __future__ import annotations

from .context import Context
from .store import Json

LIVE = ("trialing", "active", "past_due", "unpaid", "paused", "incomplete")


def of_invoice(ctx: Context, invoice: Json) -> Json | None:
    details = (invoice["parent"] or {}).get("subscription_details")
    return ctx.store.get(details["subscription"], "subscription") if details else None


def after_payment(ctx: Context, invoice: Json) -> None:
    """A paid invoice restores its subscription, unless a later one is open too."""
    subscription = of_invoice(ctx, invoice)
    if subscription is None or subscription["status"] not in ("incomplete", "past_due", "unpaid"):
        return
    if subscription["status"] != "incomplete" and not _is_latest(ctx, subscription, invoice):
        return
    ctx.store.cancel_jobs(subscription["id"], "expire")
    trial = subscription["trial_end"]
    trialing = trial is not None and trial > ctx.now_of(subscription["customer"])
    ctx.save(
        subscription | {"status": "trialing" if trialing else "active"}, "customer.subscription.updated", subscription
    )
    _mark_delinquent(ctx, subscription["customer"], False)


def _is_latest(ctx: Context, subscription: Json, invoice: Json) -> bool:
    """Whether no later invoice of the subscription has been finalized; a later draft does not count."""
    later = [one["id"] for one in ctx.store.all("invoice", ref=subscription["id"]) if one["status"] != "draft"]
    return later[-1:] == [invoice["id"]]


def after_write_off(ctx: Context, invoice: Json) -> None:
    """Giving up the latest invoice of a past due subscription makes it active again
    (https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses)."""
    subscription = of_invoice(ctx, invoice)
    if subscription is not None and subscription["status"] == "past_due" and _is_latest(ctx, subscription, invoice):
        ctx.save(subscription | {"status": "active"}, "customer.subscription.updated", subscription)


def after_failure(ctx: Context, subscription: Json, *, exhausted: bool, end_state: str) -> None:
    status = subscription["status"]
    if status in ("canceled", "incomplete_expired"):
        return
    _mark_delinquent(ctx, subscription["customer"], True)
    if exhausted and end_state == "cancel":
        end(ctx, subscription, reason="payment_failed")
        return
    if status == "paused":
        return  # an older invoice; it goes on when it is resumed
    wanted = "unpaid" if exhausted and end_state == "unpaid" else "past_due"
    if status == "unpaid":
        wanted = "unpaid"
    ctx.save(subscription | {"status": wanted}, "customer.subscription.updated", subscription)


def _mark_delinquent(ctx: Context, customer_id: str, delinquent: bool) -> None:
    customer = ctx.need(customer_id, "customer")
    if customer["delinquent"] != delinquent:
        ctx.save(customer | {"delinquent": delinquent}, "customer.updated", customer)


def end(ctx: Context, subscription: Json, *, reason: str, details: Json | None = None) -> Json:
    """Cancels for good. Open invoices stay open, but nothing collects them any more."""
    now = ctx.now_of(subscription["customer"])
    ctx.store.cancel_jobs(subscription["id"])
    for invoice in ctx.store.all("invoice", ref=subscription["id"]):
        if invoice["status"] in ("draft", "open"):
            ctx.store.cancel_jobs(invoice["id"])
            ctx.store.put(invoice | {"auto_advance": False, "next_payment_attempt": None})
    ended = subscription | {
        "status": "canceled",
        "ended_at": now,
        "canceled_at": subscription["canceled_at"] or now,
        "cancel_at_period_end": False,
        "cancellation_details": subscription["cancellation_details"]
        | {"reason": subscription["cancellation_details"]["reason"] or reason}
        | (details or {}),
    }
    return ctx.save(ended, "customer.subscription.deleted")
