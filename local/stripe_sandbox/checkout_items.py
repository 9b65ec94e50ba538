"""The lines of a Checkout session: prices, known or made for the occasion, and how many of each."""

from __future__ import annotations

from . import events, ids, subscription_start
from .context import Context
from .errors import absent_parameter, invalid
from .invoice_lines import amount_of
from .params import array, boolean, checked, integer, mapping, metadata, record, text, url
from .prices import PRICE_DATA, make_price
from .products import make as make_product
from .store import Json

FIELDS = record(
    {
        "price": text,
        "quantity": integer,
        "price_data": record({**PRICE_DATA, "product": text, "product_data": mapping}, required=["currency"]),
        "adjustable_quantity": record({"enabled": boolean, "minimum": integer, "maximum": integer}),
        "metadata": metadata,
    }
)


def make(ctx: Context, given: Json, mode: str, index: int) -> Json:
    name = f"line_items[{index}]"
    if given.get("price"):
        price = ctx.need(given["price"], "price", param=f"{name}[price]")
    elif given.get("price_data"):
        price = _price_from_data(ctx, given["price_data"], name)
    else:
        raise absent_parameter(f"{name}[price]")
    if not price["active"]:
        raise invalid("The price specified is inactive. This field only accepts active prices.", f"{name}[price]")
    if mode == "payment" and price["recurring"] is not None:
        raise invalid(
            "You specified `payment` mode but passed a recurring price. Either switch to `subscription` mode or use"
            " only one-time prices.",
            f"{name}[price]",
        )
    if price["recurring"] is not None:
        subscription_start.recurring_price(ctx, price["id"], f"{name}[price]")
    quantity = given.get("quantity")
    metered = price["recurring"] is not None and price["recurring"]["usage_type"] == "metered"
    if metered and quantity is not None:
        raise invalid("Quantities of metered prices come from their meter.", f"{name}[quantity]")
    if quantity is None and not metered:
        raise invalid("Quantity is required. Add `quantity` to `line_items`.", f"{name}[quantity]", "parameter_missing")
    if quantity is not None and quantity < 1:
        raise invalid(
            "This value must be greater than or equal to 1.", f"{name}[quantity]", "parameter_invalid_integer"
        )
    amount = 0 if quantity is None else amount_of(price, quantity)
    product = ctx.need(price["product"], "product")
    return {
        "id": ids.new("li"),
        "object": "item",
        "adjustable_quantity": None,
        "amount_discount": 0,
        "amount_subtotal": amount,
        "amount_tax": 0,
        "amount_total": amount,
        "currency": price["currency"],
        "description": product["name"],
        "discounts": [],
        "metadata": given.get("metadata") or {},
        "price": events.snapshot(price),
        "quantity": quantity,
        "taxes": [],
    }


def _price_from_data(ctx: Context, data: Json, name: str) -> Json:
    product = data.get("product")
    if product is None:
        fields = {
            "name": text,
            "description": text,
            "images": array(url),
            "metadata": metadata,
            "tax_code": text,
            "unit_label": text,
        }
        given = checked(
            data.get("product_data") or {}, fields, ["name"], lambda key: f"{name}[price_data][product_data][{key}]"
        )
        product = make_product(ctx, given)["id"]
    else:
        ctx.need(product, "product", param=f"{name}[price_data][product]")
    return make_price(ctx, {key: value for key, value in data.items() if key != "product_data"} | {"product": product})
