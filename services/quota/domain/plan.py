"""What an account may do, as billing resolved it. Many accounts share one plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import IntEnum
from fractions import Fraction

from services.quota.domain.period import Period


class Kind(IntEnum):
    """Kinds of limit, in the order in which they are decided. The numbers are the contract's."""

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
    """At most `limit` units (None: counted, never refused) of all `meters` together in `period`.

    Of concurrency: at most `limit` leases at once.
    """

    name: str
    meters: tuple[str, ...]
    kind: Kind
    limit: int | None
    period: Period
    refusal: Refusal
    # For rates: units in any `window`, counted for each API key when `per_key`, else for the account.
    # For concurrency: how long a lease lasts unless its caller says otherwise.
    window: timedelta | None = None
    per_key: bool = False
    # For quotas and caps: percentages of the limit that are announced when use comes to them, ascending.
    warn_percent: tuple[int, ...] = ()
    window_us: int = field(init=False, compare=False, repr=False)
    is_cap: bool = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.kind is Kind.RATE and (self.window is None or self.window <= timedelta(0)):
            raise ValueError(f"the rate {self.name!r} has no window")
        object.__setattr__(self, "window_us", (self.window or timedelta(0)) // timedelta(microseconds=1))
        object.__setattr__(self, "is_cap", self.kind is Kind.CAP)


@dataclass(frozen=True)
class Meter:
    """Something that is counted. `gate` names the capability it needs, or is empty; `suspended` answers for a
    kill switch.
    """

    name: str
    gate: str
    gate_refusal: Refusal
    suspended: Refusal = SUSPENDED
    # Whether a use passes, uncounted, while the store cannot be reached.
    on_store_down_allow: bool = False
    # Minor units of `currency` for a unit beyond `included_units` of a billing period, as a decimal string. Empty: it
    # is not sold by the unit.
    overage_unit_price: str = ""
    currency: str = ""
    included_units: int = 0

    @property
    def price(self) -> Fraction:
        """Of a unit beyond the included ones; 0 when there is none."""
        return Fraction(self.overage_unit_price or 0)


@dataclass(frozen=True)
class Rules:
    """What decides on a meter, sorted once for all uses; within a kind the catalog's order stands."""

    meter: Meter
    rates: tuple[Limit, ...]  # those that refuse: others are neither kept nor shown
    counted: tuple[Limit, ...]  # quotas, then caps
    slots: tuple[Limit, ...]  # concurrency
    sold: bool  # by the unit
    warned: bool  # some limit of it names percentages


@dataclass(frozen=True)
class Plan:
    tier: str
    meters: Mapping[str, Meter]
    limits: tuple[Limit, ...]
    gates: Mapping[str, bool]
    billing_url: str = ""
    support_contact: str = ""
    # How many of a thing may be held at once; what is not listed is unlimited.
    allowances: Mapping[str, int] = field(default_factory=dict)
    # Per meter, in the order of decision; within a kind the catalog's order stands.
    limits_of: Mapping[str, tuple[Limit, ...]] = field(init=False, compare=False, repr=False)
    # Per meter, the rates that refuse; empty when the plan has none, so that it pays nothing for them.
    rates_of: Mapping[str, tuple[Limit, ...]] = field(init=False, compare=False, repr=False)
    rules: Mapping[str, Rules] = field(init=False, compare=False, repr=False)
    sells: bool = field(init=False, compare=False, repr=False)  # some meter by the unit

    def __post_init__(self) -> None:
        ordered = sorted(self.limits, key=lambda limit: limit.kind)
        spans = {name: tuple(limit for limit in ordered if name in limit.meters) for name in self.meters}
        rules = {name: _rules(meter, spans[name]) for name, meter in self.meters.items()}
        object.__setattr__(self, "limits_of", spans)
        object.__setattr__(self, "rules", rules)
        object.__setattr__(self, "sells", any(each.sold for each in rules.values()))
        object.__setattr__(self, "rates_of", {name: each.rates for name, each in rules.items() if each.rates})


def _rules(meter: Meter, limits: tuple[Limit, ...]) -> Rules:
    counted = tuple(limit for limit in limits if limit.kind in (Kind.QUOTA, Kind.CAP))
    return Rules(
        meter=meter,
        rates=tuple(limit for limit in limits if limit.kind is Kind.RATE and limit.limit is not None),
        counted=counted,
        slots=tuple(limit for limit in limits if limit.kind is Kind.CONCURRENCY),
        sold=meter.price > 0,
        warned=any(limit.warn_percent for limit in counted),
    )
