"""One decision: kill switch → gate → rate → quota → cap → concurrency, all or nothing.

`decide` looks at every limit before anything is counted; `charge` counts afterwards. So a refusal by one limit has
consumed nothing of another.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from services.quota.domain import rate
from services.quota.domain.account import Account
from services.quota.domain.cap import in_force
from services.quota.domain.kill_switch import ALL, KILL_SWITCH
from services.quota.domain.lease import Lease
from services.quota.domain.period import Period, moment
from services.quota.domain.plan import Kind, Limit, Meter, Refusal
from services.quota.domain.selling import is_sold, sold, turn
from services.quota.errors import CounterFull, UnknownMeter

# What a counter can hold: the contract's int64.
COUNTER_MAX = 2**63 - 1
_RATE, _CONCURRENCY = Kind.RATE, Kind.CONCURRENCY
_BILLING = Period.BILLING.value
# Those that no subscription moves. Of the other one see `selling`.
PLAIN = (Period.MONTH.value, Period.LIFETIME.value)
_Measured = tuple[Limit, rate.Log, int]  # a rate, what was granted under it, and the units of that in its window now


@dataclass
class LimitState:
    """A limit as it stands after a decision. `limit` None: unlimited. `reset` None: never.

    A rate has a `window`; with nothing used in it there is nothing to reset. `used` of a quota or a cap contains what
    live leases hold in reserve; of concurrency it is the live leases. `auto_stop`: a cap that refuses.
    """

    name: str
    used: int
    limit: int | None
    reset: datetime | None
    window: timedelta | None = None
    kind: Kind = Kind.QUOTA
    auto_stop: bool = False

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
    # Units of this use beyond those that the plan includes in its billing period; 0 where they cost nothing.
    overage_units: int = 0
    # Allowed without the store, which could not be reached: nothing was counted.
    unverified: bool = False
    lease: Lease | None = None
    # What storage or transport made of it, so that ledger and caller get the same without making it twice.
    rendered: Any = field(default=None, compare=False, repr=False)

    @property
    def allowed(self) -> bool:
        return self.refused is None


def decide(
    account: Account,
    meter_name: str,
    amount: int,
    *,
    switches: Collection[str] = (),
    key_id: str = "",
    reserve: int = 0,
    slot: bool = False,
) -> Decision:
    """Whether the account may use `amount` units of the meter at `account.at`. Changes nothing.

    `switches` are the kill switches that are thrown: names of meters, or `ALL`. `key_id` is the API key that the use
    came with. For a lease `reserve` units more have to fit quotas and caps, and `slot` asks for a place in the meter's
    concurrency. Raises UnknownMeter, CounterFull.
    """
    plan = account.plan
    rules = plan.rules.get(meter_name)
    if rules is None:
        raise UnknownMeter(meter_name)
    refusals = _closed(account, rules.meter, switches) if switches or rules.meter.gate else []
    rates = _rates(account, rules.rates, key_id) if rules.rates else []
    if rates and amount:
        refusals += _too_fast(account, rates, amount)
    wanted, leases, terms = amount + reserve, account.leases, account.terms
    states = []
    for limit in rules.counted:
        used = _used(account, limit)
        most, stops = in_force(account, limit) if terms and limit.is_cap else (limit.limit, True)
        if most is not None and used + wanted > most and wanted and stops:
            refusals.append(_refusal(account, limit, _retry_after(account, limit, most, used, wanted)))
        states.append(
            LimitState(limit.name, used, most, _reset(account, limit), None, limit.kind, limit.is_cap and stops)
        )
    for limit in rules.slots:
        live = account.slots(limit.meters) if leases else 0
        if slot and limit.limit is not None and live >= limit.limit:
            refusals.append(_refusal(account, limit, _slot_after(account, limit, limit.limit)))
        states.append(LimitState(limit.name, live, limit.limit, None, None, _CONCURRENCY))
    refused = _first(refusals) if refusals else None
    counted = overage = 0
    if refused is None:
        counted = amount
        held = account.reserved((meter_name,)) if leases else 0
        if account.used(meter_name, Period.LIFETIME) > COUNTER_MAX - wanted - held:
            raise CounterFull(meter_name)
        for state in states:
            if state.kind is not _CONCURRENCY:
                state.used = min(COUNTER_MAX, state.used + wanted)
            elif slot:
                state.used += 1
        if rules.sold:
            before = sold(account, meter_name)
            overage = max(0, before + amount - max(before, rules.meter.included_units))
    if rates:
        states[:0] = [_rate_state(account, *each, counted) for each in rates]
    return Decision(plan.tier, account.version, states, refused, False, overage)


def limit_states(account: Account, meter_name: str, key_id: str = "") -> list[LimitState]:
    """The limits of a meter as they stand, when nothing is asked. Empty when the plan has no such meter."""
    return decide(account, meter_name, 0, key_id=key_id).limits if meter_name in account.plan.rules else []


def charge(account: Account, meter_name: str, amount: int, key_id: str = "") -> None:
    """Counts units that were allowed."""
    count(account, meter_name, amount)
    for each in account.plan.rates_of.get(meter_name, ()):
        name = (each.name, key_id if each.per_key else "")
        log = account.rates.get(name)
        if log is None:
            log = account.rates[name] = rate.new()
        rate.add(log, each.limit or 0, each.window_us, account.now, amount)


def count(account: Account, meter_name: str, amount: int) -> None:
    """In every period at once, so that a plan that changes the period finds them. Not in rates."""
    cells = account.counters.get(meter_name)
    if cells is None:
        cells = account.counters[meter_name] = {}
    for period in PLAIN:
        start, cell = account.spans[period].start, cells.get(period)
        if cell is None or cell[0] < start:
            cells[period] = [start, amount]
        else:
            cell[1] += amount
    billing, running = cells.get(_BILLING), account.spans[_BILLING]
    if billing is None or billing[0] != running.start or billing[3:4] != [running.end]:
        billing = turn(account, meter_name)
    billing[1] += amount
    if not is_sold(account, meter_name):
        billing[2] += amount


def counted_units(account: Account, limit: Limit) -> int:
    """Units counted of all the limit's meters in its period, without what leases hold."""
    units = 0
    for meter in limit.meters:
        units += account.used(meter, limit.period)
    return units


def cap_state(account: Account, limit: Limit) -> LimitState:
    """A cap as it stands."""
    most, stops = in_force(account, limit)
    return LimitState(limit.name, _used(account, limit), most, _reset(account, limit), None, limit.kind, stops)


def refusal_of(
    account: Account, name: str, refusal: Refusal, retry_after: timedelta | None = None, *, pay: bool = True
) -> Refused:
    # 402 asks for money: only then does the way to pay belong into the answer, and only if paying helps.
    billing_url = account.plan.billing_url if refusal.http_status == 402 and pay else ""
    return Refused(name, refusal, billing_url, account.plan.support_contact, retry_after)


def _refusal(account: Account, limit: Limit, retry_after: timedelta | None) -> Refused:
    return refusal_of(account, limit.name, limit.refusal, retry_after, pay=not limit.is_cap)


def _first(refusals: list[Refused]) -> Refused:
    """It is worth trying again once none of the others refuses any more, either."""
    if len(refusals) == 1:
        return refusals[0]
    waits = [each.retry_after for each in refusals if each.retry_after is not None]
    return replace(refusals[0], retry_after=max(waits) if len(waits) == len(refusals) else None)


def _closed(account: Account, meter: Meter, switches: Collection[str]) -> list[Refused]:
    """Refusals that no number changes: the kill switch, then the gate."""
    closed = []
    if switches and (ALL in switches or meter.name in switches):
        closed.append(refusal_of(account, KILL_SWITCH, meter.suspended))
    if meter.gate and not account.plan.gates.get(meter.gate, False):
        closed.append(refusal_of(account, meter.gate, meter.gate_refusal))
    return closed


def _rates(account: Account, rates: Iterable[Limit], key_id: str) -> list[_Measured]:
    measured = []
    for each in rates:
        log = account.log(each, key_id)
        measured.append((each, log, rate.used(log, each.window_us, account.now)))
    return measured


def _too_fast(account: Account, rates: list[_Measured], amount: int) -> list[Refused]:
    """By the rates that have no room."""
    return [
        _refusal(account, each, rate.free_in(log, each.limit or 0, each.window_us, account.now, amount))
        for each, log, used in rates
        if used + amount > (each.limit or 0)
    ]


def _rate_state(account: Account, each: Limit, log: rate.Log, used: int, counted: int) -> LimitState:
    reset = rate.reset(log, each.limit or 0, each.window_us, account.now, counted)
    end = None if reset is None else moment(reset)
    return LimitState(each.name, used + counted, each.limit, end, each.window, _RATE)


def _used(account: Account, limit: Limit) -> int:
    """With what live leases hold, which counts in whatever period runs."""
    used = counted_units(account, limit)
    if account.leases:
        used += account.reserved(limit.meters)
    return used if used <= COUNTER_MAX else COUNTER_MAX


def _reset(account: Account, limit: Limit) -> datetime | None:
    end = account.spans[limit.period].end
    return None if end is None else moment(end)


def _retry_after(account: Account, limit: Limit, most: int, used: int, wanted: int) -> timedelta | None:
    """Until the amount fits by time alone: leases expire and give back their reserve, a new period starts from zero."""
    if wanted > most:
        return None
    reset = _reset(account, limit)
    if not account.leases:
        return None if reset is None else reset - account.at
    steps = [(lease.expire_time, lease.reserved) for lease in _live(account, limit) if lease.reserved]
    if reset is not None:
        steps.append((reset, used - sum(reserved for _, reserved in steps)))
    for when, freed in sorted(steps):
        used -= freed
        if used + wanted <= most:
            return when - account.at
    return None


def _slot_after(account: Account, limit: Limit, most: int) -> timedelta | None:
    """Until so many leases have expired that one more fits: one, unless the limit was lowered."""
    if most == 0:
        return None
    ends = sorted(lease.expire_time for lease in _live(account, limit))
    return ends[len(ends) - most] - account.at


def _live(account: Account, limit: Limit) -> list[Lease]:
    return [
        lease for lease in account.leases.values() if lease.expire_time > account.at and lease.meter in limit.meters
    ]
