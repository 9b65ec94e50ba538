"""Periods computed from time alone, so that a rollover awaits no event. Starts are inclusive, ends exclusive, UTC."""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache


class Period(StrEnum):
    MONTH = "month"  # the UTC calendar month
    BILLING = "billing"
    LIFETIME = "lifetime"


@dataclass(frozen=True)
class Span:
    """One period: `start` ≤ t < `end`, in whole seconds since 1970; `end` is None when it never ends."""

    start: int
    end: int | None


LIFETIME = Span(0, None)
_MONTHS = {"month": 1, "year": 12}  # by interval


@lru_cache(maxsize=1024)  # few spans run at once
def moment(second: int) -> datetime:
    """A span's start or end as a time in UTC."""
    return datetime.fromtimestamp(second, UTC)


def month_span(at: datetime) -> Span:
    """The UTC calendar month around `at`."""
    return _month(at.year, at.month)


@lru_cache(maxsize=64)
def _month(year: int, month: int) -> Span:
    start = datetime(year, month, 1, tzinfo=UTC)
    return Span(int(start.timestamp()), int(_shift(start, 1).timestamp()))


def billing_span(anchor: datetime, interval: str, at: datetime) -> Span:
    """The billing period around `at`: the n-th starts n intervals after `anchor`.

    On the anchor's day and time, or the month's last day where it is shorter; counted from the anchor each time, so a
    31st comes back after a 28th (Stripe, billing cycle anchor). `interval` is `month` or `year`.
    """
    months = _MONTHS[interval]
    n = ((at.year - anchor.year) * 12 + at.month - anchor.month) // months
    span = _nth(anchor, months, n)
    return span if span.start <= at.timestamp() else _nth(anchor, months, n - 1)


@lru_cache(maxsize=16384)  # an account asks for the same one until it is over
def _nth(anchor: datetime, months: int, n: int) -> Span:
    return Span(int(_shift(anchor, n * months).timestamp()), int(_shift(anchor, (n + 1) * months).timestamp()))


def _shift(anchor: datetime, months: int) -> datetime:
    index = anchor.year * 12 + anchor.month - 1 + months
    year, month = divmod(index, 12)
    return anchor.replace(year=year, month=month + 1, day=min(anchor.day, monthrange(year, month + 1)[1]))
