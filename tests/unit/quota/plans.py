"""Plans and accounts for the domain's tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from services.quota.domain import (
    Account,
    Command,
    Counters,
    Grant,
    Kind,
    Lease,
    Limit,
    Meter,
    Opened,
    Outcome,
    Period,
    Plan,
    Rates,
    Refusal,
    Settled,
    Terms,
    settle,
)

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
REFUSAL = Refusal("used_up", 402, "Nothing is left.")
CLOSED = Refusal("not_in_plan", 403, "Not in this plan.")


def limit(
    name: str = "messages",
    most: int | None = 100,
    *,
    meters: tuple[str, ...] = ("messages",),
    kind: Kind = Kind.QUOTA,
    period: Period = Period.MONTH,
    window: timedelta | None = None,
    per_key: bool = False,
    warn: tuple[int, ...] = (),
) -> Limit:
    return Limit(name, meters, kind, most, period, REFUSAL, window, per_key, warn)


def plan(
    *limits: Limit,
    gate: str = "",
    gates: dict[str, bool] | None = None,
    tier: str = "free",
    price: str = "",
    included: int = 0,
    allowances: dict[str, int] | None = None,
) -> Plan:
    """The meters `messages` and `calls`, both behind `gate` and at `price`."""
    meters = {
        name: Meter(name, gate, CLOSED, overage_unit_price=price, currency="usd", included_units=included)
        for name in ("messages", "calls")
    }
    urls = ("https://pay.example", "mailto:help@example.com")
    return Plan(tier, meters, limits, gates or {}, *urls, allowances or {})


def account(
    of: Plan,
    *,
    at: datetime = NOW,
    anchor: datetime | None = None,
    interval: str = "",
    counters: Counters | None = None,
    version: int = 1,
) -> Account:
    return Account("acct_a", version, of, anchor, interval, {} if counters is None else counters, at)


class World:
    """One account through time: what a batch leaves is what the next one finds, as if it had been stored."""

    def __init__(self, of: Plan, *, at: datetime = NOW, anchor: datetime | None = None, interval: str = "") -> None:
        self.plan = of
        self.at = at
        self.anchor = anchor
        self.interval = interval
        self.counters: Counters = {}
        self.rates: Rates = {}
        self.leases: dict[str, Lease] = {}
        self.terms: Terms = {}
        self.granted: dict[tuple[str, str], Grant] = {}
        self.switches: frozenset[str] = frozenset()
        self.keys = 0

    def account(self) -> Account:
        rest = (self.anchor, self.interval, self.counters, self.at, self.rates, self.leases, self.terms)
        return Account("acct_a", 1, self.plan, *rest)

    def batch(self, *commands: Command) -> Settled:
        opened = Opened(self.at, {"acct_a": self.account()}, self.granted, self.switches)
        return settle(commands, opened, self._new_key)

    def do(self, command: Command, *, after: timedelta = timedelta(0)) -> Outcome:
        self.at += after
        [outcome] = self.batch(command).outcomes
        return outcome

    def used(self, period: Period = Period.MONTH, meter: str = "messages") -> int:
        return self.account().used(meter, period)

    def _new_key(self) -> str:
        self.keys += 1
        return f"\x1f{self.keys}"
