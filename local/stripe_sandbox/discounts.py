"""Discounts: a coupon applied to a subscription or an invoice, and what it takes off which line."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from . import coupons, ids, promotion_codes
from .context import Context
from .errors import invalid
from .params import array, record, text
from .periods import step
from .store import Json

PARAM = array(record({"coupon": text, "promotion_code": text, "discount": text}))


@dataclass(frozen=True)
class Offer:
    """What somebody may redeem: a coupon, by a promotion code or without one."""

    coupon: Json
    code: Json | None = None

    def shown(self) -> Json:
        """As a Checkout session names it."""
        return {"coupon": None if self.code else self.coupon["id"], "promotion_code": self.code and self.code["id"]}


def offered(
    ctx: Context, given: list[Json], customer: Json | None, *, amount: int, currency: str, name: str = "discounts"
) -> list[Offer]:
    """The offers that `discounts` parameters name. Raises invalid for what cannot be redeemed (any more, by this
    customer, for so small an amount)."""
    found: list[Offer] = []
    for i, one in enumerate(given):
        if one.get("promotion_code"):
            param = f"{name}[{i}][promotion_code]"
            code = ctx.need(one["promotion_code"], "promotion_code", param=param)
            found.append(of_code(ctx, code, customer, amount=amount, currency=currency, param=param))
        elif one.get("coupon"):
            coupon = ctx.need(one["coupon"], "coupon", param=f"{name}[{i}][coupon]")
            coupons.require_redeemable(ctx, coupon, currency, f"{name}[{i}][coupon]")
            found.append(Offer(coupon))
        else:
            raise invalid("Give a coupon or a promotion code.", f"{name}[{i}]", "parameter_missing")
    return found


def of_code(ctx: Context, code: Json, customer: Json | None, *, amount: int, currency: str, param: str) -> Offer:
    coupon = ctx.need(code["promotion"]["coupon"], "coupon", param=param)
    coupons.require_redeemable(ctx, coupon, currency, param)
    promotion_codes.require_redeemable(ctx, code, customer, amount=amount, currency=currency, param=param)
    return Offer(coupon, code)


def redeem(
    ctx: Context,
    offers: list[Offer],
    customer: Json,
    *,
    subscription: str | None = None,
    invoice: str | None = None,
    session: str | None = None,
    event: str = "customer.discount.created",
) -> list[str]:
    """Discounts of these offers, counted as redeemed; returns their ids."""
    made: list[str] = []
    start = ctx.now_of(customer)
    for offer in offers:
        coupon = offer.coupon
        discount: Json = {
            "id": ids.new("di"),
            "object": "discount",
            "checkout_session": session,
            "customer": customer["id"],
            "customer_account": None,
            "end": step(start, "month", coupon["duration_in_months"]) if coupon["duration"] == "repeating" else None,
            "invoice": invoice,
            "invoice_item": None,
            "promotion_code": offer.code and offer.code["id"],
            "source": {"coupon": coupon["id"], "type": "coupon"},
            "start": start,
            "subscription": subscription,
            "subscription_item": None,
            # Its terms as they were: a deleted coupon's discounts go on.
            "_coupon": coupon,
        }
        ctx.create(discount, event)
        coupons.count_redemption(ctx, coupon)
        if offer.code is not None:
            promotion_codes.count_redemption(ctx, offer.code)
        made.append(discount["id"])
    return made


def running(ctx: Context, discount_ids: list[str], now: int) -> list[str]:
    """Those that still take something off at this moment."""
    found = [ctx.need(discount, "discount") for discount in discount_ids]
    return [discount["id"] for discount in found if discount["end"] is None or discount["end"] > now]


def after_invoice(ctx: Context, invoice: Json) -> list[str]:
    """The invoice's discounts that go on after it; those for the first charge end with one that they lowered."""
    going_on: list[str] = []
    took_off = {one["discount"] for one in invoice["total_discount_amounts"] if one["amount"]}
    for discount in [ctx.need(discount, "discount") for discount in invoice["discounts"]]:
        if discount["_coupon"]["duration"] == "once" and discount["id"] in took_off:
            ctx.emit("customer.discount.deleted", discount)
        else:
            going_on.append(discount["id"])
    return going_on


def end(ctx: Context, discount_ids: list[str]) -> None:
    for discount in discount_ids:
        ctx.emit("customer.discount.deleted", ctx.need(discount, "discount"))


def take_off(ctx: Context, lines: list[Json], discount_ids: list[str]) -> list[Json]:
    """Sets each line's `discount_amounts`; returns `total_discount_amounts`.

    Discounts follow one another: the second is of what the first left.
    """
    for line in lines:
        line["discount_amounts"] = []
    left = [line["amount"] for line in lines]
    totals: list[Json] = []
    for discount_id in discount_ids:
        coupon = ctx.need(discount_id, "discount")["_coupon"]
        chosen = [i for i, line in enumerate(lines) if line["discountable"] and left[i] > 0 and _covers(coupon, line)]
        off = off_each(coupon, [left[i] for i in chosen])
        for i, amount in zip(chosen, off, strict=True):
            left[i] -= amount
            lines[i]["discount_amounts"].append({"amount": amount, "discount": discount_id})
        totals.append({"amount": sum(off), "discount": discount_id})
    return totals


def net(ctx: Context, amount: int, product: str, discount_ids: list[str]) -> int:
    """What these discounts leave of an amount for a product, taken alone."""
    for discount_id in discount_ids:
        coupon = ctx.need(discount_id, "discount")["_coupon"]
        if amount > 0 and fits(coupon, product):
            amount -= off_each(coupon, [amount])[0]
    return amount


def _covers(coupon: Json, line: Json) -> bool:
    details = (line.get("pricing") or {}).get("price_details") or {}
    return fits(coupon, details.get("product"))


def fits(coupon: Json, product: str | None) -> bool:
    """Whether the coupon is for this product."""
    return not coupon["_products"] or product in coupon["_products"]


def off_each(coupon: Json, amounts: list[int]) -> list[int]:
    """What a coupon takes off each of these positive amounts, in whole minor units.

    A percentage is rounded half up, amount by amount; a sum is spread over them by their size, to the unit.
    """
    if coupon["percent_off"] is not None:
        part = Decimal(str(coupon["percent_off"])) / 100
        return [int((amount * part).quantize(Decimal(1), ROUND_HALF_UP)) for amount in amounts]
    whole = sum(amounts)
    pot = min(coupon["amount_off"], whole)
    off: list[int] = []
    before = 0
    for amount in amounts:
        # Differences of cumulative shares: each within a unit of exact, and together the pot.
        off.append(pot * (before + amount) // whole - pot * before // whole)
        before += amount
    return off
