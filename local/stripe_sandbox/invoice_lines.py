"""Invoice lines: what is charged for which period, at which price."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

from . import ids
from .context import Context
from .money import shown
from .store import Json


def amount_of(price: Json, quantity: int) -> int:
    """Whole minor units; decimal prices are rounded half up on the whole line."""
    exact = Decimal(price["unit_amount_decimal"]) * quantity
    return int(exact.quantize(Decimal(1), ROUND_HALF_UP))


def interval_words(price: Json) -> str:
    recurring = price["recurring"]
    if recurring is None:
        return ""
    count, unit = recurring["interval_count"], recurring["interval"]
    return f"/ {unit}" if count == 1 else f"every {count} {unit}s"


def item_line(ctx: Context, item: Json, subscription: str) -> Json:
    """The line of a licensed item for its current period."""
    product = ctx.need(item["price"]["product"], "product")
    period = (item["current_period_start"], item["current_period_end"])
    return line(item, item["price"], product, quantity=item["quantity"], period=period, subscription=subscription)


def line(
    item: Json | None,
    price: Json,
    product: Json,
    *,
    quantity: int,
    period: tuple[int, int],
    amount: int | None = None,
    description: str | None = None,
    subscription: str | None = None,
) -> Json:
    charged = amount_of(price, quantity) if amount is None else amount
    each = shown(price["unit_amount"] or 0, price["currency"])
    if description is None:
        interval = interval_words(price)
        description = f"{quantity} × {product['name']}" + (f" (at {each} {interval})" if interval else "")
    parent: Json | None = None
    if item is not None:
        parent = {
            "invoice_item_details": None,
            "subscription_item_details": {
                "invoice_item": None,
                "proration": False,
                "proration_details": {"credited_items": None},
                "subscription": subscription,
                "subscription_item": item["id"],
            },
            "type": "subscription_item_details",
        }
    return {
        "id": ids.new("il"),
        "object": "line_item",
        "amount": charged,
        "currency": price["currency"],
        "description": description,
        "discount_amounts": [],
        "discountable": True,
        "discounts": [],
        "invoice": None,
        "livemode": False,
        "metadata": dict(item["metadata"]) if item else {},
        "parent": parent,
        "period": {"start": period[0], "end": period[1]},
        "pretax_credit_amounts": [],
        "pricing": {
            "price_details": {"price": price["id"], "product": product["id"]},
            "type": "price_details",
            "unit_amount_decimal": price["unit_amount_decimal"],
        },
        "quantity": quantity,
        "quantity_decimal": str(quantity),
        "subscription": subscription,
        "subtotal": charged,
        "taxes": [],
    }
