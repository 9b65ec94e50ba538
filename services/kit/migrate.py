"""Schema migrations: each service migrates its own database when it starts.

Replicas take turns by an advisory lock. A database that a newer release has migrated already is left as it is, so
that a rolling upgrade, or one step back, can run: migrations only add until the release after.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from services.kit.config import ConfigurationError
from services.kit.failpoint import failpoint
from services.kit.transient import is_transient

_LOCK = 0x746F6C6C  # "toll"

log = structlog.get_logger(__name__)


async def upgrade(engine: AsyncEngine, migrations: Path) -> None:
    """Brings the database to the newest schema that this release knows. `migrations` holds env.py and versions/.

    Raises ConfigurationError when the server refuses us: wrong user or password, no such database. Waits for one that
    is not up yet: services start in any order. Each migration is one transaction, so one that is interrupted leaves
    nothing behind and runs again.
    """
    # Without the engine's time limit on statements: an index takes what it takes, and so does another's turn.
    own = create_async_engine(engine.url, poolclass=NullPool, connect_args={"timeout": 5})
    delay = 0.1
    while True:
        try:
            async with own.connect() as connection:
                # The session holds the lock; closing the connection, or dying, gives it back.
                await connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
                await connection.commit()
                await connection.run_sync(_upgrade, migrations)
            return
        except Exception as error:
            server = f"{own.url.host}:{own.url.port or 5432}/{own.url.database}"
            # SQLSTATE classes: invalid authorization, invalid catalog name.
            if getattr(getattr(error, "orig", error), "sqlstate", "")[:2] in {"28", "3D"}:
                raise ConfigurationError(f"the database {server} refuses: {error}") from None
            if not is_transient(error):
                raise
            log.info("database.waiting", server=server, error=type(error).__name__)
            await asyncio.sleep(delay)  # backoff between attempts: there is nothing to await
            delay = min(delay * 2, 2.0)


def _upgrade(connection: Connection, migrations: Path) -> None:
    if _is_newest(connection, migrations):
        return
    # Only now: Alembic would stay in the process for good, 10 MB that a service never needs again.
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    scripts = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection).get_current_revision()
    connection.commit()  # else Alembic finds a transaction and runs all migrations in it
    known = {script.revision for script in scripts.walk_revisions()}
    if current is not None and current not in known:
        log.warning("schema.newer", revision=current)
        return
    if current == scripts.get_current_head():
        return
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    log.info("schema.upgraded", before=current, now=scripts.get_current_head())


_NAMES = re.compile(r'^(revision|down_revision) = "([^"]+)"', re.MULTILINE)


def _is_newest(connection: Connection, migrations: Path) -> bool:
    """True when the database is at the one revision that no other builds on; when in doubt Alembic is asked."""
    current, newest = revisions(connection, migrations)
    connection.commit()
    return current is not None and current == newest


def revisions(connection: Connection, migrations: Path) -> tuple[str | None, str | None]:
    """What the database is at (None: nothing), and the one revision that no other builds on (None: it is not one)."""
    found = [dict(_NAMES.findall(path.read_text())) for path in (migrations / "versions").glob("*.py")]
    heads = {each.get("revision") for each in found} - {each.get("down_revision") for each in found}
    current = None
    if inspect(connection).has_table("alembic_version"):
        current = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return current, next(iter(heads)) if len(heads) == 1 else None


def run_environment(context: Any) -> None:
    """The whole of a service's `migrations/env.py`; `context` is `alembic.context`."""
    context.configure(
        connection=context.config.attributes["connection"],
        transaction_per_migration=True,
        on_version_apply=lambda **_: failpoint("migrate.applied"),  # in the migration's transaction
    )
    with context.begin_transaction():
        context.run_migrations()
