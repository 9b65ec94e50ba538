"""Customers: who pays, with which card by default, on which clock."""

from __future__ import annotations

from . import collection, discounts, ids
from .context import Context
from .errors import invalid, missing
from .fields import apply, merged_metadata
from .lists import Condition, page
from .params import ADDRESS, SHIPPING, array, email, integer, metadata, record, text
from .payment_methods import attach
from .routing import delete, get, listing, post
from .store import Json, public
from .subscription_status import end

_SETTINGS = record({"default_payment_method": text, "footer": text})
_SHARED = {
    "address": ADDRESS,
    "balance": integer,
    # Older than `discounts`, and still what the official CLI sends.
    "coupon": text,
    "description": text,
    "email": email,
    "invoice_prefix": text,
    "invoice_settings": _SETTINGS,
    "metadata": metadata,
    "name": text,
    "next_invoice_sequence": integer,
    "phone": text,
    "preferred_locales": array(text),
    "shipping": SHIPPING,
}
_NAMES = (
    "address",
    "balance",
    "description",
    "email",
    "invoice_prefix",
    "name",
    "next_invoice_sequence",
    "phone",
    "preferred_locales",
    "shipping",
)


def make(ctx: Context, params: Json) -> Json:
    clock = params.get("test_clock")
    if clock:
        ctx.need(clock, "test_helpers.test_clock", param="test_clock")
    customer: Json = {
        "id": ids.new("cus"),
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": ctx.now(clock),
        "currency": None,
        "customer_account": None,
        "default_source": None,
        "delinquent": False,
        "description": None,
        "discount": None,
        "email": None,
        "invoice_prefix": ids.invoice_prefix(),
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        "livemode": False,
        "metadata": merged_metadata({}, params.get("metadata") or {}),
        "name": None,
        "next_invoice_sequence": 1,
        "phone": None,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": clock,
    }
    customer |= {name: params[name] for name in _NAMES if params.get(name) is not None}
    return ctx.create(customer, "customer.created")


@post("/v1/customers", {**_SHARED, "payment_method": text, "source": text, "test_clock": text})
def create(ctx: Context, params: Json) -> Json:
    customer = make(ctx, params)
    settings = params.get("invoice_settings") or {}
    token = params.get("payment_method") or params.get("source")
    if token:
        method = attach(ctx, token, customer, param="payment_method")
        if settings.get("default_payment_method") in (token, method["id"]) or params.get("source"):
            settings = settings | {"default_payment_method": method["id"]}
    if settings:
        _set_invoice_settings(ctx, customer, settings)
        ctx.save(customer)
    if params.get("coupon"):
        _set_coupon(ctx, customer, params["coupon"])
        ctx.save(customer)
    return customer


def _set_coupon(ctx: Context, customer: Json, coupon: str) -> None:
    """A discount of every invoice of the customer whose subscription has none of its own. Changes it in place."""
    currency = customer["currency"] or "usd"
    offers = discounts.offered(ctx, [{"coupon": coupon}], customer, amount=0, currency=currency, name="coupon")
    event = "created" if customer["discount"] is None else "updated"
    made = discounts.redeem(ctx, offers, customer, event=f"customer.discount.{event}")
    customer["discount"] = public(ctx.need(made[0], "discount"))


def _end_discount(ctx: Context, customer: Json) -> None:
    if customer["discount"] is not None:
        discounts.end(ctx, [customer["discount"]["id"]])
        customer["discount"] = None


def _set_invoice_settings(ctx: Context, customer: Json, settings: Json) -> None:
    chosen = dict(customer["invoice_settings"])
    if "footer" in settings:
        chosen["footer"] = settings["footer"]
    if "default_payment_method" in settings:
        wanted = settings["default_payment_method"]
        if wanted is not None:
            name = "invoice_settings[default_payment_method]"
            method = ctx.need(wanted, "payment_method", param=name)
            if method["customer"] != customer["id"]:
                raise invalid(
                    f"The customer does not have a payment method with the ID {wanted}. The payment method must be"
                    " attached to the customer.",
                    name,
                    "resource_missing",
                )
        chosen["default_payment_method"] = wanted
    customer["invoice_settings"] = chosen


def set_default_payment_method(ctx: Context, customer_id: str, method_id: str) -> None:
    before = ctx.need(customer_id, "customer")
    after = dict(before)
    _set_invoice_settings(ctx, after, {"default_payment_method": method_id})
    ctx.save(after, "customer.updated", before)


def use_card(ctx: Context, customer: Json, method: Json) -> None:
    """Makes a card the one for everything, as the portal does; what is owed is tried with it at once."""
    method = attach(ctx, method["id"], customer)
    set_default_payment_method(ctx, customer["id"], method["id"])
    for subscription in ctx.store.all("subscription", customer=customer["id"]):
        if subscription["ended_at"] is None:
            after = subscription | {"default_payment_method": method["id"]}
            ctx.save(after, "customer.subscription.updated", subscription)
    for invoice in ctx.store.all("invoice", customer=customer["id"]):
        if invoice["status"] == "open" and invoice["auto_advance"]:
            collection.attempt(ctx, invoice, on_session=True)


@get("/v1/customers/{customer}")
def retrieve(ctx: Context, params: Json, customer: str) -> Json:
    gone = ctx.store.setting(f"deleted:{customer}", None)
    if gone:
        return {"id": customer, "object": "customer", "deleted": True}
    return ctx.need(customer, "customer")


@post("/v1/customers/{customer}", {**_SHARED, "source": text})
def update(ctx: Context, params: Json, customer: str) -> Json:
    before = ctx.need(customer, "customer")
    after = apply(before, params, _NAMES)
    if params.get("source"):
        method = attach(ctx, params["source"], before, param="source")
        _set_invoice_settings(ctx, after, {"default_payment_method": method["id"]})
    if params.get("invoice_settings"):
        _set_invoice_settings(ctx, after, params["invoice_settings"])
    if params.get("coupon"):
        _set_coupon(ctx, after, params["coupon"])
    elif "coupon" in params:
        _end_discount(ctx, after)
    return ctx.save(after, "customer.updated", before)


@listing("/v1/customers", {"email": text, "test_clock": text})
def listed(ctx: Context, params: Json) -> Json:
    where: list[Condition] = []
    if params.get("email"):
        where.append(("ref = ?", [params["email"]]))
    if params.get("test_clock"):
        where.append(("json_extract(body, '$.test_clock') = ?", [params["test_clock"]]))
    else:
        # Stripe lists a test clock's customers only when asked for that clock.
        where.append(("json_extract(body, '$.test_clock') IS NULL", []))
    return page(ctx, "customer", params, "/v1/customers", where)


@delete("/v1/customers/{customer}")
def remove(ctx: Context, params: Json, customer: str) -> Json:
    found = ctx.need(customer, "customer")
    for subscription in ctx.store.all("subscription", customer=customer):
        if subscription["ended_at"] is None:
            end(ctx, subscription, reason="cancellation_requested")
    ctx.emit("customer.deleted", found)
    ctx.store.set_setting(f"deleted:{customer}", True)
    ctx.store.remove(customer)
    return {"id": customer, "object": "customer", "deleted": True}


@delete("/v1/customers/{customer}/discount")
def remove_discount(ctx: Context, params: Json, customer: str) -> Json:
    before = ctx.need(customer, "customer")
    if before["discount"] is None:
        raise missing("discount", customer)
    after = dict(before)
    _end_discount(ctx, after)
    ctx.save(after, "customer.updated", before)
    gone: Json = before["discount"]
    return gone | {"deleted": True}
