"""Coupons: how much is taken off, how often, until when."""

from __future__ import annotations

import secrets
import string
from typing import Any

from .context import Context
from .errors import ApiError, invalid
from .fields import apply, merged_metadata
from .lists import page
from .params import array, choice, integer, metadata, record, text
from .routing import delete, get, listing, post
from .store import Json


def percentage(value: Any, name: str) -> float | None:
    if value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0.0
    if not 0 < number <= 100:
        raise ApiError("Invalid decimal: must be greater than 0 and at most 100", param=name, executed=False)
    return number


@post(
    "/v1/coupons",
    {
        "amount_off": integer,
        "applies_to": record({"products": array(text)}),
        "currency": text,
        "duration": choice("forever", "once", "repeating"),
        "duration_in_months": integer,
        "id": text,
        "max_redemptions": integer,
        "metadata": metadata,
        "name": text,
        "percent_off": percentage,
        "redeem_by": integer,
    },
)
def create(ctx: Context, params: Json) -> Json:
    amount, percent = params.get("amount_off"), params.get("percent_off")
    if (amount is None) == (percent is None):
        raise invalid("Pass exactly one of `amount_off` and `percent_off`.", "amount_off", "parameter_missing")
    if amount is not None and (amount < 1 or not params.get("currency")):
        raise invalid("`amount_off` is a positive amount and needs a `currency`.", "currency", "parameter_missing")
    duration = params.get("duration") or "once"
    months = params.get("duration_in_months")
    if (duration == "repeating") != (months is not None) or (months is not None and months < 1):
        raise invalid("`duration_in_months` goes with `duration: repeating`, and is at least 1.", "duration_in_months")
    coupon_id = params.get("id") or "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(8))
    if ctx.store.get(coupon_id) is not None:
        raise invalid("Coupon already exists.", "id", "resource_already_exists")
    if params.get("max_redemptions") is not None and params["max_redemptions"] < 1:
        raise invalid("This value must be greater than or equal to 1.", "max_redemptions", "parameter_invalid_integer")
    if params.get("redeem_by") is not None and params["redeem_by"] <= ctx.now():
        raise invalid("redeem_by must be in the future.", "redeem_by")
    products = (params.get("applies_to") or {}).get("products") or []
    for i, product in enumerate(products):
        ctx.need(product, "product", param=f"applies_to[products][{i}]")
    coupon: Json = {
        "id": coupon_id,
        "object": "coupon",
        "amount_off": amount,
        "created": ctx.now(),
        "currency": params["currency"].lower() if amount is not None else None,
        "duration": duration,
        "duration_in_months": months,
        "livemode": False,
        "max_redemptions": params.get("max_redemptions"),
        "metadata": merged_metadata({}, params.get("metadata") or {}),
        "name": params.get("name"),
        "percent_off": percent,
        "redeem_by": params.get("redeem_by"),
        "times_redeemed": 0,
        "valid": True,
        "_products": products,
    }
    if products:
        coupon["applies_to"] = {"products": products}
    return ctx.create(coupon, "coupon.created")


def require_redeemable(ctx: Context, coupon: Json, currency: str, param: str) -> None:
    """Raises unless the coupon can be redeemed now for a price in this currency."""
    if not shown(ctx, coupon)["valid"]:
        raise invalid(f"Coupon expired: {coupon['id']}", param, "coupon_expired")
    if coupon["currency"] not in (None, currency):
        raise invalid(f"The coupon is in {coupon['currency']}, the price in {currency}.", param)


def count_redemption(ctx: Context, coupon: Json) -> None:
    before = ctx.need(coupon["id"], "coupon")
    ctx.save(before | {"times_redeemed": before["times_redeemed"] + 1})


def shown(ctx: Context, coupon: Json) -> Json:
    """The coupon with `valid` as it is now."""
    most, until = coupon["max_redemptions"], coupon["redeem_by"]
    valid = not (most is not None and coupon["times_redeemed"] >= most) and not (
        until is not None and ctx.now() > until
    )
    return coupon | {"valid": valid}


@get("/v1/coupons/{coupon}")
def retrieve(ctx: Context, params: Json, coupon: str) -> Json:
    return shown(ctx, ctx.need(coupon, "coupon"))


@post("/v1/coupons/{coupon}", {"metadata": metadata, "name": text})
def update(ctx: Context, params: Json, coupon: str) -> Json:
    before = ctx.need(coupon, "coupon")
    return shown(ctx, ctx.save(apply(before, params, ("name",)), "coupon.updated", before))


@listing("/v1/coupons")
def listed(ctx: Context, params: Json) -> Json:
    found = page(ctx, "coupon", params, "/v1/coupons")
    return found | {"data": [shown(ctx, coupon) for coupon in found["data"]]}


@delete("/v1/coupons/{coupon}")
def remove(ctx: Context, params: Json, coupon: str) -> Json:
    """Nobody can redeem it any more; discounts that it became go on."""
    found = ctx.need(coupon, "coupon")
    ctx.store.remove(coupon)
    ctx.emit("coupon.deleted", found)
    return {"id": coupon, "object": "coupon", "deleted": True}
