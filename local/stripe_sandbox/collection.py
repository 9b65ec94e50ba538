"""Collection: the tries to pay an open invoice, the schedule between them, and what follows for its subscription."""

from __future__ import annotations

from . import charging, ids, subscription_status
from .context import Context
from .errors import ApiError, invalid
from .payment_methods import attach
from .periods import DAY
from .store import Json

# Days after each failed try until the next, then how the subscription ends: Stripe's dashboard settings
# (https://docs.stripe.com/billing/revenue-recovery/smart-retries), here PUT /_sandbox/settings.
DEFAULT_RETRY_DAYS = [3, 5, 7]
DEFAULT_END_STATE = "cancel"


def request_payment(ctx: Context, invoice: Json) -> Json:
    """The payment intent and the invoice payment by which an open invoice is to be paid."""
    intent = charging.make(
        ctx,
        amount=invoice["amount_remaining"],
        currency=invoice["currency"],
        customer=invoice["customer"],
        description=_description(invoice),
        meta={},
        invoice=invoice["id"],
    )
    payment: Json = {
        "id": ids.new("inpay"),
        "object": "invoice_payment",
        "amount_paid": None,
        "amount_requested": invoice["amount_remaining"],
        "created": ctx.now_of(invoice["customer"]),
        "currency": invoice["currency"],
        "invoice": invoice["id"],
        "is_default": True,
        "livemode": False,
        "payment": {"payment_intent": intent["id"], "type": "payment_intent"},
        "status": "open",
        "status_transitions": {"canceled_at": None, "paid_at": None},
    }
    ctx.create(payment)
    invoice["payments"]["data"] = [payment]
    return intent


def _description(invoice: Json) -> str | None:
    return {
        "subscription_create": "Subscription creation",
        "subscription_cycle": "Subscription update",
        "subscription_update": "Subscription update",
        "manual": f"Payment for Invoice {invoice['number']}",
    }.get(invoice["billing_reason"])


def default_method(ctx: Context, invoice: Json) -> Json | None:
    """The card that Stripe would charge: the invoice's, else its subscription's, else the customer's."""
    choices = [invoice["default_payment_method"]]
    details = (invoice["parent"] or {}).get("subscription_details")
    if details:
        subscription = ctx.store.get(details["subscription"], "subscription")
        choices.append(subscription["default_payment_method"] if subscription else None)
    customer = ctx.need(invoice["customer"], "customer")
    choices.append(customer["invoice_settings"]["default_payment_method"])
    for choice in choices:
        method = ctx.store.get(choice, "payment_method") if choice else None
        if method is not None and method["customer"] == customer["id"]:
            return method
    return None


def attempt(ctx: Context, invoice: Json, method: Json | None = None, *, on_session: bool = False) -> ApiError | None:
    """One try to pay an open invoice. Changes it in place; returns the refusal, if there was one.

    `on_session` says that the person is there to confirm what their bank asks.
    """
    chosen = method or default_method(ctx, invoice)
    payment = invoice["payments"]["data"][0]
    intent = ctx.need(payment["payment"]["payment_intent"], "payment_intent")
    invoice["attempt_count"] += 1
    invoice["attempted"] = True
    if chosen is None:
        charging.fail_without_method(ctx, intent)
        refusal: ApiError | None = invalid(
            "There is no `default_payment_method` set on this Customer or Invoice.",
            code="invoice_payment_intent_requires_action",
        )
    else:
        refusal = charging.confirm(ctx, intent, chosen, on_session=on_session)
    if refusal is None:
        mark_paid(ctx, invoice)
        if chosen is not None:
            _keep_method(ctx, invoice, chosen)
        return None
    if intent["status"] == "requires_action":
        ctx.emit("invoice.payment_action_required", invoice)
    _failed(ctx, invoice)
    return refusal


def _keep_method(ctx: Context, invoice: Json, method: Json) -> None:
    """A subscription that saves what paid it has it as its default from then on."""
    subscription = subscription_status.of_invoice(ctx, invoice)
    if subscription is None or subscription["payment_settings"]["save_default_payment_method"] != "on_subscription":
        return
    if method["customer"] is None:
        method = attach(ctx, method["id"], ctx.need(invoice["customer"], "customer"))
    after = subscription | {"default_payment_method": method["id"]}
    ctx.save(after, "customer.subscription.updated", subscription)


def mark_paid(ctx: Context, invoice: Json) -> None:
    """Settles the invoice and what hangs on it."""
    now = ctx.now_of(invoice["customer"])
    ctx.store.cancel_jobs(invoice["id"])
    invoice |= {
        "status": "paid",
        "amount_paid": invoice["amount_due"],
        "amount_remaining": 0,
        "attempted": True,
        "auto_advance": False,
        "next_payment_attempt": None,
        "status_transitions": invoice["status_transitions"] | {"paid_at": now},
    }
    for payment in invoice["payments"]["data"]:
        payment |= {
            "status": "paid",
            "amount_paid": payment["amount_requested"],
            "status_transitions": {"canceled_at": None, "paid_at": now},
        }
        ctx.create(payment, "invoice_payment.paid")
    ctx.save(invoice, "invoice.paid")
    ctx.emit("invoice.payment_succeeded", invoice)
    subscription_status.after_payment(ctx, invoice)


def _failed(ctx: Context, invoice: Json) -> None:
    clock = invoice["test_clock"]
    now = ctx.now(clock)
    days = ctx.store.setting("retry_days", DEFAULT_RETRY_DAYS)
    # Retries are counted from the first failure on; tries that a person asked for do not use them up.
    done = int(invoice.get("_retries", 0))
    exhausted = True
    subscription = subscription_status.of_invoice(ctx, invoice)
    first = subscription is not None and subscription["status"] in ("incomplete", "incomplete_expired")
    if invoice["auto_advance"] and not first:
        pending = invoice["next_payment_attempt"]
        if pending is not None and pending > now:
            exhausted = False
        elif done < len(days):
            exhausted = False
            invoice["_retries"] = done + 1
            invoice["next_payment_attempt"] = now + days[done] * DAY
            ctx.store.schedule(invoice["id"], "retry", clock, invoice["next_payment_attempt"])
    if exhausted:
        invoice["next_payment_attempt"] = None
        ctx.store.cancel_jobs(invoice["id"], "retry")
    ctx.save(invoice, "invoice.payment_failed")
    ctx.emit("invoice.updated", invoice, {"attempt_count": invoice["attempt_count"] - 1})
    if subscription is not None and not first:
        subscription_status.after_failure(
            ctx, subscription, exhausted=exhausted, end_state=ctx.store.setting("end_state", DEFAULT_END_STATE)
        )


def retry_due(ctx: Context, invoice_id: str) -> None:
    ctx.store.cancel_jobs(invoice_id, "retry")
    invoice = ctx.need(invoice_id, "invoice")
    if invoice["status"] == "open":
        attempt(ctx, invoice)
