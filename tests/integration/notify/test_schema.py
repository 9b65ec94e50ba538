"""The migrations make the tables that the code uses."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from services.kit import migrate
from services.kit.database import create_engine
from services.notify.main import MIGRATIONS
from services.notify.storage import metadata


async def test_the_migrations_make_exactly_the_tables_in_storage(database: str) -> None:
    engine = create_engine(database)
    await migrate.upgrade(engine, MIGRATIONS)

    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, metadata))

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()
