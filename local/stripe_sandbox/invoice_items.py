"""Invoice items: amounts that wait for the customer's next invoice, prorations among them."""

from __future__ import annotations

from . import ids, invoice_totals
from .context import Context
from .errors import invalid
from .invoice_lines import amount_of
from .lists import Condition, equals, page
from .params import boolean, integer, metadata, record, text
from .routing import delete, get, listing, post
from .store import Json


def add(
    ctx: Context,
    customer: str,
    *,
    amount: int,
    currency: str,
    description: str | None,
    period: tuple[int, int],
    price: Json | None = None,
    quantity: int = 1,
    subscription: str | None = None,
    proration: bool = False,
    meta: dict[str, str] | None = None,
) -> Json:
    now = ctx.now_of(customer)
    pricing = None
    if price is not None:
        pricing = {
            "price_details": {"price": price["id"], "product": price["product"]},
            "type": "price_details",
            "unit_amount_decimal": price["unit_amount_decimal"],
        }
    parent = None
    if subscription is not None:
        parent = {"subscription_details": {"subscription": subscription}, "type": "subscription_details"}
    item: Json = {
        "id": ids.new("ii"),
        "object": "invoiceitem",
        "amount": amount,
        "currency": currency,
        "customer": customer,
        "customer_account": None,
        "date": now,
        "description": description,
        "discountable": not proration,
        "discounts": [],
        "invoice": None,
        "livemode": False,
        "metadata": meta or {},
        "net_amount": amount,
        "parent": parent,
        "period": {"start": period[0], "end": period[1]},
        "pricing": pricing,
        "proration": proration,
        "proration_details": None,
        "quantity": quantity,
        "quantity_decimal": str(quantity),
        "tax_rates": [],
        "test_clock": ctx.need(customer, "customer")["test_clock"],
        "_subscription": subscription,
    }
    return ctx.create(item, "invoiceitem.created")


def take_pending(ctx: Context, customer: str, subscription: str | None) -> list[Json]:
    """The pending items as lines of an invoice that is about to be drafted; they are no longer pending."""
    lines: list[Json] = []
    for item in ctx.store.all("invoiceitem", customer=customer):
        if item["invoice"] is not None or item.get("_taken"):
            continue
        if item["_subscription"] is not None and item["_subscription"] != subscription:
            continue
        ctx.store.put(item | {"_taken": True})
        lines.append(line_of(item))
    return lines


def line_of(item: Json) -> Json:
    return {
        "id": ids.new("il"),
        "object": "line_item",
        "amount": item["amount"],
        "currency": item["currency"],
        "description": item["description"],
        "discount_amounts": [],
        "discountable": item["discountable"],
        "discounts": [],
        "invoice": None,
        "livemode": False,
        "metadata": item["metadata"],
        "parent": {
            "invoice_item_details": {
                "invoice_item": item["id"],
                "proration": item["proration"],
                "proration_details": {"credited_items": None},
                "subscription": item["_subscription"],
            },
            "subscription_item_details": None,
            "type": "invoice_item_details",
        },
        "period": item["period"],
        "pretax_credit_amounts": [],
        "pricing": item["pricing"],
        "quantity": item["quantity"],
        "quantity_decimal": item["quantity_decimal"],
        "subscription": item["_subscription"],
        "subtotal": item["amount"],
        "taxes": [],
    }


@post(
    "/v1/invoiceitems",
    {
        "customer": text,
        "amount": integer,
        "currency": text,
        "description": text,
        "metadata": metadata,
        "quantity": integer,
        "invoice": text,
        "subscription": text,
        "discountable": boolean,
        "pricing": record({"price": text}),
        "period": record({"start": integer, "end": integer}),
    },
    ["customer"],
)
def create(ctx: Context, params: Json) -> Json:
    ctx.need(params["customer"], "customer", param="customer")
    price = None
    quantity = params.get("quantity") or 1
    if (params.get("pricing") or {}).get("price"):
        price = ctx.need(params["pricing"]["price"], "price", param="pricing[price]")
    amount = amount_of(price, quantity) if price is not None else params.get("amount")
    if amount is None:
        raise invalid("Missing required param: amount.", "amount", "parameter_missing")
    now = ctx.now_of(params["customer"])
    given = params.get("period") or {}
    item = add(
        ctx,
        params["customer"],
        amount=amount,
        currency=(price["currency"] if price else params.get("currency") or "usd").lower(),
        description=params.get("description"),
        period=(given.get("start") or now, given.get("end") or now),
        price=price,
        quantity=quantity,
        subscription=params.get("subscription"),
        meta=params.get("metadata"),
    )
    if params.get("invoice"):
        _add_to_draft(ctx, item, params["invoice"])
    return item


def _add_to_draft(ctx: Context, item: Json, invoice_id: str) -> None:
    invoice = ctx.need(invoice_id, "invoice", param="invoice")
    if invoice["status"] != "draft":
        raise invalid("Invoice is already finalized; you can't add items to it.", "invoice", "invoice_not_editable")
    item |= {"invoice": invoice_id, "_taken": True}
    ctx.save(item)
    line = line_of(item) | {"invoice": invoice_id}
    invoice["lines"]["data"].append(line)
    invoice_totals.reckon(ctx, invoice)
    ctx.save(invoice, "invoice.updated")


@get("/v1/invoiceitems/{item}")
def retrieve(ctx: Context, params: Json, item: str) -> Json:
    return ctx.need(item, "invoiceitem")


@listing("/v1/invoiceitems", {"customer": text, "pending": boolean, "invoice": text})
def listed(ctx: Context, params: Json) -> Json:
    where: list[Condition] = []
    if params.get("customer"):
        where.append(equals("customer", params["customer"]))
    if params.get("invoice"):
        where.append(equals("invoice", params["invoice"]))
    if params.get("pending") is not None:
        taken = "json_extract(body, '$._taken')"
        where.append((f"{taken} IS NULL" if params["pending"] else f"{taken} IS NOT NULL", []))
    return page(ctx, "invoiceitem", params, "/v1/invoiceitems", where)


@delete("/v1/invoiceitems/{item}")
def remove(ctx: Context, params: Json, item: str) -> Json:
    found = ctx.need(item, "invoiceitem")
    if found.get("_taken"):
        raise invalid("An invoice item on an invoice cannot be deleted.", code="invoice_not_editable")
    ctx.store.remove(item)
    ctx.emit("invoiceitem.deleted", found)
    return {"id": item, "object": "invoiceitem", "deleted": True}
