"""Announces what accounts have used of meters that are sold by the unit: UsageRecorded, for whoever bills it.

What changed is found in the ledger, by time, so that deciding costs nothing for it; and periods that ended by what
was announced of them before. The first decision of a new period announces the old one's end itself (see
`domain.announcement`), because it overwrites its counter.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import text

from services.kit.clock import Clock
from services.quota.domain import Account, Period, UsageRecorded
from services.quota.events import to_event, to_plan
from services.quota.storage import QuotaUnitOfWork

EVERY_S = 10.0
LOOK_S = 0.25  # how soon a clock that was moved is noticed
PLACE = "totals"
OVERLAP = timedelta(seconds=15)  # longer than a decision takes from its instant to its commit
PAGE = 500

# One process at a time: the others find the place locked and come back later.
_BEGIN = text("INSERT INTO place (name, token) VALUES (:name, '') ON CONFLICT DO NOTHING")
_TAKE = text("SELECT token FROM place WHERE name = :name FOR UPDATE SKIP LOCKED")
_LEAVE = text("UPDATE place SET token = :token WHERE name = :name")
_USED = text("SELECT DISTINCT account_id FROM idem WHERE decide_time >= :since")
_ENDED = text("SELECT DISTINCT account_id FROM usage_announced WHERE NOT final AND period_end <= :at")
_ACCOUNTS = text("""
SELECT a.id, a.version, p.id, p.data, a.anchor, a."interval", a.counters::text
FROM account a JOIN plan p ON p.id = a.plan_id WHERE a.id = ANY (CAST(:ids AS text[]))
""")
_ANNOUNCED = text("""
SELECT account_id, meter, period_start, period_end, used, final FROM usage_announced
WHERE account_id = ANY (CAST(:ids AS text[])) AND NOT final
""")
_NOTE = text("""
INSERT INTO usage_announced (account_id, meter, period_start, period_end, used, final)
VALUES (:account_id, :meter, :period_start, :period_end, :used, :final)
ON CONFLICT (account_id, meter, period_start) DO UPDATE SET used = excluded.used, final = excluded.final
""")

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Announced:
    account_id: str
    meter: str
    period_start: datetime
    period_end: datetime | None
    used: int
    final: bool


async def announce(uow: QuotaUnitOfWork, clock: Clock) -> int:
    """Announces every total that is not what was announced last. Returns how many; 0 when another process is at it."""
    async with uow:
        connection = uow.connection
        await connection.execute(_BEGIN, {"name": PLACE})
        token = (await connection.execute(_TAKE, {"name": PLACE})).scalar_one_or_none()
        if token is None:
            return 0
        at = clock.now()
        since = datetime.fromisoformat(token) - OVERLAP if token else datetime.min.replace(tzinfo=UTC)
        ids = {row[0] for row in await connection.execute(_USED, {"since": since})}
        ids |= {row[0] for row in await connection.execute(_ENDED, {"at": at})}
        told, ordered = 0, sorted(ids)
        for start in range(0, len(ordered), PAGE):
            page = ordered[start : start + PAGE]
            accounts = [_to_account(row, at) for row in await connection.execute(_ACCOUNTS, {"ids": page})]
            open_ones = [_Announced(*row) for row in await connection.execute(_ANNOUNCED, {"ids": page})]
            for total, is_news in _totals(accounts, open_ones, at):
                if is_news:
                    uow.outbox.add(to_event(total), total.account_id)
                    told += 1
                note = vars(total).copy()
                del note["record_time"]
                await connection.execute(_NOTE, note)
        await connection.execute(_LEAVE, {"name": PLACE, "token": at.isoformat()})
        await uow.commit()
    return told


def _totals(
    accounts: Iterable[Account], announced: Iterable[_Announced], at: datetime
) -> Iterable[tuple[UsageRecorded, bool]]:
    """What is to be noted, and whether it is to be announced too."""
    known = {(each.account_id, each.meter, each.period_start): each for each in announced}
    by_id = {account.id: account for account in accounts}
    for account in by_id.values():
        span = account.spans[Period.BILLING]
        start = datetime.fromtimestamp(span.start, UTC)
        end = None if span.end is None else datetime.fromtimestamp(span.end, UTC)
        for meter in account.counters:
            rules = account.plan.rules.get(meter)
            if rules is None or not rules.sold:
                continue
            used, before = account.used(meter, Period.BILLING), known.get((account.id, meter, start))
            if used != (before.used if before is not None else 0):
                yield UsageRecorded(account.id, meter, used, start, end, at, final=False), True
    for (account_id, meter, start), each in known.items():
        if each.period_end is None or each.period_end > at:
            continue
        cell = by_id[account_id].counters.get(meter, {}).get(Period.BILLING) if account_id in by_id else None
        # Once the counter has moved on, the decision that moved it has announced the end.
        still_there = cell is not None and cell[0] == int(start.timestamp())
        used = cell[1] if cell is not None and still_there else each.used
        yield UsageRecorded(account_id, meter, used, start, each.period_end, at, final=True), still_there


def _to_account(row: Any, at: datetime) -> Account:
    account_id, version, _, data, anchor, interval, counters = row
    return Account(account_id, version, to_plan(data), anchor, interval, json.loads(counters), at)


async def keep_announcing(new_uow: Callable[[], QuotaUnitOfWork], clock: Clock, *, every_s: float = EVERY_S) -> None:
    """Until cancelled."""
    while True:
        try:
            told = await announce(new_uow(), clock)
        except Exception as error:
            log.warning("totals.delayed", error=repr(error))
        else:
            if told:
                log.info("totals.announced", totals=told)
        # A period, by the business clock: when that is moved past the end of a month, its total is wanted at once.
        next_at = clock.now() + timedelta(seconds=every_s)
        while clock.now() < next_at:  # noqa: ASYNC110 - time is what is awaited
            await asyncio.sleep(min(every_s, LOOK_S))
