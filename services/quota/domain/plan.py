"""What an account may do, as billing resolved it. Many accounts share one plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Limit:
    """At most `limit` units (None: counted, never refused) of all `meters` together in `period`."""

    name: str
    meters: tuple[str, ...]
    kind: Kind
    limit: int | None
    period: Period
    refusal: Refusal


@dataclass(frozen=True)
class Meter:
    """Something that is counted. `gate` names the capability it needs, or is empty."""

    name: str
    gate: str
    gate_refusal: Refusal


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

    def __post_init__(self) -> None:
        ordered = sorted(self.limits, key=lambda limit: limit.kind)
        spans = {name: tuple(limit for limit in ordered if name in limit.meters) for name in self.meters}
        object.__setattr__(self, "limits_of", spans)
