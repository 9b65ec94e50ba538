"""Totals of use that is sold by the unit, and how much of them Stripe has taken."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.domain.metering import UsageTotal
from services.billing.storage.tables import account, usage_total

_FIELDS = [field.name for field in fields(UsageTotal)]
_COLUMNS = [usage_total.c[name] for name in _FIELDS]
_OPEN = (usage_total.c.used != usage_total.c.sent) | usage_total.c.sending.is_not(None)


class UsageTotals:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def believe(self, told: UsageTotal) -> None:
        """Of two totals of a period the later one stands; what was sent stays."""
        statement = insert(usage_total).values(**vars(told), hold_until=func.now())
        new = statement.excluded
        values: dict[str, Any] = {name: new[name] for name in ("used", "record_time", "period_end")}
        values["final"] = usage_total.c.final | new.final
        await self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=["account_id", "meter", "period_start"],
                set_=values,
                where=usage_total.c.record_time <= new.record_time,
            )
        )

    async def due(self, limit: int) -> list[tuple[str, str]]:
        """Accounts and meters with something to send; nobody may be at work on any of their periods."""
        at_work = func.bool_or(usage_total.c.hold_until > func.now())
        statement = (
            select(usage_total.c.account_id, usage_total.c.meter)
            .join(account, account.c.id == usage_total.c.account_id)
            .where(_OPEN, account.c.stripe_customer_id.is_not(None), account.c.erase_time.is_(None))
            .group_by(usage_total.c.account_id, usage_total.c.meter)
            .having(~at_work)
            .order_by(func.min(usage_total.c.record_time))
            .limit(limit)
        )
        return [(row[0], row[1]) for row in (await self._connection.execute(statement)).all()]

    async def unsent_meters(self, account_id: str) -> list[str]:
        """Of an account that Stripe knows."""
        statement = (
            select(usage_total.c.meter)
            .join(account, account.c.id == usage_total.c.account_id)
            .where(usage_total.c.account_id == account_id, _OPEN, account.c.stripe_customer_id.is_not(None))
            .distinct()
        )
        return list((await self._connection.execute(statement)).scalars())

    async def claim(self, account_id: str, meter: str, hold: timedelta) -> UsageTotal | None:
        """The oldest open period, for as long as the hold; None while somebody has one of this meter's. The rows are
        locked until the transaction ends, so that two never send at once."""
        mine = (usage_total.c.account_id == account_id) & (usage_total.c.meter == meter)
        locked = (
            select(*_COLUMNS, (usage_total.c.hold_until > func.now()).label("held"))
            .where(mine, _OPEN)
            .order_by(usage_total.c.period_start)
            .with_for_update()
        )
        rows = [dict(row) for row in (await self._connection.execute(locked)).mappings()]
        if not rows or any(row["held"] for row in rows):
            return None
        chosen = UsageTotal(**{name: rows[0][name] for name in _FIELDS})
        await self._connection.execute(_of(chosen).values(hold_until=func.now() + hold))
        return chosen

    async def save_report(self, total: UsageTotal) -> None:
        """The report under way, or that it was taken. Leaves what quota says alone."""
        names = ("sent", "sending", "sending_stamp", "reports", "late")
        await self._connection.execute(_of(total).values({name: getattr(total, name) for name in names}))

    async def release(self, total: UsageTotal, delay: timedelta) -> None:
        await self._connection.execute(_of(total).values(hold_until=func.now() + delay))

    async def of(self, account_id: str, *, only_late: bool, limit: int) -> list[UsageTotal]:
        """Newest period first; of every account when `account_id` is empty."""
        statement = select(*_COLUMNS).order_by(usage_total.c.period_start.desc(), usage_total.c.account_id).limit(limit)
        if account_id:
            statement = statement.where(usage_total.c.account_id == account_id)
        if only_late:
            statement = statement.where(usage_total.c.late)
        return [UsageTotal(**dict(row)) for row in (await self._connection.execute(statement)).mappings()]


def _of(total: UsageTotal):  # type: ignore[no-untyped-def] # sqlalchemy's Update
    return update(usage_total).where(
        usage_total.c.account_id == total.account_id,
        usage_total.c.meter == total.meter,
        usage_total.c.period_start == total.period_start,
    )
