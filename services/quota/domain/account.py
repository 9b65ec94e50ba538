"""An account as one decision sees it: its plan and its counters, at an instant."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from services.quota.domain.period import LIFETIME, Period, Span, billing_span, month_span
from services.quota.domain.plan import Plan

# meter → period → [start of the span in seconds since 1970, units used in it]
Counters = dict[str, dict[str, list[int]]]


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
    spans: dict[Period, Span] = field(init=False)

    def __post_init__(self) -> None:
        month = month_span(self.at)
        # Without a subscription there is no billing period: the calendar month stands in for it.
        subscribed = self.anchor is not None and self.interval
        billing = billing_span(self.anchor, self.interval, self.at) if self.anchor and subscribed else month
        self.spans = {Period.MONTH: month, Period.BILLING: billing, Period.LIFETIME: LIFETIME}

    def used(self, meter: str, period: Period) -> int:
        """Units used of the meter in the span that runs now."""
        cells = self.counters.get(meter)
        if cells is None or (cell := cells.get(period)) is None:
            return 0
        # A span that began earlier is over. One that began later was counted under an anchor that has moved back
        # since (a subscription ended): all of it lies in the present span too, so it still counts.
        return cell[1] if cell[0] >= self.spans[period].start else 0
