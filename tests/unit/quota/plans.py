"""Plans and accounts for the domain's tests."""

from __future__ import annotations

from datetime import UTC, datetime

from services.quota.domain import Account, Counters, Kind, Limit, Meter, Period, Plan, Refusal

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
) -> Limit:
    return Limit(name, meters, kind, most, period, REFUSAL)


def plan(*limits: Limit, gate: str = "", gates: dict[str, bool] | None = None, tier: str = "free") -> Plan:
    meters = {name: Meter(name, gate, CLOSED) for name in ("messages", "calls")}
    return Plan(tier, meters, limits, gates or {}, "https://pay.example", "mailto:help@example.com")


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
