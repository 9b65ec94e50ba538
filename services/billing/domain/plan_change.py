"""What a change of plan does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from services.billing.catalog import Catalog


@dataclass(frozen=True)
class PlanChange:
    """To another price, with the prices of units beside it."""

    subscription_id: str
    price_id: str
    metered_price_ids: tuple[str, ...]
    proration_time: datetime | None


@dataclass(frozen=True)
class Preview:
    """The invoice that the change makes. Whole minor units; a negative total is credited to later invoices."""

    total: int
    amount_due: int
    currency: str
    lines: tuple[tuple[str, int], ...]  # description, amount


@dataclass(frozen=True)
class CounterChange:
    limit: str
    meters: tuple[str, ...]
    used: int
    before: int | str | None  # units, "unlimited", or None: the tier has no such limit
    after: int | str | None
    restarts: bool


def counters(
    catalog: Catalog, before: str, after: str, used: dict[str, int], *, new_period: bool
) -> list[CounterChange]:
    """What happens to each limit of either tier. What is used stays counted, unless the limit counts billing periods
    and one begins with the change, as it does with another interval."""
    old, new = _numbers(catalog, before), _numbers(catalog, after)
    return [
        CounterChange(
            limit=name,
            meters=tuple(limit.meters),
            used=used.get(name, 0),
            before=old.get(name),
            after=new.get(name),
            restarts=new_period and limit.period == "billing_period",
        )
        for name, limit in catalog.limits.items()
        if name in old or name in new
    ]


def _numbers(catalog: Catalog, tier: str) -> dict[str, int | str]:
    numbers: dict[str, int | str] = {}
    for each in catalog.lineage(tier):
        numbers |= each.limits
    return numbers
