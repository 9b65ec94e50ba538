"""How far a comparison of everything has come: one row for all replicas."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.storage.tables import sweep


class Sweeps:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def claim(self, name: str, hold: timedelta) -> str | None:
        """Where to go on (empty: at the beginning), for as long as the hold; None while it is not due, or another
        replica's turn."""
        new = insert(sweep).values(name=name, cursor="", next_time=func.now(), hold_until=func.now())
        await self._connection.execute(new.on_conflict_do_nothing())
        due = (sweep.c.name == name) & (sweep.c.next_time <= func.now()) & (sweep.c.hold_until <= func.now())
        chosen = select(sweep.c.name).where(due).with_for_update(skip_locked=True).cte("chosen")
        statement = update(sweep).where(sweep.c.name == chosen.c.name).values(hold_until=func.now() + hold)
        found: str | None = (await self._connection.execute(statement.returning(sweep.c.cursor))).scalar_one_or_none()
        return found

    async def advance(self, name: str, cursor: str, pause: timedelta) -> None:
        """The next page begins there, after the pause."""
        values = {"cursor": cursor, "next_time": func.now() + pause, "hold_until": func.now()}
        await self._connection.execute(update(sweep).where(sweep.c.name == name).values(values))
