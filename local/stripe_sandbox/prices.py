"""Prices: how much, in whole minor units, and how often."""

from __future__ import annotations

from decimal import Decimal

from . import ids, products
from .context import Context
from .errors import absent_parameter, invalid
from .fields import apply, merged_metadata
from .lists import Condition, equals, page
from .params import anything, array, boolean, checked, choice, decimal_text, integer, mapping, metadata, record, text
from .routing import get, listing, post
from .store import Json

RECURRING = record(
    {
        "interval": choice("day", "week", "month", "year"),
        "interval_count": integer,
        "usage_type": choice("licensed", "metered"),
        "meter": text,
        "trial_period_days": integer,
    },
    required=["interval"],
)
_MOST_INTERVALS = {"day": 1095, "week": 156, "month": 36, "year": 3}
_TIER = record(
    {
        "up_to": anything,
        "unit_amount": integer,
        "unit_amount_decimal": decimal_text,
        "flat_amount": integer,
        "flat_amount_decimal": decimal_text,
    },
    required=["up_to"],
)
# What `price_data` and `default_price_data` share with prices.
PRICE_DATA = {
    "currency": text,
    "unit_amount": integer,
    "unit_amount_decimal": decimal_text,
    "recurring": RECURRING,
    "tax_behavior": choice("exclusive", "inclusive", "unspecified"),
    "metadata": metadata,
}
_SHARED = {
    "active": boolean,
    "lookup_key": text,
    "metadata": metadata,
    "nickname": text,
    "tax_behavior": choice("exclusive", "inclusive", "unspecified"),
    "transfer_lookup_key": boolean,
}


def by_lookup_key(ctx: Context, key: str) -> Json | None:
    found = ctx.store.all("price", ref=key)
    return found[0] if found else None


def _take_lookup_key(ctx: Context, key: str, *, transfer: bool, owner: str) -> None:
    holder = by_lookup_key(ctx, key)
    if holder is None or holder["id"] == owner:
        return
    if not transfer:
        raise invalid(
            f"A price (`{holder['id']}`) already uses that lookup key. To transfer it, set"
            " `transfer_lookup_key` to true.",
            "lookup_key",
        )
    ctx.save(holder | {"lookup_key": None}, "price.updated", holder)


def make_price(ctx: Context, params: Json) -> Json:
    """Creates a price. Takes checked parameters; `product` is an id."""
    amount, decimal = params.get("unit_amount"), params.get("unit_amount_decimal")
    tiers = params.get("tiers")
    tiered = params.get("billing_scheme") == "tiered"
    if tiered != (tiers is not None) or tiered != (params.get("tiers_mode") is not None):
        raise invalid("`billing_scheme: tiered`, `tiers` and `tiers_mode` go together.", "tiers", "parameter_missing")
    if tiered and (amount is not None or decimal is not None):
        raise invalid("A tiered price has its amounts in its tiers.", "unit_amount")
    if tiers is None and amount is None and decimal is None:
        raise absent_parameter("unit_amount")
    if amount is not None and decimal is not None:
        raise invalid("You may only specify one of these parameters: unit_amount, unit_amount_decimal.", "unit_amount")
    if amount is not None and amount < 0:
        raise invalid("Invalid non-negative integer", "unit_amount", "parameter_invalid_integer")
    if decimal is not None and Decimal(decimal) == int(Decimal(decimal)):
        amount = int(Decimal(decimal))
    recurring = params.get("recurring")
    if recurring is not None:
        count = recurring.get("interval_count") or 1
        if not 1 <= count <= _MOST_INTERVALS[recurring["interval"]]:
            raise invalid("Invalid interval_count: the longest interval is three years", "recurring[interval_count]")
        recurring = {
            "interval": recurring["interval"],
            "interval_count": count,
            "meter": recurring.get("meter"),
            "trial_period_days": recurring.get("trial_period_days"),
            "usage_type": recurring.get("usage_type") or "licensed",
        }
        if recurring["usage_type"] == "metered" and recurring["meter"] is None:
            raise invalid("Metered prices must be backed by a meter.", "recurring[meter]")
        if recurring["meter"] is not None:
            if recurring["usage_type"] != "metered":
                raise invalid("Only metered prices have a meter.", "recurring[meter]")
            ctx.need(recurring["meter"], "billing.meter", param="recurring[meter]")
    if tiered and (recurring is None or recurring["usage_type"] != "metered"):
        raise invalid("This sandbox knows tiers of metered prices only.", "billing_scheme")
    price_id = ids.new("price")
    if params.get("lookup_key"):
        _take_lookup_key(ctx, params["lookup_key"], transfer=bool(params.get("transfer_lookup_key")), owner=price_id)
    price: Json = {
        "id": price_id,
        "object": "price",
        "active": params.get("active", True),
        "billing_scheme": params.get("billing_scheme") or "per_unit",
        "created": ctx.now(),
        "currency": params["currency"].lower(),
        "custom_unit_amount": None,
        "livemode": False,
        "lookup_key": params.get("lookup_key"),
        "metadata": merged_metadata({}, params.get("metadata") or {}),
        "nickname": params.get("nickname"),
        "product": params["product"],
        "recurring": recurring,
        "tax_behavior": params.get("tax_behavior") or "unspecified",
        "tiers_mode": params.get("tiers_mode"),
        "transform_quantity": None,
        "type": "recurring" if recurring else "one_time",
        "unit_amount": amount,
        "unit_amount_decimal": decimal if decimal is not None else (None if amount is None else str(amount)),
    }
    if tiers is not None:
        price["tiers"] = _checked_tiers(tiers)
    return ctx.create(price, "price.created")


def _checked_tiers(given: list[Json]) -> list[Json]:
    """Tiers in rising order, the last without an end, each with an amount."""
    tiers: list[Json] = []
    before = 0
    for i, tier in enumerate(given):
        name = f"tiers[{i}]"
        last = i == len(given) - 1
        up_to = None if tier["up_to"] == "inf" else integer(tier["up_to"], f"{name}[up_to]")
        if last != (up_to is None) or (up_to is not None and up_to <= before):
            raise invalid("Tiers rise, and the last one's `up_to` is `inf`.", f"{name}[up_to]")
        before = up_to or before
        made: Json = {"up_to": up_to}
        for kind in ("flat_amount", "unit_amount"):
            whole, exact = tier.get(kind), tier.get(f"{kind}_decimal")
            if whole is not None and exact is not None:
                raise invalid(f"You may only specify one of {kind} and {kind}_decimal.", f"{name}[{kind}]")
            if exact is None and whole is not None:
                exact = str(whole)
            if exact is not None and Decimal(exact) == int(Decimal(exact)):
                whole = int(Decimal(exact))
            made |= {kind: whole, f"{kind}_decimal": exact}
        if made["flat_amount_decimal"] is None and made["unit_amount_decimal"] is None:
            raise invalid("Each tier needs a unit_amount or a flat_amount.", name, "parameter_missing")
        tiers.append(made)
    return tiers


@post(
    "/v1/prices",
    {
        **_SHARED,
        **PRICE_DATA,
        "billing_scheme": choice("per_unit", "tiered"),
        "product": text,
        "product_data": mapping,
        "tiers": array(_TIER),
        "tiers_mode": choice("graduated", "volume"),
    },
    ["currency"],
)
def create(ctx: Context, params: Json) -> Json:
    if params.get("product"):
        ctx.need(params["product"], "product", param="product")
    elif params.get("product_data") is not None:
        given = checked(
            params["product_data"],
            {"name": text, "id": text, "active": boolean, "metadata": metadata, "unit_label": text, "tax_code": text},
            ["name"],
            lambda key: f"product_data[{key}]",
        )
        params["product"] = products.make(ctx, given)["id"]
    else:
        raise absent_parameter("product")
    return make_price(ctx, params)


@get("/v1/prices/{price}")
def retrieve(ctx: Context, params: Json, price: str) -> Json:
    return ctx.need(price, "price")


@post("/v1/prices/{price}", _SHARED)
def update(ctx: Context, params: Json, price: str) -> Json:
    before = ctx.need(price, "price")
    if params.get("lookup_key"):
        _take_lookup_key(ctx, params["lookup_key"], transfer=bool(params.get("transfer_lookup_key")), owner=price)
    after = apply(before, params, ("active", "lookup_key", "nickname", "tax_behavior"))
    return ctx.save(after, "price.updated", before)


@listing(
    "/v1/prices",
    {
        "active": boolean,
        "currency": text,
        "lookup_keys": array(text),
        "product": text,
        "recurring": record(
            {
                "interval": choice("day", "week", "month", "year"),
                "meter": text,
                "usage_type": choice("licensed", "metered"),
            }
        ),
        "type": choice("one_time", "recurring"),
    },
)
def listed(ctx: Context, params: Json) -> Json:
    where: list[Condition] = [
        equals(name, params[name]) for name in ("active", "currency", "product", "type") if params.get(name) is not None
    ]
    where += [equals(f"recurring.{name}", value) for name, value in (params.get("recurring") or {}).items()]
    keys = params.get("lookup_keys")
    if keys:
        if len(keys) > 10:
            raise invalid("You may filter by at most 10 lookup keys.", "lookup_keys")
        where.append((f"ref IN ({', '.join('?' * len(keys))})", keys))
    return page(ctx, "price", params, "/v1/prices", where)


def plan_of(price: Json) -> Json:
    """The legacy plan that subscription items still carry beside their price."""
    recurring = price["recurring"]
    return {
        "id": price["id"],
        "object": "plan",
        "active": price["active"],
        "amount": price["unit_amount"],
        "amount_decimal": price["unit_amount_decimal"],
        "billing_scheme": price["billing_scheme"],
        "created": price["created"],
        "currency": price["currency"],
        "interval": recurring["interval"],
        "interval_count": recurring["interval_count"],
        "livemode": False,
        "metadata": price["metadata"],
        "meter": recurring["meter"],
        "nickname": price["nickname"],
        "product": price["product"],
        "tiers_mode": price["tiers_mode"],
        "transform_usage": None,
        "trial_period_days": recurring["trial_period_days"],
        "usage_type": recurring["usage_type"],
    }
