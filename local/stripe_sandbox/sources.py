"""Card sources: how cards were saved before payment methods. The official CLI still makes and changes them."""

from __future__ import annotations

from .context import Context
from .errors import missing
from .fields import apply
from .params import integer, metadata, text
from .payment_methods import attach
from .routing import get, post
from .store import Json


def _shown(method: Json) -> Json:
    """The payment method as the card it was called."""
    card, billing = method["card"], method["billing_details"]
    address = billing["address"]
    return {
        "id": method["id"],
        "object": "card",
        "address_city": address["city"],
        "address_country": address["country"],
        "address_line1": address["line1"],
        "address_line1_check": card["checks"]["address_line1_check"],
        "address_line2": address["line2"],
        "address_state": address["state"],
        "address_zip": address["postal_code"],
        "address_zip_check": card["checks"]["address_postal_code_check"],
        "brand": card["brand"].capitalize(),
        "country": card["country"],
        "customer": method["customer"],
        "cvc_check": card["checks"]["cvc_check"],
        "dynamic_last4": None,
        "exp_month": card["exp_month"],
        "exp_year": card["exp_year"],
        "fingerprint": card["fingerprint"],
        "funding": card["funding"],
        "last4": card["last4"],
        "metadata": method["metadata"],
        "name": billing["name"],
        "tokenization_method": None,
    }


@post("/v1/customers/{customer}/sources", {"source": text, "metadata": metadata}, ["source"])
def create(ctx: Context, params: Json, customer: str) -> Json:
    method = attach(ctx, params["source"], ctx.need(customer, "customer"), param="source")
    if "metadata" in params:
        ctx.save(method := apply(method, params, ()))
    card = _shown(method)
    ctx.emit("customer.source.created", card)
    return card


def _of(ctx: Context, customer: str, source: str) -> Json:
    ctx.need(customer, "customer")
    method = ctx.need(source, "payment_method")
    if method["customer"] != customer:
        raise missing("source", source)
    return method


@get("/v1/customers/{customer}/sources/{source}")
def retrieve(ctx: Context, params: Json, customer: str, source: str) -> Json:
    return _shown(_of(ctx, customer, source))


@post(
    "/v1/customers/{customer}/sources/{source}",
    {"exp_month": integer, "exp_year": integer, "metadata": metadata, "name": text},
)
def update(ctx: Context, params: Json, customer: str, source: str) -> Json:
    before = _of(ctx, customer, source)
    after = apply(before, params, ())
    given = {name: params[name] for name in ("exp_month", "exp_year") if params.get(name) is not None}
    after["card"] = before["card"] | given
    if "name" in params:
        after["billing_details"] = before["billing_details"] | {"name": params["name"]}
    ctx.save(after)
    card = _shown(after)
    ctx.emit("customer.source.updated", card, {"metadata": before["metadata"]})
    return card
