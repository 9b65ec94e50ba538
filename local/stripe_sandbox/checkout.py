"""Checkout sessions: an offer at a page of its own. Only a payment turns one into a subscription or a charge."""

from __future__ import annotations

from . import checkout_items, checkout_totals, discounts, ids, subscription_start
from .context import Context
from .errors import absent_parameter, invalid
from .fields import merged_metadata
from .lists import Condition, equals, inline, page
from .params import (
    SHIPPING,
    anything,
    array,
    boolean,
    choice,
    email,
    integer,
    metadata,
    now_or_time,
    record,
    text,
    url,
)
from .periods import DAY
from .routing import get, listing, post
from .store import Json

_SUBSCRIPTION_DATA = record(
    {
        "description": text,
        "metadata": metadata,
        "trial_end": now_or_time,
        "trial_period_days": integer,
        "trial_settings": record(
            {"end_behavior": record({"missing_payment_method": choice("cancel", "create_invoice", "pause")})}
        ),
        "billing_mode": record({"type": choice("classic", "flexible")}, required=["type"]),
        "proration_behavior": choice("create_prorations", "none"),
    }
)
_LONGEST = DAY
_SHORTEST = 30 * 60
# Seconds by which the caller's clock may differ.
_LEEWAY = 60


@post(
    "/v1/checkout/sessions",
    {
        "allow_promotion_codes": boolean,
        "automatic_tax": record({"enabled": boolean}),
        "billing_address_collection": choice("auto", "required"),
        "cancel_url": url,
        "client_reference_id": text,
        "currency": text,
        "custom_text": anything,
        "customer": text,
        "customer_creation": choice("always", "if_required"),
        "customer_email": email,
        "customer_update": anything,
        "discounts": discounts.PARAM,
        "expires_at": integer,
        "invoice_creation": anything,
        "line_items": array(checkout_items.FIELDS),
        "locale": text,
        "metadata": metadata,
        "mode": choice("payment", "subscription"),
        "origin_context": text,
        "payment_intent_data": record(
            {
                "description": text,
                "metadata": metadata,
                "setup_future_usage": text,
                "receipt_email": text,
                "shipping": SHIPPING,
            }
        ),
        "payment_method_collection": choice("always", "if_required"),
        "payment_method_options": anything,
        "phone_number_collection": anything,
        "saved_payment_method_options": anything,
        "submit_type": choice("auto", "book", "donate", "pay", "subscribe"),
        "subscription_data": _SUBSCRIPTION_DATA,
        "success_url": url,
        "tax_id_collection": anything,
        "ui_mode": choice("hosted_page"),
    },
)
def create(ctx: Context, params: Json) -> Json:
    if not params.get("line_items"):
        raise absent_parameter("line_items")
    if not params.get("success_url"):
        raise absent_parameter("success_url")
    mode = params.get("mode") or "payment"
    customer: Json | None = None
    if params.get("customer"):
        if params.get("customer_email"):
            raise invalid("You may only specify one of these parameters: customer, customer_email.", "customer_email")
        customer = ctx.need(params["customer"], "customer", param="customer")
    if mode == "payment" and params.get("subscription_data"):
        raise invalid("You can not pass `subscription_data` in `payment` mode.", "subscription_data")
    if mode == "subscription" and params.get("payment_intent_data"):
        raise invalid("You can not pass `payment_intent_data` in `subscription` mode.", "payment_intent_data")
    if mode == "subscription" and params.get("customer_creation"):
        raise invalid("`customer_creation` can only be used in `payment` and `setup` mode.", "customer_creation")
    now = ctx.now_of(customer)
    expires = params.get("expires_at") or now + _LONGEST
    if not now + _SHORTEST - _LEEWAY <= expires <= now + _LONGEST + _LEEWAY:
        raise invalid("The `expires_at` timestamp must be between 30 minutes and 24 hours from now.", "expires_at")
    items = [checkout_items.make(ctx, given, mode, i) for i, given in enumerate(params["line_items"])]
    currencies = {item["price"]["currency"] for item in items}
    if len(currencies) > 1:
        raise invalid("All line items must have the same currency.", "line_items")
    if mode == "subscription" and not any(item["price"]["recurring"] for item in items):
        raise invalid(
            "You must provide at least one recurring price in `subscription` mode when using prices.", "line_items"
        )
    data = params.get("subscription_data") or {}
    trial_end = subscription_start.trial_from(data, now)
    if params.get("discounts") and params.get("allow_promotion_codes") is not None:
        raise invalid(
            "You may only specify one of these parameters: allow_promotion_codes, discounts.", "allow_promotion_codes"
        )
    subtotal = sum(item["amount_subtotal"] for item in items)
    offers = discounts.offered(
        ctx, params.get("discounts") or [], customer, amount=subtotal, currency=items[0]["currency"]
    )
    if len(offers) > 1:
        raise invalid("You can apply at most one discount.", "discounts")
    session_id = ids.new("cs_test")
    known = customer["email"] if customer else params.get("customer_email")
    session: Json = {
        "id": session_id,
        "object": "checkout.session",
        "adaptive_pricing": {"enabled": False},
        "after_expiration": None,
        "allow_promotion_codes": params.get("allow_promotion_codes"),
        "amount_subtotal": 0,
        "amount_total": 0,
        "automatic_tax": _automatic_tax(params.get("automatic_tax")),
        "billing_address_collection": params.get("billing_address_collection"),
        "cancel_url": params.get("cancel_url"),
        "client_reference_id": params.get("client_reference_id"),
        "client_secret": None,
        "collected_information": None,
        "consent": None,
        "consent_collection": None,
        "created": now,
        "currency": currencies.pop(),
        "currency_conversion": None,
        "custom_fields": [],
        "custom_text": {
            "after_submit": None,
            "shipping_address": None,
            "submit": None,
            "terms_of_service_acceptance": None,
        },
        "customer": customer["id"] if customer else None,
        "customer_account": None,
        "customer_creation": None
        if customer
        else ("always" if mode == "subscription" else params.get("customer_creation") or "if_required"),
        "customer_details": details(known, None) if known else None,
        "customer_email": params.get("customer_email"),
        "discounts": [offer.shown() for offer in offers],
        "expires_at": expires,
        "invoice": None,
        "invoice_creation": None,
        "line_items": inline(items, f"/v1/checkout/sessions/{session_id}/line_items"),
        "livemode": False,
        "locale": params.get("locale"),
        "metadata": merged_metadata({}, params.get("metadata") or {}),
        "mode": mode,
        "origin_context": params.get("origin_context"),
        "payment_intent": None,
        "payment_link": None,
        "payment_method_collection": params.get("payment_method_collection") or "always",
        "payment_method_configuration_details": None,
        "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
        "payment_method_types": ["card"],
        "payment_status": "unpaid",
        "permissions": None,
        "phone_number_collection": {"enabled": False},
        "recovered_from": None,
        "saved_payment_method_options": None,
        "setup_intent": None,
        "shipping_address_collection": None,
        "shipping_cost": None,
        "shipping_options": [],
        "status": "open",
        "submit_type": params.get("submit_type"),
        "subscription": None,
        "success_url": params["success_url"],
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
        "ui_mode": "hosted_page",
        "url": f"{ctx.base_url}/c/pay/{session_id}",
        "wallet_options": None,
        "_data": data | {"trial_end": trial_end},
        "_intent_data": params.get("payment_intent_data") or {},
    }
    ctx.store.schedule(session_id, "checkout_expire", customer["test_clock"] if customer else None, expires)
    return ctx.create(checkout_totals.reckon(ctx, session))


def _automatic_tax(given: Json | None) -> Json:
    enabled = bool(given and given.get("enabled"))
    status = "complete" if enabled else None
    return {"enabled": enabled, "liability": None, "provider": "stripe" if enabled else None, "status": status}


def details(email_address: str | None, name: str | None) -> Json:
    return {
        "address": None,
        "business_name": None,
        "email": email_address,
        "individual_name": None,
        "name": name,
        "phone": None,
        "tax_exempt": "none",
        "tax_ids": [],
    }


@get("/v1/checkout/sessions/{session}")
def retrieve(ctx: Context, params: Json, session: str) -> Json:
    return ctx.need(session, "checkout.session")


@listing(
    "/v1/checkout/sessions",
    {
        "customer": text,
        "subscription": text,
        "payment_intent": text,
        "status": choice("open", "complete", "expired"),
        "customer_details": record({"email": text}),
    },
)
def listed(ctx: Context, params: Json) -> Json:
    where: list[Condition] = []
    for name, column in (
        ("customer", "customer"),
        ("subscription", "ref"),
        ("status", "status"),
        ("payment_intent", "payment_intent"),
    ):
        if params.get(name):
            where.append(equals(column, params[name]))
    if params.get("customer_details"):
        where.append(equals("customer_details.email", params["customer_details"].get("email")))
    return page(ctx, "checkout.session", params, "/v1/checkout/sessions", where)


@post("/v1/checkout/sessions/{session}", {"metadata": metadata})
def update(ctx: Context, params: Json, session: str) -> Json:
    found = ctx.need(session, "checkout.session")
    if "metadata" in params:
        found["metadata"] = merged_metadata(found["metadata"], params["metadata"])
    return ctx.save(found)


@listing("/v1/checkout/sessions/{session}/line_items")
def line_items(ctx: Context, params: Json, session: str) -> Json:
    found: Json = ctx.need(session, "checkout.session")["line_items"]
    return found


def _expire(ctx: Context, session: Json) -> Json:
    ctx.store.cancel_jobs(session["id"])
    return ctx.save(session | {"status": "expired", "url": None}, "checkout.session.expired")


@post("/v1/checkout/sessions/{session}/expire")
def expire(ctx: Context, params: Json, session: str) -> Json:
    found = ctx.need(session, "checkout.session")
    if found["status"] != "open":
        raise invalid(
            'Only Checkout Sessions with a status in ["open"] can be expired. This Session has a status of'
            f" `{found['status']}`."
        )
    return _expire(ctx, found)


def expire_due(ctx: Context, session_id: str) -> None:
    found = ctx.need(session_id, "checkout.session")
    if found["status"] == "open":
        _expire(ctx, found)
