"""What a restart of PostgreSQL costs a running service: a failure that says it will pass, and no more than one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import pytest
from sqlalchemy import insert

from services.kit.database import UnitOfWork, create_engine, is_transient
from tests.crash import tables
from tests.crash.harness import Postgres


@pytest.fixture
def postgres(tmp_path: Path) -> Postgres:
    return Postgres(tmp_path)


async def make(uow: UnitOfWork, n: int) -> None:
    async with uow:
        await uow.connection.execute(insert(tables.made).values(n=n))
        await uow.commit()


async def failure(work: Awaitable[None]) -> Exception | None:
    try:
        await work
    except Exception as error:
        return error
    return None


async def test_one_failure_at_most_and_then_work_goes_on(postgres: Postgres) -> None:
    with postgres:
        engine = create_engine(postgres.database("x"), pool_size=4)
        await tables.create(engine)
        # Every connection of the pool is in use once, so that all of them are broken afterwards.
        await asyncio.gather(*(make(UnitOfWork(engine), n) for n in range(4)))
        postgres.kill()
        away = await failure(make(UnitOfWork(engine), 100))
        assert away is not None
        assert is_transient(away)
        postgres.start()
        outcomes = [await failure(make(UnitOfWork(engine), n)) for n in range(5, 13)]
        failures = [error for error in outcomes if error is not None]
        assert len(failures) <= 1
        assert all(is_transient(error) for error in failures)
        assert await tables.count(engine, tables.made) == 12 - len(failures)
        await engine.dispose()


async def test_a_transaction_cut_off_leaves_its_connection_usable_or_gone(postgres: Postgres) -> None:
    with postgres:
        engine = create_engine(postgres.database("x"), pool_size=1)
        await tables.create(engine)
        uow = UnitOfWork(engine)

        async def cut_off() -> None:
            async with uow:
                await uow.connection.execute(insert(tables.made).values(n=1))
                postgres.kill()
                await uow.commit()

        cut = await failure(cut_off())
        assert cut is not None
        assert is_transient(cut)
        postgres.start()
        await make(uow, 2)
        assert await tables.count(engine, tables.made) == 1
        await engine.dispose()


async def test_a_cancelled_call_gives_its_connection_back(postgres: Postgres) -> None:
    with postgres:
        engine = create_engine(postgres.database("x"), pool_size=1)
        await tables.create(engine)
        uow = UnitOfWork(engine)

        async def hang(n: int) -> None:
            async with asyncio.timeout(0.05), uow:
                await uow.connection.execute(insert(tables.made).values(n=n))
                await uow.connection.exec_driver_sql("SELECT pg_sleep(5)")

        for n in range(6):  # more often than the pool has connections
            assert isinstance(await failure(hang(n)), TimeoutError)
        await make(uow, 1)
        assert await tables.count(engine, tables.made) == 1
        await engine.dispose()
