"""Billing periods from an anchor, by Stripe's month-end rule: the 31st bills on a shorter month's last day, then on the
31st again."""

from __future__ import annotations

import calendar
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

DAY = 86_400
HOUR = 3_600


def step(anchor: int, interval: str, count: int) -> int:
    """`count` intervals after the anchor, always counted from the anchor (unix seconds, UTC)."""
    start = datetime.fromtimestamp(anchor, UTC)
    if interval in ("day", "week"):
        return int((start + timedelta(days=count * (7 if interval == "week" else 1))).timestamp())
    months = start.month - 1 + count * (12 if interval == "year" else 1)
    year, month = start.year + months // 12, months % 12 + 1
    day = min(start.day, calendar.monthrange(year, month)[1])
    return int(start.replace(year=year, month=month, day=day).timestamp())


def next_end(anchor: int, after: int, interval: str, interval_count: int) -> int:
    """The first boundary of the anchor's series that is later than `after`."""
    length = {"day": DAY, "week": 7 * DAY, "month": 28 * DAY, "year": 365 * DAY}[interval] * interval_count
    # Never overshoots: no interval is shorter than `length`, but for a leap year's extra days.
    periods = max(0, (after - anchor) // (length + 4 * DAY * interval_count) - 1)
    while (end := step(anchor, interval, periods * interval_count)) <= after:
        periods += 1
    return end


def share(amount: int, item: Mapping[str, Any], at: int) -> int:
    """The part of an amount for the item's whole period that falls on the time after `at`, rounded half up."""
    begin, end = item["current_period_start"], item["current_period_end"]
    left = min(max(0, end - at), end - begin)
    return int((Decimal(amount) * left / (end - begin)).quantize(Decimal(1), ROUND_HALF_UP))
