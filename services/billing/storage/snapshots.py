"""Subscriptions and invoices as last read from Stripe."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import func, literal_column, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.domain.notices import Told
from services.billing.domain.subscription import Invoice, Subscription
from services.billing.storage.tables import invoice, subscription

_SUBSCRIPTION = [field.name for field in fields(Subscription)]
_INVOICE = [field.name for field in fields(Invoice)]


@dataclass(frozen=True)
class Announced:
    """What was told of an invoice so far."""

    paid: bool
    attempts: int
    first_failure_time: datetime | None
    is_new: bool = False  # it is seen for the first time


class Snapshots:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def save_subscriptions(self, account_id: str, read: list[Subscription]) -> None:
        for each in read:
            values = vars(each)
            statement = insert(subscription).values(account_id=account_id, **values)
            await self._connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))

    async def subscriptions(self, account_id: str) -> list[Subscription]:
        statement = select(*(subscription.c[name] for name in _SUBSCRIPTION)).where(
            subscription.c.account_id == account_id
        )
        return [Subscription(**row) for row in (await self._connection.execute(statement)).mappings()]

    async def customer_email(self, account_id: str) -> str:
        """The address that Stripe had for the customer when it made the newest invoice; empty when it had none."""
        statement = (
            select(invoice.c.customer_email)
            .where(invoice.c.account_id == account_id, invoice.c.customer_email != "")
            .order_by(invoice.c.create_time.desc())
            .limit(1)
        )
        return (await self._connection.execute(statement)).scalar_one_or_none() or ""

    async def told(self, account_id: str) -> dict[str, Told]:
        """By the subscription's id."""
        columns = (subscription.c.trial_end_told, subscription.c.cancel_time_told, subscription.c.ended_told)
        statement = select(subscription.c.id, *columns).where(subscription.c.account_id == account_id)
        return {row[0]: Told(*row[1:]) for row in (await self._connection.execute(statement)).all()}

    async def note_told(self, subscription_id: str, told: Told) -> None:
        values = {"trial_end_told": told.trial_end, "cancel_time_told": told.cancel_time, "ended_told": told.ended}
        await self._connection.execute(update(subscription).where(subscription.c.id == subscription_id).values(values))

    async def subscriptions_of_ids(self, ids: Collection[str]) -> dict[str, Subscription]:
        statement = select(*(subscription.c[name] for name in _SUBSCRIPTION)).where(subscription.c.id.in_(ids))
        rows = (await self._connection.execute(statement)).mappings()
        return {row["id"]: Subscription(**row) for row in rows}

    async def save_invoice(self, account_id: str, read: Invoice) -> Announced:
        """Saves it and returns what had been announced of it before."""
        values = vars(read)
        statement = insert(invoice).values(account_id=account_id, paid_announced=False, attempts_announced=0, **values)
        statement = statement.on_conflict_do_update(index_elements=["id"], set_=values)
        returning = statement.returning(
            invoice.c.paid_announced,
            invoice.c.attempts_announced,
            invoice.c.first_failure_time,
            literal_column("xmax = 0"),  # of a row that was inserted
        )
        return Announced(*(await self._connection.execute(returning)).one())

    async def invoices(self, account_id: str) -> list[Invoice]:
        statement = select(*(invoice.c[name] for name in _INVOICE)).where(invoice.c.account_id == account_id)
        return [Invoice(**row) for row in (await self._connection.execute(statement)).mappings()]

    async def invoice_number(self, invoice_id: str) -> str:
        """As people know it; empty for one that is not held here."""
        statement = select(invoice.c.number).where(invoice.c.id == invoice_id)
        return (await self._connection.execute(statement)).scalar_one_or_none() or ""

    async def listed_invoices(self, account_id: str, before: str, limit: int) -> list[Invoice]:
        """Newest first, without drafts; `before` is the id of the last one seen, or empty."""
        statement = select(*(invoice.c[name] for name in _INVOICE)).where(
            invoice.c.account_id == account_id, invoice.c.status != "draft"
        )
        if before:
            last = select(invoice.c.create_time, invoice.c.id).where(
                invoice.c.id == before, invoice.c.account_id == account_id
            )
            statement = statement.where(tuple_(invoice.c.create_time, invoice.c.id) < last.scalar_subquery())
        ordered = statement.order_by(invoice.c.create_time.desc(), invoice.c.id.desc()).limit(limit)
        return [Invoice(**row) for row in (await self._connection.execute(ordered)).mappings()]

    async def announced(
        self, invoice_id: str, *, paid: bool, attempts: int, first_failure_time: datetime | None
    ) -> None:
        values: dict[str, Any] = {"paid_announced": paid, "attempts_announced": attempts}
        values["first_failure_time"] = func.coalesce(invoice.c.first_failure_time, first_failure_time)
        await self._connection.execute(update(invoice).where(invoice.c.id == invoice_id).values(values))

    async def first_unpaid_failure(self, account_id: str) -> datetime | None:
        """When the oldest invoice that failed and is still owed failed first."""
        statement = select(func.min(invoice.c.first_failure_time)).where(
            invoice.c.account_id == account_id, invoice.c.status == "open"
        )
        found: datetime | None = (await self._connection.execute(statement)).scalar_one()
        return found
