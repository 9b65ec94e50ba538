"""notify's tables in PostgreSQL, behind the two ports that use them."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from services.kit.database import UnitOfWork
from services.notify.storage.drafts import PostgresDrafts
from services.notify.storage.mailbag import CLAIM, SENDING, PostgresMailbag
from services.notify.storage.tables import metadata

__all__ = ["CLAIM", "SENDING", "NotifyUnitOfWork", "PostgresDrafts", "PostgresMailbag", "metadata"]


class NotifyUnitOfWork(UnitOfWork):
    drafts: PostgresDrafts

    def bind(self, connection: AsyncConnection) -> None:
        self.drafts = PostgresDrafts(connection)
