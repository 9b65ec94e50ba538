"""Refunds by policy, and what was given back or disputed at Stripe."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.domain.refund import Refund, Seen, State
from services.billing.storage.tables import charge_reversal, invoice, refund, subscription

_FIELDS = [field.name for field in fields(Refund)]
_COLUMNS = [refund.c[name] for name in _FIELDS]
_BASE = ("subscription_create", "subscription_cycle")  # invoices that charge a period's base fee


class Refunds:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, new: Refund, hold: timedelta) -> bool:
        """False when the account has one already. Nobody else works on it for as long as the hold."""
        statement = insert(refund).values(**vars(new), hold_until=func.now() + hold)
        result = await self._connection.execute(statement.on_conflict_do_nothing(index_elements=["account_id"]))
        return result.rowcount == 1

    async def of(self, account_id: str) -> Refund | None:
        row = (
            (await self._connection.execute(select(*_COLUMNS).where(refund.c.account_id == account_id)))
            .mappings()
            .first()
        )
        return None if row is None else _refund(dict(row))

    async def move(self, before: Refund, after: Refund) -> bool:
        """False when somebody else moved it on meanwhile: then nothing of this step may be kept."""
        statement = update(refund).where(
            refund.c.id == before.id, refund.c.state == before.state, refund.c.attempt == before.attempt
        )
        return (await self._connection.execute(statement.values(**vars(after)))).rowcount == 1

    async def claim(self, hold: timedelta, limit: int, account_id: str = "") -> list[Refund]:
        """Unfinished ones that nobody works on; they are the caller's for as long as the hold."""
        due = (refund.c.finish_time.is_(None)) & (refund.c.hold_until <= func.now())
        if account_id:
            due &= refund.c.account_id == account_id
        chosen = select(refund.c.id).where(due).limit(limit).with_for_update(skip_locked=True)
        statement = update(refund).where(refund.c.id.in_(chosen.scalar_subquery()))
        rows = (
            await self._connection.execute(statement.values(hold_until=func.now() + hold).returning(*_COLUMNS))
        ).mappings()
        return [_refund(dict(row)) for row in rows]

    async def release(self, refund_id: str, delay: timedelta) -> None:
        statement = update(refund).where(refund.c.id == refund_id)
        await self._connection.execute(statement.values(hold_until=func.now() + delay))

    async def began(self, account_id: str) -> datetime | None:
        """The start of the first subscription that money was paid for."""
        statement = (
            select(func.min(subscription.c.create_time))
            .join(invoice, invoice.c.subscription_id == subscription.c.id)
            .where(subscription.c.account_id == account_id, invoice.c.status == "paid", invoice.c.amount_paid > 0)
        )
        found: datetime | None = (await self._connection.execute(statement)).scalar_one()
        return found

    async def base_invoice(self, subscription_id: str) -> str | None:
        """The latest paid invoice that charged the subscription's base fee."""
        statement = (
            select(invoice.c.id)
            .where(
                invoice.c.subscription_id == subscription_id,
                invoice.c.status == "paid",
                invoice.c.amount_paid > 0,
                invoice.c.billing_reason.in_(_BASE),
            )
            .order_by(invoice.c.create_time.desc())
            .limit(1)
        )
        return (await self._connection.execute(statement)).scalar_one_or_none()


class Reversals:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def save(self, account_id: str, seen: Seen) -> str:
        """Saves it and returns the status that others have heard of it; empty: they have not."""
        values = vars(seen)
        statement = insert(charge_reversal).values(account_id=account_id, announced_status="", **values)
        # What names its refund by policy stays so, whatever is read later.
        keep = statement.on_conflict_do_update(index_elements=["id"], set_=values)
        return str((await self._connection.execute(keep.returning(charge_reversal.c.announced_status))).scalar_one())

    async def announced(self, seen: Seen) -> None:
        statement = update(charge_reversal).where(charge_reversal.c.id == seen.id)
        await self._connection.execute(statement.values(announced_status=seen.status))


def _refund(row: dict[str, object]) -> Refund:
    found = Refund(**row)  # type: ignore[arg-type] # the columns are the fields
    return replace(found, state=State(found.state))
