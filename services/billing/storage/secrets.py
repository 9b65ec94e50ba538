"""Signing keys and the answers given under idempotency keys. Both are stored encrypted (services.billing.vault)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.storage.tables import idempotent_answer, signing_key


@dataclass(frozen=True)
class SigningKey:
    id: str
    private_key: bytes  # encrypted
    public_jwk: str  # JSON
    active_time: datetime


@dataclass(frozen=True)
class Answer:
    fingerprint: bytes
    answer: bytes  # encrypted


class SigningKeys:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def lock(self) -> None:
        """One maker at a time, until the transaction ends."""
        await self._connection.execute(select(func.pg_advisory_xact_lock(0x6B657973)))

    async def all(self) -> list[SigningKey]:
        """In the order in which they become active."""
        rows = await self._connection.execute(select(signing_key).order_by(signing_key.c.active_time))
        return [SigningKey(*row) for row in rows.all()]

    async def add(self, key: SigningKey) -> None:
        await self._connection.execute(insert(signing_key).values(vars(key)))

    async def remove(self, key_id: str) -> None:
        await self._connection.execute(delete(signing_key).where(signing_key.c.id == key_id))


class IdempotentAnswers:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def find(self, scope: str, request_id: str) -> Answer | None:
        """What was answered. Holds the key until the transaction ends, so that a second request under it waits."""
        await self._connection.execute(
            select(func.pg_advisory_xact_lock(func.hashtextextended(f"{scope} {request_id}", 2)))
        )
        statement = select(idempotent_answer.c.fingerprint, idempotent_answer.c.answer).where(
            idempotent_answer.c.scope == scope, idempotent_answer.c.request_id == request_id
        )
        row = (await self._connection.execute(statement)).first()
        return Answer(*row) if row is not None else None

    async def add(self, scope: str, request_id: str, answer: Answer, now: datetime) -> None:
        values = {"scope": scope, "request_id": request_id, "create_time": now, **vars(answer)}
        await self._connection.execute(upsert(idempotent_answer).values(values))

    async def count(self, scope: str) -> int:
        """How many keys of a scope have an answer."""
        statement = select(func.count()).where(idempotent_answer.c.scope == scope)
        return int((await self._connection.execute(statement)).scalar_one())

    async def forget(self, now: datetime, keep: timedelta) -> None:
        statement = delete(idempotent_answer).where(idempotent_answer.c.create_time < now - keep)
        await self._connection.execute(statement)
