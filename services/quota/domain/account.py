"""An account as one decision sees it: its plan, its counters and what it holds, at an instant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from services.quota.domain.lease import Lease
from services.quota.domain.period import LIFETIME, Period, Span, billing_span, month_span
from services.quota.domain.plan import Limit, Plan
from services.quota.domain.rate import EMPTY, Log, instant
from services.quota.domain.selling import present_cell

# meter → period → [start of the span in seconds since 1970, units used in it]; for the billing period see `selling`
Counters = dict[str, dict[str, list[int]]]
# (name of the rate, id of the API key or empty) → what was granted in the last window
Rates = dict[tuple[str, str], Log]
# What the account set on itself and what was noted about it, as JSON; see `cap`, `allowance`, `announcement`,
# `selling`.
Terms = dict[str, Any]

_MONTH, _BILLING, _LIFETIME = Period.MONTH.value, Period.BILLING.value, Period.LIFETIME.value


@dataclass
class Account:
    """State read under the account's lock. `at` is business time, UTC; counters change only through `charge`.

    `leases` may hold expired ones: they count for nothing.
    """

    id: str
    version: int
    plan: Plan
    anchor: datetime | None
    interval: str
    counters: Counters
    at: datetime
    rates: Rates = field(default_factory=dict)
    leases: dict[str, Lease] = field(default_factory=dict)
    terms: Terms = field(default_factory=dict)
    now: int = field(init=False)  # `at` as rates have it, in microseconds since 1970
    spans: Mapping[str, Span] = field(init=False)  # by period; plain strings, as counters have them
    _held: dict[str, list[int]] | None = field(default=None, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        self.now = instant(self.at)
        if self.anchor is None or not self.interval:
            self.spans = _spans_without_subscription(self.at)
        else:
            billing = billing_span(self.anchor, self.interval, self.at)
            self.spans = {_MONTH: month_span(self.at), _BILLING: billing, _LIFETIME: LIFETIME}

    def used(self, meter: str, period: Period) -> int:
        """Units counted of the meter in the span that runs now."""
        cells = self.counters.get(meter)
        if cells is None or (cell := cells.get(period)) is None:
            return 0
        start = self.spans[period].start
        if cell[0] == start:
            return cell[1]
        if period == _BILLING:
            return present_cell(self, meter)[1]
        return cell[1] if cell[0] > start else 0  # later by a clock that was set back

    def log(self, rate: Limit, key_id: str) -> Log:
        """What was granted under the rate. Uses without an API key share a log of their own."""
        return self.rates.get((rate.name, key_id if rate.per_key else ""), EMPTY)

    def live(self, lease_id: str) -> Lease | None:
        """The lease, unless it ended or expired."""
        lease = self.leases.get(lease_id)
        return lease if lease is not None and lease.expire_time > self.at else None

    def slots(self, meters: Iterable[str]) -> int:
        """Live leases of the meters."""
        held = self._holds()
        return sum(held[meter][0] for meter in meters if meter in held)

    def reserved(self, meters: Iterable[str]) -> int:
        """Units that live leases of the meters hold."""
        held = self._holds()
        return sum(held[meter][1] for meter in meters if meter in held)

    def hold(self, lease: Lease) -> None:
        """Adds a live lease, or puts it in the place of its former self."""
        self.end(lease.id)
        self.leases[lease.id] = lease
        held = self._holds().setdefault(lease.meter, [0, 0])
        held[0] += 1
        held[1] += lease.reserved

    def end(self, lease_id: str) -> None:
        """What it held is free. One that is not there, or that expired, held nothing."""
        lease = self.live(lease_id)
        held = self._holds()
        self.leases.pop(lease_id, None)
        if lease is not None:
            held[lease.meter][0] -= 1
            held[lease.meter][1] -= lease.reserved

    def _holds(self) -> dict[str, list[int]]:
        """Meter → [live leases, units in reserve]: counted once, for an account may hold thousands."""
        held = self._held
        if held is None:
            held = self._held = {}
            for lease in self.leases.values():
                if lease.expire_time > self.at:
                    each = held.setdefault(lease.meter, [0, 0])
                    each[0] += 1
                    each[1] += lease.reserved
        return held


@lru_cache(maxsize=16)  # a batch has one instant
def _spans_without_subscription(at: datetime) -> Mapping[str, Span]:
    """Where there is no billing period, the calendar month stands in for it."""
    month = month_span(at)
    return {_MONTH: month, _BILLING: month, _LIFETIME: LIFETIME}
