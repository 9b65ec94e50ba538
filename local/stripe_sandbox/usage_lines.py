"""Invoice lines for metered use: one per tier that was reached, brought up to date until the invoice is final."""

from __future__ import annotations

from . import invoice_totals, meter_events, tiers
from .context import Context
from .invoice_lines import interval_words, line
from .money import shown_exact
from .store import Json


def is_metered(item: Json) -> bool:
    return bool(item["price"]["recurring"]["usage_type"] == "metered")


def lines(ctx: Context, customer: str, item: Json, period: tuple[int, int], subscription: str) -> list[Json]:
    """What the item's meter counted for the customer in the period, start inclusive, end exclusive."""
    price = ctx.need(item["price"]["id"], "price")
    product = ctx.need(price["product"], "product")
    used = meter_events.used(ctx, price, customer, *period)
    return [_line(item, price, product, part, period, subscription) for part in tiers.parts(price, used)]


def _line(item: Json, price: Json, product: Json, part: tiers.Part, period: tuple[int, int], subscription: str) -> Json:
    each = f"{shown_exact(part.unit, price['currency'])} {interval_words(price)}"
    tier = "" if part.tier is None else f"Tier {part.tier} "
    flat = f", plus {shown_exact(part.flat, price['currency'])}" if part.flat else ""
    quantity = part.quantity.normalize()
    made = line(
        item,
        price,
        product,
        quantity=int(quantity),
        period=period,
        amount=part.amount,
        description=f"{quantity:f} × {product['name']} ({tier}at {each}{flat})",
        subscription=subscription,
    )
    made["quantity_decimal"] = f"{quantity:f}"
    made["pricing"]["unit_amount_decimal"] = f"{part.unit.normalize():f}"
    return made


def refresh(ctx: Context, invoice: Json) -> None:
    """Counts the use of a draft's periods again: events come in while it is a draft. Changes it in place."""
    waiting = invoice.get("_usage") or []
    if not waiting:
        return
    details = invoice["parent"]["subscription_details"]
    metered = {one["item"]["id"] for one in waiting}
    kept = [one for one in invoice["lines"]["data"] if _item_of(one) not in metered]
    for one in waiting:
        kept += lines(ctx, invoice["customer"], one["item"], tuple(one["period"]), details["subscription"])
    for one in kept:
        one["invoice"] = invoice["id"]
    invoice["lines"]["data"] = kept
    invoice_totals.reckon(ctx, invoice)


def _item_of(one: Json) -> str | None:
    details = (one["parent"] or {}).get("subscription_item_details")
    return details["subscription_item"] if details else None
