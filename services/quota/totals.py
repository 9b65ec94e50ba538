"""Announces what accounts have used of meters that are sold by the unit: UsageRecorded, for whoever bills it.

What changed is found in the ledger, by time, so that deciding costs nothing for it; and periods that ended by the
rows that were noted of them before. The first decision of a new period announces the old one's end itself (see
`domain.announcement`), because it overwrites its counter; an end that was announced here is marked in the account's
terms, so that the decision does not repeat it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import text

from services.kit.clock import BusinessClock
from services.quota.domain import Account, Period, UsageRecorded, ended_period, mark_ended, recorded
from services.quota.events import to_event, to_plan
from services.quota.storage import QuotaUnitOfWork

EVERY_S = 10.0
LOOK_S = 0.25  # how soon a clock that was moved is noticed
PLACE = "totals"
OVERLAP = timedelta(seconds=15)  # longer than a decision takes from its instant to its commit
PAGE = 500

ENDS = 100  # accounts whose periods end in one transaction: it holds their locks, and decisions wait for those

# One process at a time: the others find the place locked and come back later.
_BEGIN = text("INSERT INTO place (name, token) VALUES (:name, '') ON CONFLICT DO NOTHING")
_TAKE = text("SELECT token FROM place WHERE name = :name FOR UPDATE SKIP LOCKED")
_LEAVE = text("UPDATE place SET token = :token WHERE name = :name")
_NOW = text("SELECT clock_timestamp()")
_USED = text("SELECT DISTINCT account_id FROM idem WHERE decide_time >= :since")
_ACCOUNTS = """
SELECT a.id, a.version, p.id, p.data, a.anchor, a."interval", a.counters::text, a.terms::text
FROM account a JOIN plan p ON p.id = a.plan_id WHERE a.id = ANY (CAST(:ids AS text[])) ORDER BY a.id
"""
_READ = text(_ACCOUNTS)
_LOCK = text(f"{_ACCOUNTS} FOR NO KEY UPDATE OF a")
_ANNOUNCED = text("""
SELECT account_id, meter, period_start, used FROM usage_announced
WHERE account_id = ANY (CAST(:ids AS text[])) AND NOT final
""")
_NOTE = text("""
INSERT INTO usage_announced (account_id, meter, period_start, period_end, used, final)
VALUES (:account_id, :meter, :period_start, :period_end, :used, false)
ON CONFLICT (account_id, meter, period_start) DO UPDATE SET used = excluded.used
""")
# Nothing of it was announced while it ran; its end shall be.
_NOTE_END = text("""
INSERT INTO usage_announced (account_id, meter, period_start, period_end, used, final)
VALUES (:account_id, :meter, :period_start, :period_end, 0, false) ON CONFLICT DO NOTHING
""")
_ENDED = text("""
SELECT account_id, meter, period_start, period_end FROM usage_announced
WHERE NOT final AND period_end <= :at ORDER BY account_id, meter, period_start LIMIT :most FOR UPDATE SKIP LOCKED
""")
_END = text("""
UPDATE usage_announced SET final = true, used = coalesce(:used, used)
WHERE account_id = :account_id AND meter = :meter AND period_start = :period_start
""")
_MARK = text("UPDATE account SET terms = CAST(:terms AS json), rev = rev + 1 WHERE id = :id")

log = structlog.get_logger(__name__)


async def announce(uow: QuotaUnitOfWork, clock: BusinessClock) -> int:
    """Announces every total that is not what was announced last, and every period's end. Returns how many."""
    return await _announce_changed(uow, clock) + await _announce_ends(uow, clock)


async def _announce_changed(uow: QuotaUnitOfWork, clock: BusinessClock) -> int:
    """0 when another process is at it."""
    async with uow:
        connection = uow.connection
        await connection.execute(_BEGIN, {"name": PLACE})
        token = (await connection.execute(_TAKE, {"name": PLACE})).scalar_one_or_none()
        if token is None:
            return 0
        at = await _now(uow, clock)
        since = datetime.fromisoformat(token) - OVERLAP if token else datetime.min.replace(tzinfo=UTC)
        ordered = sorted({row[0] for row in await connection.execute(_USED, {"since": since})})
        told = 0
        for start in range(0, len(ordered), PAGE):
            page = ordered[start : start + PAGE]
            accounts = [_to_account(row, at) for row in await connection.execute(_READ, {"ids": page})]
            rows = await connection.execute(_ANNOUNCED, {"ids": page})
            announced = {(account_id, meter, begun): used for account_id, meter, begun, used in rows}
            for account, meter in _sold(accounts):
                total = recorded(account, meter)
                if total.used != announced.get((account.id, meter, total.period_start), 0):
                    uow.outbox.add(to_event(total), account.id)
                    await connection.execute(_NOTE, _row(total))
                    told += 1
                ended = ended_period(account, meter)
                if ended is not None and ended.used:
                    await connection.execute(_NOTE_END, _row(ended))
        await connection.execute(_LEAVE, {"name": PLACE, "token": at.isoformat()})
        await uow.commit()
    return told


async def _announce_ends(uow: QuotaUnitOfWork, clock: BusinessClock) -> int:
    """By as many processes as want to. Where a counter has moved on, the decision that moved it announced the end."""
    told, more = 0, True
    while more:
        async with uow:
            connection = uow.connection
            at = await _now(uow, clock)
            ends = (await connection.execute(_ENDED, {"at": at, "most": ENDS})).all()
            more = len(ends) == ENDS
            ids = sorted({row[0] for row in ends})
            locked = await connection.execute(_LOCK, {"ids": ids})
            accounts = {row[0]: _to_account(row, at) for row in locked}
            marked: dict[str, Account] = {}
            for account_id, meter, start, end in ends:
                account, used = accounts.get(account_id), None
                cell = account.counters.get(meter, {}).get(Period.BILLING) if account is not None else None
                if account is not None and cell is not None and cell[0] == int(start.timestamp()):
                    used = cell[1]
                    if mark_ended(account, meter):
                        total = UsageRecorded(account_id, meter, used, start, end, at, final=True)
                        uow.outbox.add(to_event(total), account_id)
                        marked[account_id] = account
                        told += 1
                key = {"account_id": account_id, "meter": meter, "period_start": start}
                await connection.execute(_END, {**key, "used": used})
            for account_id in sorted(marked):
                await connection.execute(_MARK, {"id": account_id, "terms": json.dumps(marked[account_id].terms)})
            await uow.commit()
    return told


def _sold(accounts: Iterable[Account]) -> Iterable[tuple[Account, str]]:
    for account in accounts:
        for meter in account.counters:
            rules = account.plan.rules.get(meter)
            if rules is not None and rules.sold:
                yield account, meter


def _row(total: UsageRecorded) -> dict[str, Any]:
    return {name: value for name, value in vars(total).items() if name not in ("record_time", "final")}


async def _now(uow: QuotaUnitOfWork, clock: BusinessClock) -> datetime:
    """By the clock that dates the ledger."""
    wall: datetime = (await uow.connection.execute(_NOW)).scalar_one()
    return wall + clock.offset()


def _to_account(row: Any, at: datetime) -> Account:
    account_id, version, _, data, anchor, interval, counters, terms = row
    kept = (json.loads(counters), at)
    return Account(account_id, version, to_plan(data), anchor, interval, *kept, terms=json.loads(terms))


async def keep_announcing(
    new_uow: Callable[[], QuotaUnitOfWork], clock: BusinessClock, *, every_s: float = EVERY_S
) -> None:
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
