"""Services migrate their database when they start: in turns, whole steps only, and never backwards."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from services.kit import migrate
from services.kit.config import ConfigurationError
from tests.crash.harness import Postgres, Program, eventually

MIGRATIONS = Path(__file__).parent / "migrating"


@pytest.fixture
async def engine(database: str) -> AsyncIterator[AsyncEngine]:
    made = create_async_engine(database, poolclass=NullPool)
    yield made
    await made.dispose()


def program(dsn: str, folder: Path) -> Program:
    folder.mkdir(exist_ok=True)
    return Program("tests.integration.kit.migrating", {"DSN": dsn}, folder)


async def state(engine: AsyncEngine) -> tuple[str | None, list[str]]:
    """The revision, and the tables that the migrations made."""
    async with engine.connect() as connection:
        query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
        tables = list((await connection.execute(text(query))).scalars())
        if "alembic_version" not in tables:
            return None, tables
        tables.remove("alembic_version")
        return (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar(), tables


async def test_two_processes_at_once_migrate_once(database: str, engine: AsyncEngine, tmp_path: Path) -> None:
    both = [program(database, tmp_path / name) for name in ("a", "b")]
    for one in both:
        one.start()
    for one in both:
        await eventually(one.is_dead)
        assert one.stop() == 0, one.log.read_text()
    assert await state(engine) == ("0002", ["first", "second"])
    assert sorted(one.said("schema.upgraded") for one in both) == [False, True]


async def test_a_migration_killed_half_way_leaves_nothing_and_runs_again(
    database: str, engine: AsyncEngine, tmp_path: Path
) -> None:
    migrating = program(database, tmp_path)
    migrating.arm("migrate.applied", passes=1)  # in the second migration, after its statements, before its commit
    migrating.start()
    await eventually(migrating.is_dead)
    assert migrating.process is not None
    assert migrating.process.returncode == -signal.SIGKILL
    assert await state(engine) == ("0001", ["first"])
    migrating.start()
    await eventually(migrating.is_dead)
    assert await state(engine) == ("0002", ["first", "second"])
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM second"))).scalar_one() == 1


async def test_a_database_of_a_newer_release_is_left_as_it_is(engine: AsyncEngine) -> None:
    await migrate.upgrade(engine, MIGRATIONS)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '0099'"))
        await connection.execute(text("CREATE TABLE third (id int)"))
    await migrate.upgrade(engine, MIGRATIONS)
    assert await state(engine) == ("0099", ["first", "second", "third"])


async def test_another_turn_longer_than_the_engines_time_limit_is_waited_for(database: str, tmp_path: Path) -> None:
    hurried = create_async_engine(database, connect_args={"command_timeout": 0.2})
    async with hurried.connect() as holder:
        await holder.execute(text("SELECT pg_advisory_lock(:key)"), {"key": migrate._LOCK})
        waiting = asyncio.create_task(migrate.upgrade(hurried, MIGRATIONS))
        done, _ = await asyncio.wait({waiting}, timeout=1)
        assert not done
        await holder.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": migrate._LOCK})
        await holder.commit()
        await waiting
    assert (await state(hurried))[0] == "0002"
    await hurried.dispose()


async def test_a_start_waits_for_its_database(tmp_path: Path) -> None:
    with Postgres(tmp_path) as postgres:
        dsn = postgres.database("late")
        postgres.kill()
        migrating = program(dsn, tmp_path / "program")
        with migrating:
            await eventually(lambda: migrating.said("database.waiting"))
            postgres.start()
            await eventually(migrating.is_dead)
            assert migrating.stop() == 0, migrating.log.read_text()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"password": "wrong"}, "password authentication failed"),
        ({"database": "nowhere"}, 'database "nowhere" does not exist'),
    ],
)
async def test_a_database_that_refuses_us_is_named_and_not_waited_for(
    database: str, wrong: dict[str, str], said: str
) -> None:
    engine = create_async_engine(make_url(database).set(**wrong))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError) as refused:
        await asyncio.wait_for(migrate.upgrade(engine, MIGRATIONS), 10)
    assert said in str(refused.value)
    assert f"{engine.url.host}:{engine.url.port}/{engine.url.database}" in str(refused.value)
    assert "wrong" not in str(refused.value)
    await engine.dispose()
