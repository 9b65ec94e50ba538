"""Checkout sessions: at most one per account is not closed, by a unique index."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.storage.tables import checkout

CREATING, OPEN, CLOSED = "creating", "open", "closed"


@dataclass(frozen=True)
class Checkout:
    id: str
    account_id: str
    tier: str
    price_id: str
    success_url: str
    cancel_url: str
    state: str
    attempt: int
    session_id: str | None
    url: str | None
    expire_time: datetime | None
    create_time: datetime
    metered_price_ids: str = ""  # of units that the tier sells, with commas between

    def sells(self, other: Checkout) -> bool:
        """Both are for the same thing, so that one page serves both."""
        return (self.price_id, self.metered_price_ids, self.success_url, self.cancel_url) == (
            other.price_id,
            other.metered_price_ids,
            other.success_url,
            other.cancel_url,
        )


class Checkouts:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def unclosed(self, account_id: str) -> Checkout | None:
        statement = select(checkout).where(checkout.c.account_id == account_id, checkout.c.state != CLOSED)
        row = (await self._connection.execute(statement)).first()
        return Checkout(*row) if row is not None else None

    async def add(self, new: Checkout) -> bool:
        """False when another one is not closed."""
        statement = insert(checkout).values(vars(new)).on_conflict_do_nothing()
        return (await self._connection.execute(statement)).rowcount == 1

    async def opened(self, checkout_id: str, session_id: str, url: str, expire_time: datetime) -> None:
        await self._set(checkout_id, state=OPEN, session_id=session_id, url=url, expire_time=expire_time)

    async def close(self, checkout_id: str) -> None:
        await self._set(checkout_id, state=CLOSED)

    async def next_attempt(self, checkout_id: str, attempt: int) -> None:
        await self._set(checkout_id, attempt=attempt)

    async def _set(self, checkout_id: str, **values: Any) -> None:
        # A closed one stays closed, whoever still works on it.
        statement = update(checkout).where(checkout.c.id == checkout_id, checkout.c.state != CLOSED)
        await self._connection.execute(statement.values(**values))
