"""What others hear of an account's use: thresholds, its own caps, and totals of periods that are over.

What was announced is noted in the account's terms, so that it is announced once: `{"marks": {name of the limit:
[start of the period, [percentages]]}}`, `{"closed": {meter: start of the period whose end was announced}}` for as long
as the meter's counter stands in that period, and `reached` in the setting of a cap (see `cap`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.quota.domain.account import Account
from services.quota.domain.cap import in_force, own_cap, own_units
from services.quota.domain.decision import counted_units
from services.quota.domain.period import Period, Span, moment
from services.quota.domain.plan import Limit, Rules
from services.quota.domain.selling import Cell, is_left, is_sold, last_cell, tells_sold


@dataclass
class UsageThresholdReached:
    """Use came to `percent` of a limit. Times in UTC; `period_end` None: the period never ends."""

    account_id: str
    limit_name: str
    meters: tuple[str, ...]
    percent: int
    used: int
    limit: int
    period_start: datetime
    period_end: datetime | None
    tier: str
    reach_time: datetime


@dataclass
class CapReached:
    """Use came to the cap that the account set on itself. `auto_stop`: uses are refused from now on."""

    account_id: str
    limit_name: str
    meters: tuple[str, ...]
    used: int
    limit: int
    auto_stop: bool
    period_start: datetime
    period_end: datetime | None
    reach_time: datetime


@dataclass
class UsageRecorded:
    """Units of a meter since `period_start`, as of `record_time`. `final`: the period is over."""

    account_id: str
    meter: str
    used: int
    period_start: datetime
    period_end: datetime | None
    record_time: datetime
    final: bool


Announcement = UsageThresholdReached | CapReached | UsageRecorded


def ended_period(account: Account, meter: str) -> UsageRecorded | None:
    """The total of the billing period that was counted last, when another runs now, it sold something, and nobody
    announced its end yet. To be asked before the next is begun.
    """
    cell = last_cell(account, meter)
    if cell is None or not is_left(account, meter) or not tells_sold(account, meter):
        return None
    start, used, unsold, *_ = cell
    if used == unsold and (unsold or not is_sold(account, meter)):
        return None
    if account.terms and account.terms.get("closed", {}).get(meter) == start:
        return None
    return total_of(account, meter, cell)


def total_of(account: Account, meter: str, cell: Cell) -> UsageRecorded:
    """Final unless its period runs."""
    start, used, unsold, end, *_ = cell
    final = start != account.spans[Period.BILLING].start
    return UsageRecorded(account.id, meter, used - unsold, moment(start), moment(end), account.at, final)


def mark_ended(account: Account, meter: str) -> bool:
    """Notes that the end of the period that was counted last is announced. False: it was."""
    cell, closed = account.counters[meter][Period.BILLING], account.terms.setdefault("closed", {})
    was = closed.get(meter) == cell[0]
    closed[meter] = cell[0]
    return not was


def forget_end(account: Account, meter: str) -> None:
    """To be called when something is counted: the counter has moved on, or its period goes on after all."""
    closed = account.terms.get("closed")
    if closed is not None:
        closed.pop(meter, None)
        if not closed:
            del account.terms["closed"]


def recorded(account: Account, meter: str) -> UsageRecorded | None:
    """What was sold in the billing period that was counted last. None: it is over, or has not begun."""
    span, cell = account.spans[Period.BILLING], last_cell(account, meter)
    if (
        cell is None
        or not tells_sold(account, meter)
        or cell[0] < span.start
        or (span.end is not None and cell[0] >= span.end)
    ):
        return None
    return total_of(account, meter, cell)


def passed(account: Account, rules: Rules, amount: int) -> list[Announcement]:
    """What counting `amount` units of the meter, just now, has come to. Notes it as announced."""
    told: list[Announcement] = []
    for limit in rules.counted:
        own = own_cap(account, limit) if account.terms and limit.is_cap else None
        if not limit.warn_percent and own is None:
            continue
        after = counted_units(account, limit)
        if limit.warn_percent:
            most = in_force(account, limit)[0] if own is not None else limit.limit
            told += [
                _threshold(account, limit, percent, after, most)
                for percent in limit.warn_percent
                if most is not None
                and after - amount < -(-most * percent // 100) <= after
                and _mark(account, limit, percent)
            ]
        if own is not None and (reached := reached_cap(account, limit, own, after)) is not None:
            told.append(reached)
    return told


def reached_cap(account: Account, limit: Limit, own: dict[str, Any], used: int) -> CapReached | None:
    """When `used` units have come to the account's own cap and that was not said in this period. Notes it as said."""
    units = own_units(account, own)
    if units is None or used < units:
        return None
    span = account.spans[limit.period]
    if own.get("reached", -1) >= span.start:
        return None
    own["reached"] = span.start
    start, end = _bounds(span)
    return CapReached(account.id, limit.name, limit.meters, used, units, bool(own["auto_stop"]), start, end, account.at)


def _threshold(account: Account, limit: Limit, percent: int, used: int, most: int) -> UsageThresholdReached:
    start, end = _bounds(account.spans[limit.period])
    return UsageThresholdReached(
        account.id, limit.name, limit.meters, percent, used, most, start, end, account.plan.tier, account.at
    )


def _mark(account: Account, limit: Limit, percent: int) -> bool:
    """False: it was announced in this period. A limit that changes since must not repeat it."""
    marks = account.terms.setdefault("marks", {})
    start = account.spans[limit.period].start
    mark = marks.get(limit.name)
    if mark is None or mark[0] < start:
        mark = marks[limit.name] = [start, []]
    if percent in mark[1]:
        return False
    mark[1].append(percent)
    return True


def _bounds(span: Span) -> tuple[datetime, datetime | None]:
    return moment(span.start), None if span.end is None else moment(span.end)
