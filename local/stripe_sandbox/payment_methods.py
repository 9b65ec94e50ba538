"""Payment methods: cards, made from test numbers, tokens and the names `pm_card_*`, and attached to customers."""

from __future__ import annotations

import time

from . import ids
from .cards import CARDS, Card, named, of_number
from .context import Context
from .errors import ApiError, declined, invalid, missing
from .fields import apply, merged_metadata
from .lists import Condition, equals, page
from .params import ADDRESS, choice, email, integer, metadata, record, text
from .routing import get, listing, post
from .store import Json

_BILLING = record({"address": ADDRESS, "email": email, "name": text, "phone": text, "tax_id": text})
_CARD = record({"number": text, "exp_month": integer, "exp_year": integer, "cvc": text, "token": text})
_NO_ADDRESS = dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"))


def make(
    ctx: Context,
    card: Card,
    *,
    exp_month: int = 12,
    exp_year: int = 2034,
    billing: Json | None = None,
    meta: dict[str, str] | None = None,
    clock: str | None = None,
) -> Json:
    billing = billing or {}
    method: Json = {
        "id": ids.new("pm"),
        "object": "payment_method",
        "allow_redisplay": "unspecified",
        "billing_details": {
            "address": _NO_ADDRESS | (billing.get("address") or {}),
            "email": billing.get("email"),
            "name": billing.get("name"),
            "phone": billing.get("phone"),
            "tax_id": billing.get("tax_id"),
        },
        "card": {
            "brand": card.brand,
            "checks": {
                "address_line1_check": None,
                "address_postal_code_check": None,
                "cvc_check": "pass" if card.code != "incorrect_cvc" else "fail",
            },
            "country": card.country,
            "display_brand": card.brand,
            "exp_month": exp_month,
            "exp_year": exp_year,
            "fingerprint": card.fingerprint,
            "funding": card.funding,
            "generated_from": None,
            "last4": card.last4,
            "networks": {"available": [card.brand], "preferred": None},
            "regulated_status": "unregulated",
            "three_d_secure_usage": {"supported": True},
            "wallet": None,
        },
        "created": ctx.now(clock),
        "customer": None,
        "customer_account": None,
        "livemode": False,
        "metadata": merged_metadata({}, meta or {}),
        "type": "card",
        "_number": card.number,
    }
    return ctx.create(method)


def card_of(method: Json) -> Card:
    return CARDS[method["_number"]]


def refusal_of(method: Json, *, on_session: bool) -> ApiError | None:
    """The error of charging it; None when it pays. A card that was set up with its bank needs no more confirming."""
    card = card_of(method)
    if card.authenticates == "until_set_up" and method.get("_set_up"):
        on_session = True
    return card.refusal(on_session=on_session)


def set_up(ctx: Context, method: Json) -> Json:
    """Its person has confirmed it with the bank, for now and for later."""
    method["_set_up"] = True
    return ctx.save(method)


def resolve(ctx: Context, token: str, *, param: str) -> Json:
    """A stored payment method, or a new one for `pm_card_*` and `tok_*`. Raises resource_missing."""
    found = ctx.store.get(token, "payment_method")
    if found is not None:
        return found
    card = named(token)
    if card is None:
        raise missing("PaymentMethod", token, param, 400)
    return make(ctx, card)


def attach(ctx: Context, token: str, customer: Json, *, param: str = "payment_method") -> Json:
    """Saves a card to a customer. Raises card_error for cards that refuse even that."""
    method = resolve(ctx, token, param=param)
    if method["customer"] == customer["id"]:
        return method
    if method["customer"] is not None:
        raise ApiError("The payment method you provided has already been attached to a customer.", param=param)
    card = card_of(method)
    refusal = None if card.attaches else card.refusal(on_session=True)
    if refusal is not None:
        raise refusal
    method["customer"] = customer["id"]
    return ctx.save(method, "payment_method.attached")


def from_form(ctx: Context, number: str, exp_month: int, exp_year: int, cvc: str, billing: Json) -> Json:
    """A card as typed on a page. Raises card_error naming the field."""
    card = of_number(number)
    check_expiry(ctx, exp_month, exp_year)
    if not cvc.isdigit() or len(cvc) != (4 if card.brand == "amex" else 3):
        raise declined("Your card's security code is invalid.", code="invalid_cvc", param="cvc")
    return make(ctx, card, exp_month=exp_month, exp_year=exp_year, billing=billing)


def check_expiry(ctx: Context, month: int, year: int) -> None:
    if not 1 <= month <= 12:
        raise declined("Your card's expiration month is invalid.", code="invalid_expiry_month", param="exp_month")
    today = time.gmtime(ctx.now())
    if (year, month) < (today.tm_year, today.tm_mon) or year > today.tm_year + 50:
        raise declined("Your card's expiration year is invalid.", code="invalid_expiry_year", param="exp_year")


@post(
    "/v1/payment_methods",
    {
        "type": choice("card"),
        "card": _CARD,
        "billing_details": _BILLING,
        "metadata": metadata,
        "allow_redisplay": choice("always", "limited", "unspecified"),
    },
    ["type"],
)
def create(ctx: Context, params: Json) -> Json:
    given = params.get("card") or {}
    billing, meta = params.get("billing_details"), params.get("metadata")
    if given.get("token"):
        card = named(given["token"])
        if card is None:
            raise missing("token", given["token"], "card[token]", 400)
        return make(ctx, card, billing=billing, meta=meta)
    if not given.get("number"):
        raise invalid("Missing required param: card.", "card", "parameter_missing")
    month, year = given.get("exp_month") or 0, given.get("exp_year") or 0
    year += 2000 if 0 < year < 100 else 0
    check_expiry(ctx, month, year)
    return make(ctx, of_number(given["number"]), exp_month=month, exp_year=year, billing=billing, meta=meta)


@get("/v1/payment_methods/{method}")
def retrieve(ctx: Context, params: Json, method: str) -> Json:
    return resolve(ctx, method, param="payment_method") if named(method) else ctx.need(method, "payment_method")


@post("/v1/payment_methods/{method}", {"billing_details": _BILLING, "metadata": metadata})
def update(ctx: Context, params: Json, method: str) -> Json:
    before = ctx.need(method, "payment_method")
    after = apply(before, params, ())
    if params.get("billing_details"):
        after["billing_details"] = before["billing_details"] | params["billing_details"]
    return ctx.save(after, "payment_method.updated", before)


@post("/v1/payment_methods/{method}/attach", {"customer": text}, ["customer"])
def attach_to(ctx: Context, params: Json, method: str) -> Json:
    return attach(ctx, method, ctx.need(params["customer"], "customer", param="customer"))


@post("/v1/payment_methods/{method}/detach")
def detach(ctx: Context, params: Json, method: str) -> Json:
    before = ctx.need(method, "payment_method")
    if before["customer"] is None:
        raise ApiError("The payment method you provided is not attached to a customer so detachment is impossible.")
    owner = ctx.need(before["customer"], "customer")
    if owner["invoice_settings"]["default_payment_method"] == method:
        settings = owner["invoice_settings"] | {"default_payment_method": None}
        ctx.save(owner | {"invoice_settings": settings}, "customer.updated", owner)
    return ctx.save(before | {"customer": None}, "payment_method.detached", before)


def _page(ctx: Context, params: Json, customer: str | None, url: str) -> Json:
    where: list[Condition] = []
    if customer:
        where.append(equals("customer", customer))
    if params.get("type"):
        where.append(equals("type", params["type"]))
    return page(ctx, "payment_method", params, url, where)


@listing("/v1/payment_methods", {"customer": text, "type": text})
def listed(ctx: Context, params: Json) -> Json:
    return _page(ctx, params, params.get("customer"), "/v1/payment_methods")


@listing("/v1/customers/{customer}/payment_methods", {"type": text})
def listed_of_customer(ctx: Context, params: Json, customer: str) -> Json:
    ctx.need(customer, "customer")
    return _page(ctx, params, customer, f"/v1/customers/{customer}/payment_methods")
