"""What a Checkout session comes to: its lines, less what its discount takes off."""

from __future__ import annotations

from . import discounts, taxes
from .context import Context
from .discounts import Offer
from .store import Json


def offers(ctx: Context, session: Json) -> list[Offer]:
    """What will be redeemed when the session is paid."""
    found: list[Offer] = []
    for one in session["discounts"]:
        code = ctx.need(one["promotion_code"], "promotion_code") if one["promotion_code"] else None
        coupon = ctx.need(code["promotion"]["coupon"] if code else one["coupon"], "coupon")
        found.append(Offer(coupon, code))
    return found


def deferred(session: Json, item: Json) -> bool:
    """Whether a trial puts the item off; what is sold once is paid at once."""
    return bool(session["_data"].get("trial_end") and item["price"]["recurring"])


def reckon(ctx: Context, session: Json) -> Json:
    """Sets every sum of an open session from its lines and discounts. Changes it in place."""
    items = session["line_items"]["data"]
    for item in items:
        item |= {"amount_discount": 0, "amount_tax": 0, "amount_total": item["amount_subtotal"]}
    for offer in offers(ctx, session):
        chosen = [i for i in items if i["amount_total"] and discounts.fits(offer.coupon, i["price"]["product"])]
        off = discounts.off_each(offer.coupon, [item["amount_total"] for item in chosen])
        for item, amount in zip(chosen, off, strict=True):
            item |= {
                "amount_discount": item["amount_discount"] + amount,
                "amount_total": item["amount_total"] - amount,
            }
    if session["automatic_tax"]["enabled"]:
        for item in items:
            _tax(ctx, item)
    due = [item for item in items if not deferred(session, item)]
    total = sum(item["amount_total"] for item in due)
    session |= {
        "amount_subtotal": sum(item["amount_subtotal"] for item in due),
        "amount_total": total,
        "payment_status": "unpaid" if total else "no_payment_required",
        "total_details": session["total_details"]
        | {name: sum(item[name] for item in due) for name in ("amount_discount", "amount_tax")},
    }
    return session


def _tax(ctx: Context, item: Json) -> None:
    """Tax on top is added to the line's total; tax within it is only named."""
    amount, behavior = taxes.of(ctx, item["amount_total"], item["price"]["id"])
    item["amount_tax"] = amount
    if behavior == "exclusive":
        item["amount_total"] += amount
