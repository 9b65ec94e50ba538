"""Work that is left to do at Stripe: a customer there is to be made as its account is here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.storage.tables import customer_push


@dataclass(frozen=True)
class Push:
    account_id: str
    wanted: int


class CustomerPushes:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def want(self, account_id: str) -> None:
        """Whoever is at work on it now has seen an older state: it is done again."""
        statement = insert(customer_push).values(account_id=account_id, wanted=1, hold_until=func.now())
        more = {"wanted": customer_push.c.wanted + 1}
        await self._connection.execute(statement.on_conflict_do_update(index_elements=["account_id"], set_=more))

    async def is_wanted(self, account_id: str) -> bool:
        statement = select(customer_push.c.account_id).where(customer_push.c.account_id == account_id)
        return (await self._connection.execute(statement)).first() is not None

    async def claim(self, hold: timedelta, limit: int, account_id: str = "") -> list[Push]:
        """Those that nobody works on; they are the caller's for as long as the hold."""
        due = customer_push.c.hold_until <= func.now()
        if account_id:
            due &= customer_push.c.account_id == account_id
        chosen = (
            select(customer_push.c.account_id)
            .where(due)
            .order_by(customer_push.c.hold_until)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("chosen")
        )
        statement = (
            update(customer_push)
            .where(customer_push.c.account_id == chosen.c.account_id)
            .values(hold_until=func.now() + hold)
            .returning(customer_push.c.account_id, customer_push.c.wanted)
        )
        return [Push(*row) for row in (await self._connection.execute(statement)).all()]

    async def done(self, push: Push) -> None:
        """Unless it was wanted again meanwhile: then it is due at once."""
        mine = customer_push.c.account_id == push.account_id
        await self._connection.execute(delete(customer_push).where(mine, customer_push.c.wanted == push.wanted))
        await self._connection.execute(update(customer_push).where(mine).values(hold_until=func.now()))

    async def put_off(self, push: Push, delay: timedelta) -> None:
        statement = update(customer_push).where(customer_push.c.account_id == push.account_id)
        await self._connection.execute(statement.values(hold_until=func.now() + delay))
