"""What a number of used units costs: per unit, or by graduated or volume tiers
(https://docs.stripe.com/products-prices/pricing-models#tiered-pricing)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from .store import Json


@dataclass(frozen=True)
class Part:
    """Units at one price, in minor units; `tier` counts from 1, or is None where there are none."""

    quantity: Decimal
    unit: Decimal
    flat: Decimal = Decimal(0)
    tier: int | None = None

    @property
    def amount(self) -> int:
        """Whole minor units, rounded half up."""
        return int((self.quantity * self.unit + self.flat).quantize(Decimal(1), ROUND_HALF_UP))


def parts(price: Json, used: Decimal) -> list[Part]:
    """The parts of an invoice for so many units: one per tier that is reached, the first even for none."""
    tiers = price.get("tiers")
    if not tiers:
        return [Part(used, Decimal(price["unit_amount_decimal"]))]
    if price["tiers_mode"] == "volume":
        for number, tier in enumerate(tiers, 1):
            if tier["up_to"] is None or used <= tier["up_to"]:
                return [_part(used, tier, number)]
    return list(_graduated(tiers, used))


def _graduated(tiers: list[Json], used: Decimal) -> Iterator[Part]:
    begin = Decimal(0)
    for number, tier in enumerate(tiers, 1):
        end = used if tier["up_to"] is None else min(used, Decimal(tier["up_to"]))
        if number == 1 or end > begin:
            yield _part(end - begin, tier, number)
            begin = end


def _part(quantity: Decimal, tier: Json, number: int) -> Part:
    return Part(quantity, Decimal(tier["unit_amount_decimal"] or 0), Decimal(tier["flat_amount_decimal"] or 0), number)


def amount(price: Json, used: Decimal) -> int:
    return sum(part.amount for part in parts(price, used))
