"""What time asks for, and what it must not disturb."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit.clock import BusinessClock
from services.quota import maintenance
from services.quota.domain import Acquire, Use
from services.quota.storage import Plans, QuotaUnitOfWork
from tests.contract.quota.test_commands import guarded
from tests.integration.quota import lanes, world
from tests.integration.quota.lanes import decided, serving

_OLD_LEASES = text("""
INSERT INTO lease (account_id, id, meter, reserved, acquire_time, expire_time, key_id)
SELECT 'acct_a', 'old_' || n, 'messages', 0, now() - interval '3 hours', now() - interval '2 hours', ''
FROM generate_series(1, 25) AS n
""")
_OLD_LOGS = text("""
INSERT INTO bucket (account_id, name, key_id, log, use_time)
SELECT 'acct_a', 'messages_rate', 'key_' || n, '', now() - interval '3 days' FROM generate_series(1, 25) AS n
""")


async def left(engine: AsyncEngine) -> tuple[object, ...]:
    [found] = await lanes.rows(engine, "SELECT (SELECT count(*) FROM lease), (SELECT count(*) FROM bucket)")
    return found


async def test_what_has_grown_old_goes_in_short_transactions_and_what_lives_stays(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "TIDY", 10)
    async with world.tables(database) as engine:
        await world.put(engine, guarded("acct_a"), world.entitlements("acct_b", burst=5))
        async with serving(engine, database) as lane:
            await decided(lane, Acquire("acct_a", "messages", 0, 1, "lease_1"))
            await decided(lane, Use("acct_b", "messages", 1))
        lives = await left(engine)
        async with engine.begin() as connection:
            await connection.execute(_OLD_LEASES)
            await connection.execute(_OLD_LOGS)
        deleted: list[int] = []

        def note(_: object, cursor: object, statement: str, *__: object) -> None:
            if statement.startswith("\nDELETE FROM"):
                deleted.append(cursor.rowcount)  # type: ignore[attr-defined]

        event.listen(engine.sync_engine, "after_cursor_execute", note)
        keeping = asyncio.create_task(maintenance.keep_days(engine, BusinessClock()))
        async with asyncio.timeout(20):
            while await left(engine) != lives:  # noqa: ASYNC110 - a question to the database
                await asyncio.sleep(0.02)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        assert deleted == [10, 10, 5] * 2


async def test_leases_are_listed_by_the_clock_that_decides_of_them(database: str) -> None:
    class Fast(BusinessClock):
        def now(self) -> datetime:
            return super().now() + timedelta(days=1)

    async with world.tables(database) as engine:
        await world.put(engine, guarded("acct_a"))
        async with serving(engine, database) as lane:
            await decided(lane, Acquire("acct_a", "messages", 0, 1, "lease_1"))
        for clock in (BusinessClock(), Fast()):
            async with QuotaUnitOfWork(engine, Plans(), clock) as uow:
                [lease] = await uow.leases.list("acct_a")
                assert lease.expire_time > datetime.now(UTC)


async def test_a_lane_goes_on_when_a_function_that_its_statements_call_was_away(database: str) -> None:
    async with world.tables(database) as engine:
        names = [f"acct_{n}" for n in range(3)]
        await world.put(engine, *(world.entitlements(name, limit=None) for name in names))
        async with serving(engine, database) as lane:
            assert (await decided(lane, Use(names[0], "messages", 1))).allowed
            async with engine.begin() as connection:
                [(body,)] = (
                    await connection.execute(
                        text(
                            "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = 'quota_read' AND pronargs = 4"
                        )
                    )
                ).all()
                await connection.execute(text("DROP FUNCTION quota_read(text[], text[], text[], boolean)"))
            assert lanes.allowed(await lane.decide([Use(names[1], "messages", 1, "k")], 0.3)) == 0
            async with engine.begin() as connection:
                await connection.exec_driver_sql(body)
            assert (await decided(lane, Use(names[1], "messages", 1, "k"))).allowed
        assert [await lanes.totals(engine, name) for name in names] == [(1, 1), (1, 1), (0, 0)]
