"""Payment intents and charges, as callers make, confirm and read them. Charging itself is `charging`."""

from __future__ import annotations

from . import collection
from .charging import confirm, make
from .context import Context
from .errors import invalid
from .lists import Condition, equals, page
from .params import SHIPPING, array, boolean, choice, integer, metadata, record, text, url
from .payment_methods import attach, resolve
from .routing import get, listing, post
from .store import Json, public

_SHARED = {"description": text, "metadata": metadata, "payment_method": text, "receipt_email": text}


@post(
    "/v1/payment_intents",
    {
        **_SHARED,
        "amount": integer,
        "currency": text,
        "confirm": boolean,
        "customer": text,
        "off_session": boolean,
        "payment_method_types": array(text),
        "automatic_payment_methods": record({"enabled": boolean, "allow_redirects": choice("always", "never")}),
        "setup_future_usage": choice("on_session", "off_session"),
        "return_url": url,
        "shipping": SHIPPING,
    },
    ["amount", "currency"],
)
def create(ctx: Context, params: Json) -> Json:
    if params["amount"] <= 0:
        raise invalid("This value must be greater than or equal to 1.", "amount", "parameter_invalid_integer")
    customer = params.get("customer")
    if customer:
        ctx.need(customer, "customer", param="customer")
    intent = make(
        ctx,
        amount=params["amount"],
        currency=params["currency"].lower(),
        customer=customer,
        description=params.get("description"),
        meta=params.get("metadata") or {},
    )
    intent["receipt_email"] = params.get("receipt_email")
    intent["setup_future_usage"] = params.get("setup_future_usage")
    if params.get("automatic_payment_methods"):
        intent["automatic_payment_methods"] = params["automatic_payment_methods"]
    if params.get("payment_method"):
        intent["payment_method"] = resolve(ctx, params["payment_method"], param="payment_method")["id"]
        intent["status"] = "requires_confirmation"
    ctx.save(intent)
    return _confirm(ctx, intent, params) if params.get("confirm") else intent


def _confirm(ctx: Context, intent: Json, params: Json) -> Json:
    if intent["payment_method"] is None:
        raise invalid(
            "You cannot confirm this PaymentIntent because it's missing a payment method.",
            "payment_method",
            "payment_intent_unexpected_state",
        )
    method = ctx.need(intent["payment_method"], "payment_method")
    intent["_return_url"] = params.get("return_url")
    if intent.get("_invoice"):
        invoice = ctx.need(intent["_invoice"], "invoice")
        refusal = collection.attempt(ctx, invoice, method)
        intent = ctx.need(intent["id"], "payment_intent")
    else:
        refusal = confirm(ctx, intent, method)
    if refusal is not None and intent["status"] != "requires_action":
        refusal.keep = True
        refusal.more["payment_intent"] = public(intent)
        raise refusal
    if refusal is None and intent["setup_future_usage"] and intent["customer"]:
        attach(ctx, method["id"], ctx.need(intent["customer"], "customer"))
    return intent


@post("/v1/payment_intents/{intent}/confirm", {"payment_method": text, "off_session": boolean, "return_url": url})
def confirm_route(ctx: Context, params: Json, intent: str) -> Json:
    found = ctx.need(intent, "payment_intent")
    if found["status"] not in ("requires_payment_method", "requires_confirmation", "requires_action"):
        raise invalid(
            f"You cannot confirm this PaymentIntent because it has status {found['status']}.",
            code="payment_intent_unexpected_state",
        )
    if params.get("payment_method"):
        found["payment_method"] = resolve(ctx, params["payment_method"], param="payment_method")["id"]
    return _confirm(ctx, found, params)


@post("/v1/payment_intents/{intent}/cancel", {"cancellation_reason": text})
def cancel(ctx: Context, params: Json, intent: str) -> Json:
    found = ctx.need(intent, "payment_intent")
    if found["status"] in ("succeeded", "canceled"):
        raise invalid(
            f"You cannot cancel this PaymentIntent because it has a status of {found['status']}.",
            code="payment_intent_unexpected_state",
        )
    found |= {
        "status": "canceled",
        "canceled_at": ctx.now_of(found["customer"]),
        "cancellation_reason": params.get("cancellation_reason"),
    }
    return ctx.save(found, "payment_intent.canceled")


@get("/v1/payment_intents/{intent}", {"client_secret": text})
def retrieve(ctx: Context, params: Json, intent: str) -> Json:
    return ctx.need(intent, "payment_intent")


@listing("/v1/payment_intents", {"customer": text})
def listed(ctx: Context, params: Json) -> Json:
    where: list[Condition] = [equals("customer", params["customer"])] if params.get("customer") else []
    return page(ctx, "payment_intent", params, "/v1/payment_intents", where)


@get("/v1/charges/{charge}")
def retrieve_charge(ctx: Context, params: Json, charge: str) -> Json:
    return ctx.need(charge, "charge")


@listing("/v1/charges", {"customer": text, "payment_intent": text})
def listed_charges(ctx: Context, params: Json) -> Json:
    where: list[Condition] = []
    if params.get("customer"):
        where.append(equals("customer", params["customer"]))
    if params.get("payment_intent"):
        where.append(equals("ref", params["payment_intent"]))
    return page(ctx, "charge", params, "/v1/charges", where)
