"""The service's own PostgreSQL: an engine, and the unit of work in which use cases read, decide, save and announce."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from services.kit.failpoint import failpoint
from services.kit.inbox import Inbox
from services.kit.outbox import Outbox
from services.kit.transient import is_transient

__all__ = ["UnitOfWork", "create_engine", "is_transient", "new_metadata"]

# Named constraints: an error names the rule that was broken, and a migration can find it.
NAMING = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


def new_metadata() -> MetaData:
    return MetaData(naming_convention=NAMING)


def create_engine(dsn: str, *, pool_size: int = 8, application_name: str = "tollway") -> AsyncEngine:
    """An engine over asyncpg. `dsn` is `postgresql+asyncpg://…`."""
    return create_async_engine(
        dsn,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=False,  # a dead connection fails its first statement; `is_transient` says to try again
        pool_recycle=1800,
        pool_timeout=5,
        pool_use_lifo=True,  # the connection used last has its statements prepared; the idle ones stay spare
        connect_args={
            "timeout": 5,
            "command_timeout": 30,
            "server_settings": {
                "application_name": application_name,
                "jit": "off",
                "idle_in_transaction_session_timeout": "60s",
            },
        },
    )


class UnitOfWork:
    """One transaction: `async with uow: …; await uow.commit()`. Leaving without commit rolls back.

    A service's own class binds its repositories in `bind`. Events added to `outbox` are in the same transaction.
    It may be entered again afterwards, never twice at once.
    """

    outbox: Outbox
    inbox: Inbox  # only where the service's schema has one

    def __init__(self, engine: AsyncEngine, committed: Callable[[], None] = lambda: None) -> None:
        self._engine = engine
        self._committed = committed
        self._connection: AsyncConnection | None = None

    def bind(self, connection: AsyncConnection) -> None:
        """Makes the repositories over this transaction's connection."""

    async def __aenter__(self) -> Self:
        if self._connection is not None:
            raise RuntimeError("this unit of work is in use: each task needs one of its own")
        connection = self._connection = await self._engine.connect()
        self.outbox = Outbox(connection)
        self.inbox = Inbox(connection)
        self.bind(connection)
        return self

    @property
    def connection(self) -> AsyncConnection:
        if self._connection is None:
            raise RuntimeError("outside `async with`")
        return self._connection

    async def commit(self) -> None:
        await self.outbox.flush()
        failpoint("uow.flushed")
        await self.connection.commit()
        failpoint("uow.committed")
        if self.outbox.announced:
            self._committed()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection, self._connection = self.connection, None
        # Closing rolls back what was not committed. Shielded: a cancelled call must still give its connection back.
        await asyncio.shield(connection.close())
