"""Each service's PostgreSQL: reachable, new enough, migrated, on our time, and no backlog in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from services.doctor.finding import Finding
from services.kit import migrate

OLDEST = 15  # the oldest major version whose support lasts
SKEW_S = 2.0
WAITING_S = 60
_SERVICES = Path(__file__).parents[1]
_BACKLOG = f"""
SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(create_time)), 0) FROM outbox
WHERE publish_time IS NULL AND create_time < clock_timestamp() - interval '{WAITING_S} seconds'
"""  # noqa: S608 - a number of ours


async def examine(service: str, dsn: str) -> AsyncIterator[Finding]:
    check = f"database of {service}"
    engine = create_async_engine(dsn, poolclass=NullPool, connect_args={"timeout": 5, "command_timeout": 5})
    try:
        async with engine.connect() as connection:
            async for finding in _look(service, check, connection):
                yield finding
    except (SQLAlchemyError, OSError) as error:
        said = str(getattr(error, "orig", None) or error).splitlines()[0].rpartition("'>: ")[2]
        server = f"{engine.url.host}:{engine.url.port or 5432}/{engine.url.database}"
        fix = f"check TOLLWAY_{service.upper()}_DSN, that the server runs, and that it lets this machine in"
        yield Finding.fail(check, f"{server}: {said or type(error).__name__}", fix)
    finally:
        await engine.dispose()


async def _look(service: str, check: str, connection: AsyncConnection) -> AsyncIterator[Finding]:
    before = datetime.now(UTC)
    number, theirs = (
        await connection.execute(text("SELECT current_setting('server_version_num')::int, clock_timestamp()"))
    ).one()
    after = datetime.now(UTC)
    if number // 10_000 < OLDEST:
        yield Finding.warn(check, f"PostgreSQL {number // 10_000} is old", f"upgrade to {OLDEST} or newer")
    else:
        yield Finding.ok(check, f"PostgreSQL {number // 10_000}")
    ahead = max((theirs - after).total_seconds(), 0) - max((before - theirs).total_seconds(), 0)
    if abs(ahead) > SKEW_S:
        way = "ahead of" if ahead > 0 else "behind"
        told = f"its clock is {abs(ahead):.1f} s {way} this machine's"
        yield Finding.warn(f"clock of {service}'s database", told, "run a time service (NTP) on both machines")
    else:
        yield Finding.ok(f"clock of {service}'s database", f"within {SKEW_S:g} s")
    yield await _schema(service, connection)
    if await connection.scalar(text("SELECT to_regclass('outbox') IS NOT NULL")):
        yield await _outbox(service, connection)


async def _schema(service: str, connection: AsyncConnection) -> Finding:
    check = f"schema of {service}"
    there, newest = await connection.run_sync(migrate.revisions, _SERVICES / service / "migrations")
    if there == newest:
        return Finding.ok(check, f"current (revision {there})")
    if there is None:
        return Finding.fail(check, "nothing was migrated yet", f"start {service}: it migrates its own database")
    told = f"it is at revision {there}, this release knows {newest}"
    return Finding.warn(check, told, f"start this release of {service}: it migrates its own database")


async def _outbox(service: str, connection: AsyncConnection) -> Finding:
    check = f"outbox of {service}"
    waiting, oldest = (await connection.execute(text(_BACKLOG))).one()
    if not waiting:
        return Finding.ok(check, f"nothing waits longer than {WAITING_S} s")
    told = f"{waiting} events wait to be published, the oldest for {int(oldest)} s"
    return Finding.warn(check, told, f"see that {service} runs and reaches NATS, and that the stream has room")
