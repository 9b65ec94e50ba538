"""A service whose schema is up to date starts without the tool that makes schemas."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import services.billing.main as billing
from services.kit import migrate
from services.kit.database import create_engine

_START = """
import asyncio, sys
import services.billing.main as billing
from services.kit import migrate
from services.kit.database import create_engine

async def start():
    engine = create_engine(sys.argv[1])
    await migrate.upgrade(engine, billing.MIGRATIONS)
    await engine.dispose()

asyncio.run(start())
print("alembic" in sys.modules)
"""


def _start(database: str) -> str:
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", _START, database], cwd=root, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.splitlines()[-1]


async def test_only_a_start_that_migrates_loads_alembic(database: str) -> None:
    assert _start(database) == "True"
    assert _start(database) == "False"


async def test_a_schema_that_is_up_to_date_is_left_alone_and_one_that_is_not_is_upgraded(database: str) -> None:
    engine = create_engine(database)
    for _ in range(2):
        await migrate.upgrade(engine, billing.MIGRATIONS)
    async with engine.begin() as connection:
        await connection.exec_driver_sql("DELETE FROM alembic_version")
        names = await connection.exec_driver_sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for name in [row[0] for row in names if row[0] != "alembic_version"]:
            await connection.exec_driver_sql(f'DROP TABLE "{name}" CASCADE')
    await migrate.upgrade(engine, billing.MIGRATIONS)
    async with engine.connect() as connection:
        assert (await connection.exec_driver_sql("SELECT count(*) FROM outbox")).scalar_one() == 0
    await engine.dispose()
