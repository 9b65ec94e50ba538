"""ports.Decider as plain Python: a list of what happened, counted again for every question.

It reads plans and makes answers of the domain's classes; of the rules it shares no line with the engine.
"""

from __future__ import annotations

from calendar import monthrange
from collections import defaultdict
from collections.abc import Awaitable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from services.kit.errors import TollwayError
from services.quota.domain import (
    Acquire,
    AdjustAllowance,
    Adjusted,
    AllowanceState,
    Announcement,
    CapReached,
    Command,
    Decision,
    Kind,
    Lease,
    Limit,
    LimitState,
    Outcome,
    Period,
    Plan,
    Refusal,
    Refused,
    Release,
    Renew,
    Reversal,
    Reverse,
    SetCap,
    Settle,
    Unknown,
    UsageRecorded,
    UsageThresholdReached,
    Use,
)
from services.quota.errors import (
    CapNotOffered,
    GrantNotFound,
    GrantReversed,
    KeyReused,
    LeaseNotFound,
    NotSoldByUnit,
    SettledTooMuch,
    UnknownMeter,
)
from services.quota.events import to_plan, to_snapshot
from tollway.billing.v1 import entitlement_pb2

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
COUNTED = (Kind.QUOTA, Kind.CAP)


@dataclass
class Line:
    """Something that was granted. `what`: use, acquire, settle or allowance."""

    what: str
    at: datetime
    key: str
    meter: str
    amount: int
    key_id: str = ""
    asked: tuple[object, ...] = ()  # what a repeat of the key has to ask again
    rates: frozenset[str] = frozenset()  # those of its meter in the plan at the time
    answer: Any = None
    lease_id: str = ""
    reversed_at: datetime | None = None


@dataclass
class OwnCap:
    asked: SetCap
    told: datetime | None = None  # start of the period in which it was announced


@dataclass
class ModelAccount:
    id: str
    plan: Plan
    version: int = 1
    anchor: datetime | None = None
    interval: str = ""
    lines: list[Line] = field(default_factory=list)
    leases: dict[str, Lease] = field(default_factory=dict)
    caps: dict[str, OwnCap] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    told: set[tuple[str, int, datetime]] = field(default_factory=set)
    # Meter and start of a billing period → units used in it while the plan sold the meter, and while it did not.
    billed: dict[tuple[str, datetime], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))

    def sells(self, meter: str) -> bool:
        found = self.plan.meters.get(meter)
        return found is not None and Decimal(found.overage_unit_price or 0) > 0

    def by_key(self, key: str) -> Line | None:
        return next((line for line in self.lines if key and line.key == key), None)

    def span(self, period: Period, at: datetime) -> tuple[datetime, datetime | None]:
        if period is Period.LIFETIME:
            return EPOCH, None
        first, months = datetime(at.year, at.month, 1, tzinfo=UTC), 1
        if period is Period.BILLING and self.anchor is not None and self.interval:
            first, months = self.anchor, {"month": 1, "year": 12}[self.interval]
        bounds = [later(first, n * months) for n in range(-60, 240)]
        return max(b for b in bounds if b <= at), min(b for b in bounds if b > at)

    def counted(self, meters: Collection[str], period: Period, at: datetime) -> int:
        start = self.span(period, at)[0]
        return sum(
            line.amount
            for line in self.lines
            if line.what != "allowance" and line.meter in meters and line.at >= start and line.reversed_at is None
        )

    def live(self, meters: Collection[str], at: datetime) -> list[Lease]:
        return [lease for lease in self.leases.values() if lease.meter in meters and lease.expire_time > at]


def later(anchor: datetime, months: int) -> datetime:
    """As many months later: on the same day, or the month's last."""
    year, month = divmod(anchor.year * 12 + anchor.month - 1 + months, 12)
    return anchor.replace(year=year, month=month + 1, day=min(anchor.day, monthrange(year, month + 1)[1]))


class Model:
    """Accounts by id. `decide` takes the business time; what it announced gathers in `announced`."""

    def __init__(self, *accounts: ModelAccount) -> None:
        self.accounts = {account.id: account for account in accounts}
        self.announced: list[Announcement] = []

    def decide(self, command: Command, at: datetime, switches: Collection[str] = ()) -> Outcome:
        account = self.accounts.get(command.account_id)
        if account is None:
            return Unknown()
        try:
            match command:
                case Use():
                    return self._use(command, account, at, switches)
                case Acquire():
                    return self._acquire(command, account, at, switches)
                case Reverse():
                    return self._reverse(command, account, at)
                case SetCap():
                    return self._set_cap(command, account, at)
                case AdjustAllowance():
                    return self._adjust(command, account, at)
                case _:
                    return self._of_lease(command, account, at)
        except TollwayError as error:
            return error

    def _use(self, use: Use, account: ModelAccount, at: datetime, switches: Collection[str]) -> Decision:
        line = None if use.dry_run else account.by_key(use.key)
        asked = ("use", use.meter, use.amount)
        if line is not None:
            return _again(line, asked)
        decision = _decide(account, use.meter, use.amount, 0, False, use.key_id, at, switches)
        if decision.refused is None and not use.dry_run:
            self._count(
                account, Line("use", at, use.key, use.meter, use.amount, use.key_id, asked, answer=decision), at
            )
        if decision.refused is not None and not use.dry_run:
            self._refused_by(decision.refused.limit, account, at)
        return decision

    def _acquire(self, ask: Acquire, account: ModelAccount, at: datetime, switches: Collection[str]) -> Decision:
        asked = ("acquire", ask.meter, ask.amount, ask.reserve)
        if (line := account.by_key(ask.key)) is not None:
            return _again(line, asked)
        decision = _decide(account, ask.meter, ask.amount, ask.reserve, True, ask.key_id, at, switches)
        if decision.refused is None:
            until = at + lasting(account.plan, ask.meter, ask.duration)
            decision.lease = Lease(ask.lease_id, account.id, ask.meter, ask.reserve, at, until, ask.key_id)
            line = Line("acquire", at, ask.key, ask.meter, ask.amount, ask.key_id, asked, answer=decision)
            line.lease_id = ask.lease_id
            self._count(account, line, at)
            account.leases[ask.lease_id] = decision.lease
        else:
            self._refused_by(decision.refused.limit, account, at)
        return decision

    def _refused_by(self, name: str, account: ModelAccount, at: datetime) -> None:
        for limit in account.plan.limits:
            if limit.name == name:
                self._reach_cap(account, limit, at)

    def _of_lease(self, command: Renew | Settle | Release, account: ModelAccount, at: datetime) -> Outcome:
        lease = account.leases.get(command.lease_id)
        if lease is None or lease.expire_time <= at:
            raise LeaseNotFound
        if isinstance(command, Renew):
            until = max(lease.expire_time, at + lasting(account.plan, lease.meter, command.duration))
            account.leases[lease.id] = replace(lease, expire_time=until)
            return account.leases[lease.id]
        if isinstance(command, Settle) and command.amount > lease.reserved:
            raise SettledTooMuch(lease.reserved)
        del account.leases[lease.id]
        if isinstance(command, Release):
            return lease
        self._count(account, Line("settle", at, "", lease.meter, command.amount, lease.key_id), at)
        if lease.meter not in account.plan.meters:
            return Decision(account.plan.tier, account.version, [])
        states = _decide(account, lease.meter, 0, 0, False, lease.key_id, at, ()).limits
        return Decision(account.plan.tier, account.version, states)

    def _reverse(self, command: Reverse, account: ModelAccount, at: datetime) -> Reversal:
        line = account.by_key(command.key)
        if line is None or line.what == "allowance":
            raise GrantNotFound
        replayed = line.reversed_at is not None
        if not replayed:
            line.reversed_at = at
            start = account.span(Period.BILLING, at)[0]
            if line.at >= start:
                units, now = account.billed[line.meter, start], 0 if account.sells(line.meter) else 1
                rest, sold = line.amount - min(units[now], line.amount), units[0]
                units[now] -= line.amount - rest
                units[1 - now] -= rest
                if units[0] != sold:
                    end = account.span(Period.BILLING, at)[1]
                    self.announced.append(UsageRecorded(account.id, line.meter, units[0], start, end, at, final=False))
            account.leases.pop(line.lease_id, None)
        return Reversal(line.meter, line.amount, replayed)

    def _set_cap(self, command: SetCap, account: ModelAccount, at: datetime) -> LimitState:
        meter = account.plan.meters.get(command.meter)
        if meter is None:
            raise UnknownMeter(command.meter)
        caps = [each for each in account.plan.limits if each.kind is Kind.CAP and command.meter in each.meters]
        if not caps:
            raise CapNotOffered(command.meter)
        if command.overage_amount and Decimal(meter.overage_unit_price or 0) == 0:
            raise NotSoldByUnit(command.meter)
        if command.limit is None and not command.overage_amount:
            account.caps.pop(caps[0].name, None)
        else:
            own = account.caps.get(caps[0].name)
            if own is None or _said(own.asked) != _said(command):
                account.caps[caps[0].name] = OwnCap(command)
                self._reach_cap(account, caps[0], at)
        return next(state for state in _counted(account, caps[:1], 0, at))

    def _adjust(self, command: AdjustAllowance, account: ModelAccount, at: datetime) -> Adjusted:
        name, amount = command.allowance, command.amount
        asked = ("allowance", name, command.change, amount)
        keyed = command.change != "set" and bool(command.key)
        if keyed and (line := account.by_key(command.key)) is not None:
            first = _again(line, asked, adjusted=True)
            return Adjusted(first.state, replayed=True)
        held, limit = account.held.get(name, 0), account.plan.allowances.get(name)
        wanted = amount if command.change == "set" else held + amount if command.change == "add" else held - amount
        wanted = max(0, wanted)
        if limit is not None and wanted > limit and wanted > held:
            refusal = Refusal(f"{name}_limit_reached", 402, f"The plan allows {limit} of {name}.")
            plan = account.plan
            return Adjusted(
                AllowanceState(name, held, limit), Refused(name, refusal, plan.billing_url, plan.support_contact, None)
            )
        account.held[name] = wanted
        answer = Adjusted(AllowanceState(name, wanted, limit))
        if keyed:
            account.lines.append(Line("allowance", at, command.key, name, 0, asked=asked, answer=answer))
        return answer

    def _count(self, account: ModelAccount, line: Line, at: datetime) -> None:
        """Adds the line, and says what it has come to."""
        meter = account.plan.meters.get(line.meter)
        if line.amount:
            self._close_period(account, line.meter, at)
            start = account.span(Period.BILLING, at)[0]
            account.billed[line.meter, start][0 if account.sells(line.meter) else 1] += line.amount
        # A rate without a number keeps no log.
        line.rates = frozenset(each.name for each in _of(account.plan, line.meter, Kind.RATE) if each.limit is not None)
        account.lines.append(line)
        if not line.amount or meter is None:
            return
        for limit in _of(account.plan, line.meter, *COUNTED):
            start, end = account.span(limit.period, at)
            used = account.counted(limit.meters, limit.period, at)
            most = cap_of(account, limit)[0]
            for percent in limit.warn_percent:
                name = (limit.name, percent, start)
                crossed = most is not None and (used - line.amount) * 100 < most * percent <= used * 100
                if crossed and name not in account.told:
                    account.told.add(name)
                    self.announced.append(
                        UsageThresholdReached(
                            account.id,
                            limit.name,
                            limit.meters,
                            percent,
                            used,
                            most or 0,
                            start,
                            end,
                            account.plan.tier,
                            at,
                        )
                    )
            self._reach_cap(account, limit, at)

    def _reach_cap(self, account: ModelAccount, limit: Limit, at: datetime) -> None:
        own = account.caps.get(limit.name)
        units = None if own is None or limit.kind is not Kind.CAP else units_of(account, own)
        start, end = account.span(limit.period, at)
        used = account.counted(limit.meters, limit.period, at)
        if own is not None and units is not None and used >= units and own.told != start:
            own.told = start
            self.announced.append(
                CapReached(account.id, limit.name, limit.meters, used, units, own.asked.auto_stop, start, end, at)
            )

    def _close_period(self, account: ModelAccount, meter: str, at: datetime) -> None:
        before = [line for line in account.lines if line.meter == meter and line.amount and line.what != "allowance"]
        if not before or before[-1].at >= account.span(Period.BILLING, at)[0]:
            return
        start, end = account.span(Period.BILLING, before[-1].at)
        # What was taken back after the end stays in: it left only the periods that still ran.
        used, unsold = account.billed[meter, start]
        if not used and (unsold or not account.sells(meter)):
            return
        self.announced.append(UsageRecorded(account.id, meter, used, start, end, at, final=True))


def _decide(
    account: ModelAccount,
    meter_name: str,
    amount: int,
    reserve: int,
    slot: bool,
    key_id: str,
    at: datetime,
    switches: Collection[str],
) -> Decision:
    plan = account.plan
    meter = plan.meters.get(meter_name)
    if meter is None:
        raise UnknownMeter(meter_name)
    refused: list[tuple[str, Refusal, bool]] = []
    if "" in switches or meter_name in switches:
        refused.append(("kill_switch", meter.suspended, True))
    if meter.gate and not plan.gates.get(meter.gate):
        refused.append((meter.gate, meter.gate_refusal, True))
    rates = []
    for limit in _of(plan, meter_name, Kind.RATE):
        if limit.limit is None or limit.window is None:
            continue
        used = sum(
            line.amount
            for line in account.lines
            if limit.name in line.rates
            and line.what in ("use", "acquire")
            and line.meter in limit.meters
            and line.at > at - limit.window
            and (not limit.per_key or line.key_id == key_id)
        )
        if amount and used + amount > limit.limit:
            refused.append((limit.name, limit.refusal, True))
        rates.append(LimitState(limit.name, used, limit.limit, None, limit.window, Kind.RATE))
    counted = _counted(account, _of(plan, meter_name, *COUNTED), 0, at)
    for limit, state in zip(_of(plan, meter_name, *COUNTED), counted, strict=True):
        stops = limit.kind is Kind.QUOTA or state.auto_stop
        if amount + reserve and stops and state.limit is not None and state.used + amount + reserve > state.limit:
            refused.append((limit.name, limit.refusal, limit.kind is Kind.QUOTA))
    slots = []
    for limit in _of(plan, meter_name, Kind.CONCURRENCY):
        live = len(account.live(limit.meters, at))
        if slot and limit.limit is not None and live + 1 > limit.limit:
            refused.append((limit.name, limit.refusal, True))
        slots.append(LimitState(limit.name, live, limit.limit, None, None, Kind.CONCURRENCY))
    states = rates + counted + slots
    if refused:
        name, words, pays = refused[0]
        url = plan.billing_url if words.http_status == 402 and pays else ""
        return Decision(plan.tier, account.version, states, Refused(name, words, url, plan.support_contact, None))
    for state in states:
        extra = {Kind.RATE: amount, Kind.CONCURRENCY: int(slot)}.get(state.kind, amount + reserve)
        state.used += extra
    overage = 0
    if Decimal(meter.overage_unit_price or 0) > 0:
        after = account.billed[meter_name, account.span(Period.BILLING, at)[0]][0] + amount
        overage = max(0, min(amount, after - meter.included_units))
    return Decision(plan.tier, account.version, states, overage_units=overage)


def _counted(account: ModelAccount, limits: Sequence[Limit], extra: int, at: datetime) -> list[LimitState]:
    states = []
    for limit in limits:
        reserved = sum(lease.reserved for lease in account.live(limit.meters, at))
        used = account.counted(limit.meters, limit.period, at) + reserved + extra
        most, stops = cap_of(account, limit)
        states.append(LimitState(limit.name, used, most, account.span(limit.period, at)[1], None, limit.kind, stops))
    return states


def cap_of(account: ModelAccount, limit: Limit) -> tuple[int | None, bool]:
    """The number that is shown, and whether it is a cap that refuses."""
    if limit.kind is not Kind.CAP:
        return limit.limit, False
    own = account.caps.get(limit.name)
    units = None if own is None else units_of(account, own)
    if own is None or units is None:
        return limit.limit, True
    if own.asked.auto_stop:
        return min(units, limit.limit if limit.limit is not None else units), True
    return (units, False) if limit.limit is None else (limit.limit, True)


def units_of(account: ModelAccount, own: OwnCap) -> int | None:
    if own.asked.limit is not None:
        return own.asked.limit
    meter = account.plan.meters.get(own.asked.meter)
    if meter is None or Decimal(meter.overage_unit_price or 0) == 0:
        return None
    paid, price = (int(Decimal(each).scaleb(12)) for each in (own.asked.overage_amount, meter.overage_unit_price))
    return meter.included_units + paid // price


def lasting(plan: Plan, meter: str, asked: timedelta | None) -> timedelta:
    windows = [limit.window for limit in _of(plan, meter, Kind.CONCURRENCY) if limit.window]
    return asked or (windows[0] if windows else timedelta(minutes=10))


def _of(plan: Plan, meter: str, *kinds: Kind) -> list[Limit]:
    return [limit for kind in kinds for limit in plan.limits if limit.kind is kind and meter in limit.meters]


def _said(command: SetCap) -> tuple[object, ...]:
    if command.limit is not None:
        return ("units", command.limit, command.auto_stop)
    return ("money", Decimal(command.overage_amount), command.meter, command.auto_stop)


def _again(line: Line, asked: tuple[object, ...], *, adjusted: bool = False) -> Any:
    if line.asked != asked:
        raise KeyReused
    if line.reversed_at is not None:
        raise GrantReversed
    return line.answer if adjusted else replace(line.answer, replayed=True)


class ModelDecider:
    """Accounts as billing sends them."""

    def __init__(self, *accounts: entitlement_pb2.Entitlements) -> None:
        self.model = Model()
        for message in accounts:
            name = message.account_id
            self.model.accounts[name] = ModelAccount(name, to_plan(to_snapshot(message).plan), message.version)

    def decide(self, commands: Sequence[Command], time_left_s: float | None) -> Awaitable[list[Outcome]]:
        async def answer() -> list[Outcome]:
            return [self.model.decide(command, datetime.now(UTC)) for command in commands]

        return answer()

    async def total(self, account_id: str) -> int:
        return self.model.accounts[account_id].counted({"messages"}, Period.LIFETIME, datetime.now(UTC))
