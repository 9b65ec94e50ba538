"""Promotion codes: the words that customers type to redeem a coupon, and who may."""

from __future__ import annotations

import re
import secrets
import string

from . import ids
from .context import Context
from .errors import absent_parameter, invalid
from .fields import apply, merged_metadata
from .lists import Condition, equals, page
from .money import shown as money
from .params import boolean, choice, integer, metadata, record, text
from .routing import get, listing, post
from .store import Json

_RESTRICTIONS = record({"first_time_transaction": boolean, "minimum_amount": integer, "minimum_amount_currency": text})


@post(
    "/v1/promotion_codes",
    {
        "promotion": record({"type": choice("coupon"), "coupon": text}, required=["type"]),
        "active": boolean,
        "code": text,
        "customer": text,
        "expires_at": integer,
        "max_redemptions": integer,
        "metadata": metadata,
        "restrictions": _RESTRICTIONS,
    },
    ["promotion"],
)
def create(ctx: Context, params: Json) -> Json:
    if not params["promotion"].get("coupon"):
        raise absent_parameter("promotion[coupon]")
    coupon = ctx.need(params["promotion"]["coupon"], "coupon", param="promotion[coupon]")
    code = params.get("code") or "".join(secrets.choice(string.ascii_uppercase + string.digits) for _ in range(8))
    if not re.fullmatch(r"[A-Za-z0-9-]{1,500}", code):
        raise invalid("A code consists of letters, digits and dashes.", "code")
    if any(one["active"] and one["customer"] in (None, params.get("customer")) for one in _of(ctx, code)):
        raise invalid("An active promotion code with this code already exists.", "code", "resource_already_exists")
    if params.get("customer"):
        ctx.need(params["customer"], "customer", param="customer")
    if params.get("max_redemptions") is not None and params["max_redemptions"] < 1:
        raise invalid("This value must be greater than or equal to 1.", "max_redemptions", "parameter_invalid_integer")
    if params.get("expires_at") is not None and params["expires_at"] <= ctx.now():
        raise invalid("expires_at must be in the future.", "expires_at")
    given = params.get("restrictions") or {}
    if (given.get("minimum_amount") is None) != (given.get("minimum_amount_currency") is None):
        raise invalid(
            "minimum_amount and minimum_amount_currency go together.", "restrictions[minimum_amount_currency]"
        )
    promotion: Json = {
        "id": ids.new("promo"),
        "object": "promotion_code",
        "active": params.get("active", True),
        "code": code,
        "created": ctx.now(),
        "customer": params.get("customer"),
        "customer_account": None,
        "expires_at": params.get("expires_at"),
        "livemode": False,
        "max_redemptions": params.get("max_redemptions"),
        "metadata": merged_metadata({}, params.get("metadata") or {}),
        "promotion": {"coupon": coupon["id"], "type": "coupon"},
        "restrictions": {
            "first_time_transaction": bool(given.get("first_time_transaction")),
            "minimum_amount": given.get("minimum_amount"),
            "minimum_amount_currency": given.get("minimum_amount_currency"),
        },
        "times_redeemed": 0,
    }
    return ctx.create(promotion, "promotion_code.created")


def _of(ctx: Context, code: str) -> list[Json]:
    return ctx.store.all("promotion_code", ref=code.upper())


def by_code(ctx: Context, code: str, customer: Json | None) -> Json | None:
    """The active promotion code that these words are for this customer; case does not matter."""
    for one in _of(ctx, code):
        if shown(ctx, one)["active"] and one["customer"] in (None, customer and customer["id"]):
            return one
    return None


def require_redeemable(
    ctx: Context, code: Json, customer: Json | None, *, amount: int, currency: str, param: str
) -> None:
    """Raises unless this customer may redeem it for this amount."""
    restrictions = code["restrictions"]
    least = restrictions["minimum_amount"]
    if not shown(ctx, code)["active"]:
        raise invalid("This promotion code is not active any more.", param, "promotion_code_inactive")
    if code["customer"] is not None and (customer is None or customer["id"] != code["customer"]):
        raise invalid("This promotion code is not for this customer.", param)
    if least is not None and (currency != restrictions["minimum_amount_currency"] or amount < least):
        words = money(least, restrictions["minimum_amount_currency"])
        raise invalid(f"This promotion code needs an amount of at least {words}.", param)
    if restrictions["first_time_transaction"] and customer is not None and _paid_before(ctx, customer):
        raise invalid(
            "This promotion code cannot be redeemed because the associated customer has prior transactions.", param
        )


def _paid_before(ctx: Context, customer: Json) -> bool:
    paid = any(invoice["status"] == "paid" for invoice in ctx.store.all("invoice", customer=customer["id"]))
    return paid or any(charge["paid"] for charge in ctx.store.all("charge", customer=customer["id"]))


def count_redemption(ctx: Context, code: Json) -> None:
    before = ctx.need(code["id"], "promotion_code")
    ctx.save(before | {"times_redeemed": before["times_redeemed"] + 1}, "promotion_code.updated", before)


def shown(ctx: Context, code: Json) -> Json:
    """The code with `active` as it is now."""
    most, until = code["max_redemptions"], code["expires_at"]
    ended = (most is not None and code["times_redeemed"] >= most) or (until is not None and ctx.now() >= until)
    return code | {"active": code["active"] and not ended}


@get("/v1/promotion_codes/{code}")
def retrieve(ctx: Context, params: Json, code: str) -> Json:
    return shown(ctx, ctx.need(code, "promotion_code"))


@post("/v1/promotion_codes/{code}", {"active": boolean, "metadata": metadata})
def update(ctx: Context, params: Json, code: str) -> Json:
    before = ctx.need(code, "promotion_code")
    return shown(ctx, ctx.save(apply(before, params, ("active",)), "promotion_code.updated", before))


@listing("/v1/promotion_codes", {"active": boolean, "code": text, "coupon": text, "customer": text})
def listed(ctx: Context, params: Json) -> Json:
    where: list[Condition] = []
    if params.get("code"):
        where.append(equals("ref", params["code"].upper()))
    for name, column in (("active", "active"), ("coupon", "promotion.coupon"), ("customer", "customer")):
        if params.get(name) is not None:
            where.append(equals(column, params[name]))
    found = page(ctx, "promotion_code", params, "/v1/promotion_codes", where)
    return found | {"data": [shown(ctx, code) for code in found["data"]]}
