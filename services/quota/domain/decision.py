"""One decision: kill switch → gate → rate → quota → cap → concurrency, all or nothing.

`decide` looks at every limit before anything is counted; `charge` counts afterwards. So a refusal by one limit has
consumed nothing of another.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from services.quota.domain import rate
from services.quota.domain.account import Account
from services.quota.domain.kill_switch import ALL, KILL_SWITCH
from services.quota.domain.period import Period
from services.quota.domain.plan import Kind, Limit, Meter, Refusal
from services.quota.errors import CounterFull, UnknownMeter

# What a counter can hold: the contract's int64.
COUNTER_MAX = 2**63 - 1

# Limits that a counter decides. Rates keep a log; leases keep other state. Each has its place in the order of `Kind`.
_COUNTED = (Kind.QUOTA, Kind.CAP)


@dataclass
class LimitState:
    """A limit as it stands after a decision. `limit` None: unlimited. `reset` None: never.

    A rate has a `window`; with nothing used in it there is nothing to reset.
    """

    name: str
    used: int
    limit: int | None
    reset: datetime | None
    window: timedelta | None = None

    @property
    def remaining(self) -> int | None:
        return None if self.limit is None else max(0, self.limit - self.used)


@dataclass(frozen=True)
class Refused:
    """Why not: the limit that binds, and what the catalog says of it."""

    limit: str
    refusal: Refusal
    billing_url: str
    support_contact: str
    retry_after: timedelta | None


@dataclass
class Decision:
    """The answer to one use. Allowed exactly when `refused` is None."""

    tier: str
    version: int
    limits: list[LimitState]
    refused: Refused | None = None
    replayed: bool = False
    # What storage or transport made of it, so that ledger and caller get the same without making it twice.
    rendered: Any = field(default=None, compare=False, repr=False)

    @property
    def allowed(self) -> bool:
        return self.refused is None


def decide(
    account: Account, meter_name: str, amount: int, *, switches: Collection[str] = (), key_id: str = ""
) -> Decision:
    """Whether the account may use `amount` units (≥ 1) of the meter at `account.at`. Changes nothing.

    `switches` are the kill switches that are thrown: names of meters, or `ALL`. `key_id` is the API key that the use
    came with.
    Raises UnknownMeter, CounterFull.
    """
    plan = account.plan
    meter = plan.meters.get(meter_name)
    if meter is None:
        raise UnknownMeter(meter_name)
    refused = _closed(account, meter, switches)
    rates = plan.rates_of.get(meter_name, ())
    if rates and refused is None:
        refused = _too_fast(account, rates, amount, key_id)
    weighed = [(limit, _used(account, limit)) for limit in plan.limits_of[meter_name] if limit.kind in _COUNTED]
    for limit, used in weighed:
        if refused is None and limit.limit is not None and used + amount > limit.limit:
            refused = _refusal(account, limit.name, limit.refusal, _retry_after(account, limit, amount))
    counted = amount if refused is None else 0
    if counted and account.used(meter_name, Period.LIFETIME) > COUNTER_MAX - counted:
        raise CounterFull(meter_name)
    states = [
        LimitState(limit.name, min(COUNTER_MAX, used + counted), limit.limit, _reset(account, limit))
        for limit, used in weighed
    ]
    if rates:
        states[:0] = [_rate_state(account, each, counted, key_id) for each in rates]
    return Decision(plan.tier, account.version, states, refused)


def charge(account: Account, meter_name: str, amount: int, key_id: str = "") -> None:
    """Counts units that were allowed, in every period at once, so a plan that changes the period finds them."""
    cells = account.counters.setdefault(meter_name, {})
    for period, span in account.spans.items():
        cells[period] = [span.start, account.used(meter_name, period) + amount]
    for each in account.plan.rates_of.get(meter_name, ()):
        log = account.rates.setdefault((each.name, key_id if each.per_key else ""), [])
        rate.add(log, each.limit or 0, each.window_us, rate.instant(account.at), amount)


def _closed(account: Account, meter: Meter, switches: Collection[str]) -> Refused | None:
    """Refusals that no number changes: the kill switch, then the gate."""
    if switches and (ALL in switches or meter.name in switches):
        return _refusal(account, KILL_SWITCH, meter.suspended)
    if meter.gate and not account.plan.gates.get(meter.gate, False):
        return _refusal(account, meter.gate, meter.gate_refusal)
    return None


def _too_fast(account: Account, rates: tuple[Limit, ...], amount: int, key_id: str) -> Refused | None:
    """The first rate that has no room. It is worth trying again once all of them have."""
    now = rate.instant(account.at)
    waits = [rate.free_in(account.log(each, key_id), each.limit or 0, each.window_us, now, amount) for each in rates]
    late = next((each for each, wait in zip(rates, waits, strict=True) if wait is None or wait), None)
    if late is None:
        return None
    return _refusal(account, late.name, late.refusal, None if None in waits else max(filter(None, waits)))


def _rate_state(account: Account, each: Limit, counted: int, key_id: str) -> LimitState:
    now, log = rate.instant(account.at), account.log(each, key_id)
    used = rate.used(log, each.window_us, now) + counted
    reset = rate.reset(log, each.limit or 0, each.window_us, now, counted)
    return LimitState(each.name, used, each.limit, reset, each.window)


def _refusal(account: Account, name: str, refusal: Refusal, retry_after: timedelta | None = None) -> Refused:
    # 402 asks for money: only then does the way to pay belong into the answer.
    billing_url = account.plan.billing_url if refusal.http_status == 402 else ""
    return Refused(name, refusal, billing_url, account.plan.support_contact, retry_after)


def _used(account: Account, limit: Limit) -> int:
    """Units of all the limit's meters in its period."""
    if len(limit.meters) == 1:
        return account.used(limit.meters[0], limit.period)
    return min(COUNTER_MAX, sum(account.used(meter, limit.period) for meter in limit.meters))


def _reset(account: Account, limit: Limit) -> datetime | None:
    end = account.spans[limit.period].end
    return None if end is None else datetime.fromtimestamp(end, UTC)


def _retry_after(account: Account, limit: Limit, amount: int) -> timedelta | None:
    """Until the limit starts from zero, if the amount fits then."""
    reset = _reset(account, limit)
    if reset is None or limit.limit is None or amount > limit.limit:
        return None
    return reset - account.at
