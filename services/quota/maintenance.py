"""What time asks for: ledger days made ahead and dropped after 48 hours, rows of the gone removed, lost events healed.

Each loop outlives what it depends on: a failure is logged and tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import date, datetime, timedelta

import structlog
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.kit.clock import Clock
from services.quota import application
from services.quota.ports import Entitlements
from services.quota.storage import QuotaUnitOfWork

AHEAD = 7  # days; the lane makes a missing day itself, but waits for it
KEEP = 2  # whole days before today: a key of this moment is found for 48 hours at least
EVERY_S = 3600.0
TIDY = 5_000  # rows in one transaction
HEAL_EVERY_S = 60.0

_LOCK = 0x71756F74  # "quot": replicas take turns
_DAYS = text("""
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'idem'::regclass
""")
# Lanes of processes that are gone. One that lives and slept so long enters itself again.
_TIDY = text("DELETE FROM lane WHERE use_time < now() - interval '35 days'")
# Of rates that nobody used for longer than any window lasts. What a decision holds just now is left for the next time.
_TIDY_RATES = text("""
DELETE FROM bucket WHERE (account_id, name, key_id) IN (
    SELECT account_id, name, key_id FROM bucket WHERE use_time < now() - interval '2 days'
    LIMIT :most FOR UPDATE SKIP LOCKED
)
""")
# Expired ones hold nothing; nobody needs their rows.
_TIDY_LEASES = text("""
DELETE FROM lease WHERE (account_id, id) IN (
    SELECT account_id, id FROM lease WHERE expire_time < :before LIMIT :most FOR UPDATE SKIP LOCKED
)
""")
_TIDY_TOTALS = text(
    "DELETE FROM usage_announced WHERE final AND period_end < CAST(:before AS timestamptz) - interval '70 days'"
)

log = structlog.get_logger(__name__)


async def make_days(engine: AsyncEngine) -> None:
    """Makes the ledger's partitions from yesterday to a week ahead; drops those past keeping."""
    async with engine.begin() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        # Behind a long reader we would hold up the lane, which needs the same table: rather try again later.
        await connection.execute(text("SET LOCAL lock_timeout = '1s'"))
        today = (await connection.execute(text("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date"))).scalar_one()
        present = {row[0] for row in await connection.execute(_DAYS)}
        for offset in range(-1, AHEAD + 1):
            await _make(connection, today + timedelta(days=offset), present)
        oldest = _name(today - timedelta(days=KEEP))
        for name in sorted(present):
            if name < oldest:
                await connection.execute(text(f'DROP TABLE "{name}"'))
                log.info("ledger.dropped", day=name)


async def _make(connection: AsyncConnection, day: date, present: set[str]) -> None:
    name = _name(day)
    if name not in present:
        following = day + timedelta(days=1)
        await connection.execute(text(f"CREATE TABLE {name} (LIKE idem INCLUDING ALL)"))
        # Attaching a finished table lets decisions go on; creating it in place would lock them out.
        statement = f"ALTER TABLE idem ATTACH PARTITION {name} FOR VALUES FROM ('{day}') TO ('{following}')"
        await connection.execute(text(statement))


def _name(day: date) -> str:
    return f"idem_{day:%Y%m%d}"


async def _tidy(engine: AsyncEngine, statement: TextClause, before: datetime) -> None:
    """In short transactions: a decision that writes one of these rows waits for it."""
    asked = {"before": before, "most": TIDY}
    parameters = {name: asked[name] for name in statement.compile().params}
    deleted = TIDY
    while deleted == TIDY:
        async with engine.begin() as connection:
            deleted = (await connection.execute(statement, parameters)).rowcount


async def keep_days(engine: AsyncEngine, clock: Clock) -> None:
    """Until cancelled: the ledger's days, and what else grows old."""
    while True:
        try:
            await make_days(engine)
            for statement in (_TIDY, _TIDY_RATES, _TIDY_LEASES, _TIDY_TOTALS):
                await _tidy(engine, statement, clock.now() - timedelta(hours=1))
        except Exception as error:
            log.warning("maintenance.delayed", error=repr(error))
            await asyncio.sleep(5)  # pause between attempts: there is nothing to await
        else:
            await asyncio.sleep(EVERY_S)  # a period, not a wait for something


async def keep_healing(
    entitlements: Entitlements, new_uow: Callable[[], QuotaUnitOfWork], *, every_s: float = HEAL_EVERY_S
) -> None:
    """Until cancelled: what billing changed and no event told."""
    delay = 1.0
    while True:
        try:
            healed = await application.heal(entitlements, new_uow)
        except Exception as error:
            log.info("heal.delayed", error=repr(error))
            await asyncio.sleep(delay)  # backoff while billing is away
            delay = min(delay * 2, every_s)
        else:
            if healed:
                log.info("healed", accounts=healed)
            delay = 1.0
            await asyncio.sleep(every_s)  # a period, not a wait for something
