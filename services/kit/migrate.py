"""Schema migrations: each service migrates its own database when it starts.

Replicas take turns by an advisory lock. A database that a newer release has migrated already is left as it is, so
that a rolling upgrade, or one step back, can run: migrations only add until the release after.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

_LOCK = 0x746F6C6C  # "toll"

log = structlog.get_logger(__name__)


async def upgrade(engine: AsyncEngine, migrations: Path) -> None:
    """Brings the database to the newest schema that this release knows. `migrations` holds env.py and versions/."""
    async with engine.connect() as connection:
        # On a connection of its own, outside the migration's transaction: it is held until all steps are done.
        await connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
        await connection.commit()
        try:
            async with engine.connect() as worker:
                await worker.run_sync(_upgrade, migrations)
                await worker.commit()
        finally:
            await connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})
            await connection.commit()


def _upgrade(connection: Connection, migrations: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations))
    config.set_main_option("path_separator", "os")
    scripts = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in scripts.walk_revisions()}
    if current is not None and current not in known:
        log.warning("schema.newer", revision=current)
        return
    if current == scripts.get_current_head():
        return
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    log.info("schema.upgraded", before=current, now=scripts.get_current_head())


def run_environment(context: Any) -> None:
    """The whole of a service's `migrations/env.py`."""
    config = context.config
    assert config is not None  # noqa: S101 - alembic always sets it
    context.configure(connection=config.attributes["connection"], transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
