"""Automatic tax at one rate for everybody, set under `/_sandbox/settings` (`tax_percent`; none unless set)."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

from .context import Context
from .store import Json

DEFAULT_PERCENT = "0"


def rate(ctx: Context) -> Decimal:
    """The tax as a part of one."""
    return Decimal(ctx.store.setting("tax_percent", DEFAULT_PERCENT)) / 100


def of(ctx: Context, amount: int, price_id: str | None) -> tuple[int, str]:
    """The tax on an amount for a price, in minor units rounded half up, and whether it is `inclusive` in the amount or
    comes on top (`exclusive`, also where the price does not say)."""
    price = ctx.store.get(price_id, "price") if price_id else None
    part = rate(ctx)
    inclusive = price is not None and price["tax_behavior"] == "inclusive"
    exact = amount * part / (1 + part) if inclusive else amount * part
    return int(exact.quantize(Decimal(1), ROUND_HALF_UP)), "inclusive" if inclusive else "exclusive"


def levy(ctx: Context, invoice: Json) -> tuple[int, int]:
    """Sets `taxes` of each line and `total_taxes`, on what discounts left; returns the tax on top and that within."""
    totals: dict[str, Json] = {}
    for line in invoice["lines"]["data"]:
        line["taxes"] = []
        if not invoice["automatic_tax"]["enabled"] or not rate(ctx):
            continue
        left = line["amount"] - sum(one["amount"] for one in line["discount_amounts"])
        price = ((line["pricing"] or {}).get("price_details") or {}).get("price")
        amount, behavior = of(ctx, left, price)
        taxed = {
            "amount": amount,
            "tax_behavior": behavior,
            "tax_rate_details": {"tax_rate": "txr_1SandboxSandboxSandbox00"},
            "taxability_reason": "standard_rated",
            "taxable_amount": left if behavior == "exclusive" else left - amount,
            "type": "tax_rate_details",
        }
        line["taxes"] = [taxed]
        total = totals.setdefault(behavior, taxed | {"amount": 0, "taxable_amount": 0})
        total["amount"] += taxed["amount"]
        total["taxable_amount"] += taxed["taxable_amount"]
    invoice["total_taxes"] = list(totals.values())
    on_top, within = (totals.get(behavior, {"amount": 0})["amount"] for behavior in ("exclusive", "inclusive"))
    return on_top, within
