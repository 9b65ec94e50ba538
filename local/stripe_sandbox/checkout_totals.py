"""What a Checkout session comes to: its lines, less what its discount takes off."""

from __future__ import annotations

from . import discounts
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
        item |= {"amount_discount": 0, "amount_total": item["amount_subtotal"]}
    for offer in offers(ctx, session):
        chosen = [i for i in items if i["amount_total"] and discounts.fits(offer.coupon, i["price"]["product"])]
        off = discounts.off_each(offer.coupon, [item["amount_total"] for item in chosen])
        for item, amount in zip(chosen, off, strict=True):
            item |= {
                "amount_discount": item["amount_discount"] + amount,
                "amount_total": item["amount_total"] - amount,
            }
    due = [item for item in items if not deferred(session, item)]
    total = sum(item["amount_total"] for item in due)
    session |= {
        "amount_subtotal": sum(item["amount_subtotal"] for item in due),
        "amount_total": total,
        "payment_status": "unpaid" if total else "no_payment_required",
        "total_details": session["total_details"] | {"amount_discount": sum(i["amount_discount"] for i in due)},
    }
    return session
