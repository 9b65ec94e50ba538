"""What an account may do, as billing resolved it. Many accounts share one plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import IntEnum

from services.quota.domain.period import Period


class Kind(IntEnum):
    """Kinds of limit, in the order in which they are decided."""

    RATE = 1
    QUOTA = 2
    CAP = 3
    CONCURRENCY = 4


@dataclass(frozen=True)
class Refusal:
    """The catalog's words: `reason` is snake_case, `http_status` for REST callers, `detail` one sentence."""

    reason: str
    http_status: int
    detail: str


SUSPENDED = Refusal("suspended", 503, "This is suspended for the moment. Try again later.")


@dataclass(frozen=True)
class Limit:
    """At most `limit` units (None: counted, never refused) of all `meters` together in `period`."""

    name: str
    meters: tuple[str, ...]
    kind: Kind
    limit: int | None
    period: Period
    refusal: Refusal
    # For rates: units in any `window`, counted for each API key when `per_key`, else for the account.
    window: timedelta | None = None
    per_key: bool = False
    window_us: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.kind is Kind.RATE and (self.window is None or self.window <= timedelta(0)):
            raise ValueError(f"the rate {self.name!r} has no window")
        object.__setattr__(self, "window_us", (self.window or timedelta(0)) // timedelta(microseconds=1))


@dataclass(frozen=True)
class Meter:
    """Something that is counted. `gate` names the capability it needs, or is empty; `suspended` answers for a
    kill switch.
    """

    name: str
    gate: str
    gate_refusal: Refusal
    suspended: Refusal = SUSPENDED


@dataclass(frozen=True)
class Plan:
    tier: str
    meters: Mapping[str, Meter]
    limits: tuple[Limit, ...]
    gates: Mapping[str, bool]
    billing_url: str = ""
    support_contact: str = ""
    # Per meter, in the order of decision; within a kind the catalog's order stands.
    limits_of: Mapping[str, tuple[Limit, ...]] = field(init=False, compare=False, repr=False)
    # Per meter, the rates that refuse; empty when the plan has none, so that it pays nothing for them.
    rates_of: Mapping[str, tuple[Limit, ...]] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        ordered = sorted(self.limits, key=lambda limit: limit.kind)
        spans = {name: tuple(limit for limit in ordered if name in limit.meters) for name in self.meters}
        object.__setattr__(self, "limits_of", spans)
        bound = {
            name: tuple(limit for limit in those if limit.kind is Kind.RATE and limit.limit is not None)
            for name, those in spans.items()
        }
        object.__setattr__(self, "rates_of", {name: those for name, those in bound.items() if those})
