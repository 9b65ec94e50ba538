"""An account as one decision sees it: its plan and its counters, at an instant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from services.quota.domain.period import LIFETIME, Period, Span, billing_span, month_span
from services.quota.domain.plan import Limit, Plan
from services.quota.domain.rate import Log

# meter → period → [start of the span in seconds since 1970, units used in it]
Counters = dict[str, dict[str, list[int]]]
# (name of the rate, id of the API key or empty) → what was granted in the last window
Rates = dict[tuple[str, str], Log]


@dataclass
class Account:
    """State read under the account's lock. `at` is business time, UTC; counters change only through `charge`."""

    id: str
    version: int
    plan: Plan
    anchor: datetime | None
    interval: str
    counters: Counters
    at: datetime
    rates: Rates = field(default_factory=dict)
    spans: Mapping[Period, Span] = field(init=False)

    def __post_init__(self) -> None:
        if self.anchor is None or not self.interval:
            self.spans = _spans_without_subscription(self.at)
        else:
            billing = billing_span(self.anchor, self.interval, self.at)
            self.spans = {Period.MONTH: month_span(self.at), Period.BILLING: billing, Period.LIFETIME: LIFETIME}

    def used(self, meter: str, period: Period) -> int:
        """Units used of the meter in the span that runs now."""
        cells = self.counters.get(meter)
        if cells is None or (cell := cells.get(period)) is None:
            return 0
        # A span that began earlier is over. One that began later was counted under an anchor that has moved back
        # since (a subscription ended): all of it lies in the present span too, so it still counts.
        return cell[1] if cell[0] >= self.spans[period].start else 0

    def log(self, rate: Limit, key_id: str) -> Log:
        """What was granted under the rate. Uses without an API key share a log of their own."""
        return self.rates.get((rate.name, key_id if rate.per_key else ""), [])


@lru_cache(maxsize=16)  # a batch has one instant
def _spans_without_subscription(at: datetime) -> Mapping[Period, Span]:
    """Where there is no billing period, the calendar month stands in for it."""
    month = month_span(at)
    return {Period.MONTH: month, Period.BILLING: month, Period.LIFETIME: LIFETIME}
