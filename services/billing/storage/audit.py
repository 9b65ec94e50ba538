"""The audit log: rows are added and, when their time has come, deleted; nothing changes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.domain.principal import Actor, ActorKind
from services.billing.storage.tables import audit_log


@dataclass(frozen=True)
class AuditEntry:
    id: str
    account_id: str
    actor: Actor
    action: str
    subject: str
    details: Mapping[str, Any]
    create_time: datetime
    delete_time: datetime


class AuditLog:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, entry: AuditEntry) -> None:
        values = {name: value for name, value in vars(entry).items() if name != "actor"}
        values |= {"actor_kind": entry.actor.kind.value, "actor_id": entry.actor.id}
        await self._connection.execute(insert(audit_log).values(values))

    async def list(self, account_id: str, before: str, limit: int, now: datetime) -> list[AuditEntry]:
        """Newest first; `before` is the id of the last one seen, or empty. What is due to go is not shown any more."""
        statement = select(audit_log).where(audit_log.c.account_id == account_id, audit_log.c.delete_time > now)
        if before:
            statement = statement.where(audit_log.c.id < before)
        rows = await self._connection.execute(statement.order_by(audit_log.c.id.desc()).limit(limit))
        return [
            AuditEntry(
                id=row.id,
                account_id=row.account_id,
                actor=Actor(ActorKind(row.actor_kind), row.actor_id),
                action=row.action,
                subject=row.subject,
                details=row.details,
                create_time=row.create_time,
                delete_time=row.delete_time,
            )
            for row in rows
        ]

    async def purge(self, now: datetime, limit: int) -> int:
        """Deletes what is due, at most so many rows; returns how many they were."""
        due = (
            select(audit_log.c.id)
            .where(audit_log.c.delete_time <= now)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("due")
        )
        return (await self._connection.execute(delete(audit_log).where(audit_log.c.id == due.c.id))).rowcount
