"""What an account has used and holds now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from services.quota.domain import (
    Account,
    AllowanceState,
    Kind,
    LimitState,
    Period,
    allowance_states,
    limit_states,
)
from services.quota.errors import AccountNotFound
from services.quota.ports import Directory
from services.quota.storage import QuotaUnitOfWork


@dataclass(frozen=True)
class MeterUsage:
    """`used` of the meter itself in its quota's period, else its cap's, else the month; `tightest` is the quota with
    the least left, if any. A lifetime's count that refuses nothing is no quota here.
    """

    meter: str
    used: int
    reset: datetime | None
    tightest: LimitState | None
    limits: list[LimitState]


@dataclass(frozen=True)
class Usage:
    account_id: str
    tier: str
    version: int
    meters: list[MeterUsage]
    allowances: list[AllowanceState]


async def get_usage(
    account_id: str, key_id: str, new_uow: Callable[[], QuotaUnitOfWork], directory: Directory
) -> Usage:
    """What the account has used of each meter now, and the key of its limits per key.

    Raises AccountNotFound, BillingUnavailable.
    """
    stored = await _read(account_id, key_id, new_uow())
    if stored is None and await directory.learn([account_id]):
        stored = await _read(account_id, key_id, new_uow())
    if stored is None:
        raise AccountNotFound
    meters = [_usage_of(stored, name, key_id) for name in stored.plan.meters]
    return Usage(account_id, stored.plan.tier, stored.version, meters, allowance_states(stored))


async def _read(account_id: str, key_id: str, uow: QuotaUnitOfWork) -> Account | None:
    async with uow:
        found = await uow.accounts.get(account_id, key_id)
    if found is None:
        return None
    return Account(
        account_id,
        found.version,
        found.plan,
        found.anchor,
        found.interval,
        found.counters,
        found.at,
        found.rates,
        found.leases,
        found.terms,
    )


def _usage_of(account: Account, meter: str, key_id: str) -> MeterUsage:
    states = {state.name: state for state in limit_states(account, meter, key_id)}
    rules = account.plan.rules[meter]
    periodic = [each for each in rules.counted if each.limit is not None or each.period is not Period.LIFETIME]
    bound = [states[each.name] for each in periodic if each.kind is Kind.QUOTA and each.limit is not None]
    tightest = min(bound, key=lambda state: state.remaining or 0, default=None)
    period = next((each.period for each in periodic if tightest is None or each.name == tightest.name), Period.MONTH)
    end = account.spans[period].end
    reset = None if end is None else datetime.fromtimestamp(end, UTC)
    return MeterUsage(meter, account.used(meter, period), reset, tightest, list(states.values()))
