"""Announces what accounts have used of meters that are sold by the unit: UsageRecorded, for whoever bills it.

What changed is found in the ledger, by time, so that deciding costs nothing for it; and periods that ended by the
rows that were noted of them before. The first decision of a new period announces the old one's end itself (see
`domain.announcement`), because it overwrites its counter; an end that was announced here is marked in the account's
terms, so that the decision does not repeat it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta

import orjson
import structlog
from sqlalchemy import TextClause, text

from services.kit.clock import BusinessClock
from services.quota.domain import LEDGER_MARK, Account, UsageRecorded, ended_period, mark_ended, recorded
from services.quota.domain.announcement import total_of
from services.quota.domain.period import moment
from services.quota.domain.selling import last_cell, left_cells, tells_sold
from services.quota.events import to_event
from services.quota.storage import QuotaUnitOfWork

EVERY_S = 10.0
# Rest for each total, which is some 50 µs of work: however many there are, decisions keep most of the time.
EACH_S = 0.002
LOOK_S = 0.25  # how soon a clock that was moved is noticed
PLACE = "totals"
OVERLAP = timedelta(seconds=15)  # longer than a decision takes from its instant to its commit
PAGE = 200  # accounts at a time: decisions wait while their totals are worked out

ENDS = 100  # accounts whose periods end in one transaction: it holds their locks, and decisions wait for those

# One process at a time: the others find the place locked and come back later.
_BEGIN = text("INSERT INTO place (name, token) VALUES (:name, '') ON CONFLICT DO NOTHING")
_TAKE = text("SELECT token, clock_timestamp() FROM place WHERE name = :name FOR UPDATE SKIP LOCKED")
_LEAVE = text("UPDATE place SET token = :token WHERE name = :name AND token = :was")
_NOW = text("SELECT clock_timestamp()")
# Whose plan sells something, or sold it in a period that is still open.
_USED = text("""
SELECT a.id FROM account a
WHERE a.id IN (SELECT i.account_id FROM idem i WHERE i.decide_time >= :since) AND (
    a.plan_id = ANY (CAST(:plans AS bigint[]))
    OR EXISTS (SELECT FROM usage_announced u WHERE u.account_id = a.id AND NOT u.final)
    OR EXISTS (
        SELECT FROM json_each(a.counters) AS m (name, cells)
        WHERE (m.cells #>> '{billing,1}')::bigint > (m.cells #>> '{billing,2}')::bigint
    )
)
""")
# Where something was taken back, which was told at once: of what was counted since then the same number may be news.
_TAKEN_BACK = text("SELECT DISTINCT account_id, meter FROM idem WHERE decide_time >= :since AND ascii(meter) = 31")
_ACCOUNTS = """
SELECT a.id, a.version, a.plan_id, a.anchor, a."interval", a.counters::text, a.terms::text
FROM account a WHERE a.id = ANY (CAST(:ids AS text[])) ORDER BY a.id
"""
_READ = text(_ACCOUNTS)
_LOCK = text(f"{_ACCOUNTS} FOR NO KEY UPDATE")
_ANNOUNCED = text("""
SELECT account_id, meter, period_start, used FROM usage_announced
WHERE account_id = ANY (CAST(:ids AS text[])) AND NOT final
""")
_NOTED = """
FROM unnest(CAST(:account_id AS text[]), CAST(:meter AS text[]), CAST(:period_start AS timestamptz[]),
            CAST(:period_end AS timestamptz[]), CAST(:used AS bigint[]))
     AS n (account_id, meter, period_start, period_end, used)
"""
_NOTE = text(f"""
INSERT INTO usage_announced (account_id, meter, period_start, period_end, used, final)
SELECT n.account_id, n.meter, n.period_start, n.period_end, n.used, false {_NOTED}
ON CONFLICT (account_id, meter, period_start) DO UPDATE SET
    used = excluded.used, period_end = excluded.period_end, final = false
""")
# Nothing of it was announced while it ran; its end shall be.
_NOTE_END = text(f"""
INSERT INTO usage_announced (account_id, meter, period_start, period_end, used, final)
SELECT n.account_id, n.meter, n.period_start, n.period_end, 0, false {_NOTED} ON CONFLICT DO NOTHING
""")
_NOTES = ("account_id", "meter", "period_start", "period_end", "used")
_ENDED = text("""
SELECT account_id, meter, period_start, period_end, used FROM usage_announced
WHERE NOT final AND period_end <= :at ORDER BY account_id, meter, period_start LIMIT :most FOR UPDATE SKIP LOCKED
""")
_END = text("""
UPDATE usage_announced SET final = true, used = :used
WHERE account_id = :account_id AND meter = :meter AND period_start = :start
""")
# The subscription's interval has changed: the period goes on.
_PUT_OFF = text("""
UPDATE usage_announced SET period_end = :end
WHERE account_id = :account_id AND meter = :meter AND period_start = :start
""")
_MARK = text("UPDATE account SET terms = CAST(:terms AS json), rev = rev + 1 WHERE id = :id")

log = structlog.get_logger(__name__)


async def announce(uow: QuotaUnitOfWork, clock: BusinessClock) -> int:
    """Announces every total that is not what was announced last, and every period's end. Returns how many."""
    return await _announce_changed(uow, clock) + await _announce_ends(uow, clock)


async def _announce_changed(uow: QuotaUnitOfWork, clock: BusinessClock) -> int:
    """Page by page, each committed: a transaction that lasts keeps old versions of busy rows alive. Whoever is killed
    half way leaves the token as it was, and what was announced by then is found announced. Ends early when another
    process is at it.
    """
    async with uow:
        await uow.connection.execute(_BEGIN, {"name": PLACE})
        place = await _take(uow, clock)
        if place is None:
            return 0
        token, began = place
        since = datetime.fromisoformat(token) - OVERLAP if token else datetime.min.replace(tzinfo=UTC)
        selling = [plan_id for plan_id, plan in (await uow.plans.all()).items() if plan.sells]
        used = await uow.connection.execute(_USED, {"since": since, "plans": selling}) if selling else ()
        ordered = sorted(row[0] for row in used)
        marked = await uow.connection.execute(_TAKEN_BACK, {"since": since}) if selling else ()
        taken_back = {(row[0], row[1].removeprefix(LEDGER_MARK)) for row in marked}
        await uow.commit()
    told = 0
    for start in range(0, len(ordered), PAGE):
        async with uow:
            place = await _take(uow, clock)
            if place is None or place[0] != token:
                return told
            told += await _announce_page(uow, ordered[start : start + PAGE], place[1], taken_back)
            await uow.commit()
    async with uow:
        await uow.connection.execute(_LEAVE, {"name": PLACE, "was": token, "token": began.isoformat()})
        await uow.commit()
    return told


async def _take(uow: QuotaUnitOfWork, clock: BusinessClock) -> tuple[str, datetime] | None:
    """The token, and the time by the clock that dates the ledger. None: another process holds the place."""
    place = (await uow.connection.execute(_TAKE, {"name": PLACE})).one_or_none()
    return None if place is None else (place[0], place[1] + clock.offset())


async def _announce_page(
    uow: QuotaUnitOfWork, ids: list[str], at: datetime, taken_back: Collection[tuple[str, str]]
) -> int:
    accounts = await _read(uow, _READ, ids, at)
    rows = await uow.connection.execute(_ANNOUNCED, {"ids": ids})
    announced = {(account_id, meter, begun): used for account_id, meter, begun, used in rows}
    totals, ends = [], []
    for account, meter in ((each, meter) for each in accounts for meter in each.counters):
        total = recorded(account, meter)
        left = [cell for cell in left_cells(account, meter) if cell[3] > at.timestamp()]
        for each in (total, *(total_of(account, meter, cell) for cell in left)):
            is_news = (account.id, meter) in taken_back
            if each is not None and (is_news or each.used != announced.get((account.id, meter, each.period_start), 0)):
                totals.append(each)
                uow.outbox.add(to_event(each), account.id)
        ended = ended_period(account, meter) if total is None else None
        if ended is not None and ended.used:
            ends.append(ended)
    for note, noted in ((_NOTE, totals), (_NOTE_END, ends)):
        if noted:
            await uow.connection.execute(note, {name: [getattr(e, name) for e in noted] for name in _NOTES})
    return len(totals)


async def _announce_ends(uow: QuotaUnitOfWork, clock: BusinessClock) -> int:
    """By as many processes as want to. Where a counter has moved on, the decision that moved it announced the end."""
    told, more = 0, True
    while more:
        async with uow:
            connection = uow.connection
            at = await _now(uow, clock)
            ends = (await connection.execute(_ENDED, {"at": at, "most": ENDS})).all()
            more = len(ends) == ENDS
            if not ends:
                break
            locked = await _read(uow, _LOCK, sorted({row[0] for row in ends}), at)
            accounts = {account.id: account for account in locked}
            marked: dict[str, Account] = {}
            for account_id, meter, start, end, used in ends:
                account, key = accounts.get(account_id), {"account_id": account_id, "meter": meter, "start": start}
                cell = last_cell(account, meter) if account is not None else None
                if account is not None and cell is not None and cell[0] == int(start.timestamp()):
                    if cell[3] > at.timestamp():
                        await connection.execute(_PUT_OFF, {**key, "end": moment(cell[3])})
                        continue
                    if tells_sold(account, meter):
                        used = cell[1] - cell[2]
                    if mark_ended(account, meter):
                        total = UsageRecorded(account_id, meter, used, start, end, at, final=True)
                        uow.outbox.add(to_event(total), account_id)
                        marked[account_id] = account
                        told += 1
                await connection.execute(_END, {**key, "used": used})
            for account_id in sorted(marked):
                await connection.execute(
                    _MARK, {"id": account_id, "terms": orjson.dumps(marked[account_id].terms).decode()}
                )
            await uow.commit()
    return told


async def _now(uow: QuotaUnitOfWork, clock: BusinessClock) -> datetime:
    """By the clock that dates the ledger."""
    wall: datetime = (await uow.connection.execute(_NOW)).scalar_one()
    return wall + clock.offset()


async def _read(uow: QuotaUnitOfWork, statement: TextClause, ids: list[str], at: datetime) -> list[Account]:
    rows = (await uow.connection.execute(statement, {"ids": ids})).all()
    plans = await uow.plans.read({row[2] for row in rows})
    return [
        Account(
            account_id, version, plans[plan_id], anchor, interval, orjson.loads(counters), at, terms=orjson.loads(terms)
        )
        for account_id, version, plan_id, anchor, interval, counters, terms in rows
    ]


async def keep_announcing(
    new_uow: Callable[[], QuotaUnitOfWork], clock: BusinessClock, *, every_s: float = EVERY_S
) -> None:
    """Until cancelled."""
    while True:
        told = 0
        try:
            told = await announce(new_uow(), clock)
        except Exception as error:
            log.warning("totals.delayed", error=repr(error))
        else:
            if told:
                log.info("totals.announced", totals=told)
        # A period, by the business clock: when that is moved past the end of a month, its total is wanted at once.
        next_at = clock.now() + timedelta(seconds=max(every_s, told * EACH_S))
        while clock.now() < next_at:  # noqa: ASYNC110 - time is what is awaited
            await asyncio.sleep(min(every_s, LOOK_S))
