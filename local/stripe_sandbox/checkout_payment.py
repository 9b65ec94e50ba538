"""Paying a Checkout session: only this turns the offer into a subscription or a charge."""

from __future__ import annotations

from . import charging, checkout_totals, customers, discounts, invoice_items, subscription_start
from .checkout import details
from .context import Context
from .errors import ApiError, absent_parameter, invalid
from .params import integer, text
from .payment_methods import attach, card_of, resolve
from .routing import get, post
from .store import Json


def require_open(session: Json) -> None:
    if session["status"] == "complete":
        raise ApiError("This Checkout Session has already been completed.", code="checkout_session_completed")
    if session["status"] == "expired":
        raise ApiError("This Checkout Session has expired.", code="checkout_session_expired")


def complete(ctx: Context, session: Json, method: Json | None, *, email_address: str | None, name: str | None) -> Json:
    """Pays an open session. Raises card_error when the card refuses; then nothing of it stays.

    Without a payment method only a session that asks for nothing now and collects no card goes through.
    """
    require_open(session)
    due = session["amount_total"]
    if method is None and (
        due or session["mode"] == "payment" or session["payment_method_collection"] != "if_required"
    ):
        raise absent_parameter("payment_method")
    if method is not None:
        card = card_of(method)
        refusal = card.refusal(on_session=True) if due or not card.attaches else None
        if refusal is not None:
            raise refusal
    customer = _customer(ctx, session, email_address, name)
    for one in session["discounts"]:
        # What could be redeemed when the page was opened may be used up by now.
        subtotal = session["amount_subtotal"]
        discounts.offered(ctx, [one], customer, amount=subtotal, currency=session["currency"])
    if customer is not None and method is not None and (session["mode"] == "subscription" or _keeps_card(session)):
        method = attach(ctx, method["id"], customer)
    if session["mode"] == "subscription" and customer is not None:
        _subscribe(ctx, session, customer, method)
    elif method is not None:
        _charge(ctx, session, customer, method)
    shown_email = email_address or (customer["email"] if customer else None)
    session |= {
        "status": "complete",
        "payment_status": "paid" if due else "no_payment_required",
        "customer": customer["id"] if customer else None,
        "customer_details": details(shown_email, name or (customer["name"] if customer else None)),
        "url": None,
    }
    ctx.store.cancel_jobs(session["id"])
    return ctx.save(session, "checkout.session.completed")


def _keeps_card(session: Json) -> bool:
    return bool(session["_intent_data"].get("setup_future_usage"))


def _customer(ctx: Context, session: Json, email_address: str | None, name: str | None) -> Json | None:
    if session["customer"]:
        before = ctx.need(session["customer"], "customer")
        after = before | {"name": before["name"] or name, "email": before["email"] or email_address}
        return ctx.save(after, "customer.updated", before)
    if session["customer_creation"] != "always":
        return None
    return customers.make(ctx, {"email": email_address or session["customer_email"], "name": name})


def _subscribe(ctx: Context, session: Json, customer: Json, method: Json | None) -> None:
    data = session["_data"]
    chosen = [
        {"price": ctx.need(item["price"]["id"], "price"), "quantity": item["quantity"], "metadata": item["metadata"]}
        for item in session["line_items"]["data"]
        if item["price"]["recurring"]
    ]
    for item in session["line_items"]["data"]:
        if not item["price"]["recurring"]:
            _add_one_time(ctx, customer, item)
    behavior = (data.get("trial_settings") or {}).get("end_behavior") or {}
    subscription = subscription_start.start(
        ctx,
        customer,
        chosen,
        method=method["id"] if method else None,
        trial_end=_trial_end(data, ctx.now_of(customer)),
        meta=data.get("metadata"),
        mode=(data.get("billing_mode") or {}).get("type") or "flexible",
        description=data.get("description"),
        missing_method=behavior.get("missing_payment_method") or "create_invoice",
        on_session=True,
        offers=checkout_totals.offers(ctx, session),
        session=session["id"],
        taxed=session["automatic_tax"]["enabled"],
    )
    session |= {"subscription": subscription["id"], "invoice": subscription["latest_invoice"]}


def _trial_end(data: Json, now: int) -> int | None:
    """Days of trial run from the subscription's start, not from the page's."""
    days = data.get("trial_period_days")
    return data.get("trial_end") if days is None else subscription_start.trial_from({"trial_period_days": days}, now)


def _add_one_time(ctx: Context, customer: Json, item: Json) -> None:
    now = ctx.now_of(customer)
    invoice_items.add(
        ctx,
        customer["id"],
        amount=item["amount_subtotal"],
        currency=item["currency"],
        description=item["description"],
        period=(now, now),
        price=item["price"],
        quantity=item["quantity"],
    )


def _charge(ctx: Context, session: Json, customer: Json | None, method: Json) -> None:
    data = session["_intent_data"]
    intent = charging.make(
        ctx,
        amount=session["amount_total"],
        currency=session["currency"],
        customer=customer["id"] if customer else None,
        description=data.get("description"),
        meta=data.get("metadata") or {},
    )
    intent |= {"shipping": data.get("shipping"), "receipt_email": data.get("receipt_email")}
    if customer is not None:
        discounts.redeem(ctx, checkout_totals.offers(ctx, session), customer, session=session["id"])
    charging.confirm(ctx, intent, method, on_session=True)
    session["payment_intent"] = intent["id"]


# What Stripe's own page calls, and with it the official CLI.


@get("/v1/payment_pages/{session}")
def payment_page(ctx: Context, params: Json, session: str) -> Json:
    found = ctx.need(session, "checkout.session")
    return {
        "id": found["id"],
        "object": "checkout.session",
        "session_id": found["id"],
        "amount_total": found["amount_total"],
        "currency": found["currency"],
        "customer_email": found["customer_email"],
        "line_items": found["line_items"]["data"],
        "livemode": False,
        "mode": found["mode"],
        "payment_status": found["payment_status"],
        "status": found["status"],
        "success_url": found["success_url"],
    }


@post("/v1/payment_pages/{session}/confirm", {"payment_method": text, "expected_amount": integer}, lenient=True)
def confirm_payment_page(ctx: Context, params: Json, session: str) -> Json:
    found = ctx.need(session, "checkout.session")
    require_open(found)
    expected = params.get("expected_amount")
    if expected is not None and expected != found["amount_total"]:
        raise invalid("The amount of this session has changed.", "expected_amount", "checkout_amount_mismatch")
    method = resolve(ctx, params["payment_method"], param="payment_method") if params.get("payment_method") else None
    billing = method["billing_details"] if method else {}
    return complete(
        ctx, found, method, email_address=billing.get("email") or found["customer_email"], name=billing.get("name")
    )


def success_address(session: Json) -> str:
    address: str = session["success_url"]
    return address.replace("{CHECKOUT_SESSION_ID}", session["id"])
