"""Overrides: one per account; who looks for accounts, and why they are what they are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.storage.accounts import Account, to_account
from services.billing.storage.tables import account, billing_sync, entitlement, override, webhook_event


@dataclass(frozen=True)
class Override:
    account_id: str
    tier: str
    terms: str
    end_time: datetime | None  # UTC, exclusive
    actor_kind: str
    actor_id: str
    create_time: datetime

    def in_force(self, now: datetime) -> bool:
        return self.end_time is None or now < self.end_time


@dataclass(frozen=True)
class Found:
    account: Account
    tier: str
    status: str
    overridden_until: datetime | None
    has_override: bool


@dataclass(frozen=True)
class LastEvent:
    id: str
    type: str
    create_time: datetime


@dataclass(frozen=True)
class Reading:
    """Reads of Stripe that are due, and why the last one failed."""

    waiting: int
    error: str


class Overrides:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def of(self, account_id: str) -> Override | None:
        row = (await self._connection.execute(select(override).where(override.c.account_id == account_id))).first()
        return None if row is None else Override(*row)

    async def tier(self, account_id: str, now: datetime) -> str:
        """The tier of the override in force; empty without one."""
        found = await self.of(account_id)
        return found.tier if found is not None and found.in_force(now) else ""

    async def save(self, new: Override) -> None:
        statement = insert(override).values(**vars(new))
        await self._connection.execute(statement.on_conflict_do_update(index_elements=["account_id"], set_=vars(new)))

    async def remove(self, account_id: str) -> bool:
        return (
            await self._connection.execute(delete(override).where(override.c.account_id == account_id))
        ).rowcount == 1

    async def ended(self, now: datetime, limit: int) -> list[str]:
        """Accounts whose override is over; the rows are held, those that others hold are left out."""
        statement = select(override.c.account_id).where(override.c.end_time <= now).limit(limit)
        return list((await self._connection.execute(statement.with_for_update(skip_locked=True))).scalars())

    async def search(self, query: str, before: str | None, limit: int) -> list[Found]:
        """Newest first: ids are in the order of time."""
        statement = (
            select(
                *account.c,
                entitlement.c.tier,
                entitlement.c.status,
                override.c.end_time,
                override.c.account_id.is_not(None).label("overridden"),
            )
            .join_from(account, entitlement, entitlement.c.account_id == account.c.id)
            .outerjoin(override, override.c.account_id == account.c.id)
            .order_by(account.c.id.desc())
            .limit(limit)
        )
        if query:
            looked = (account.c.id, account.c.slug, account.c.name, account.c.email, account.c.stripe_customer_id)
            statement = statement.where(or_(*(func.coalesce(c, "").icontains(query, autoescape=True) for c in looked)))
        if before:
            statement = statement.where(account.c.id < before)
        rows = (await self._connection.execute(statement)).all()
        return [Found(to_account(row), row.tier, row.status, row[-2], row[-1]) for row in rows]

    async def last_event(self, account_id: str) -> LastEvent | None:
        statement = (
            select(webhook_event.c.id, webhook_event.c.type, webhook_event.c.create_time)
            .where(webhook_event.c.account_id == account_id)
            .order_by(webhook_event.c.receive_time.desc())
            .limit(1)
        )
        row = (await self._connection.execute(statement)).first()
        return None if row is None else LastEvent(*row)

    async def reading(self, account_id: str) -> Reading:
        statement = select(billing_sync.c.wanted - billing_sync.c.done, billing_sync.c.error)
        row = (await self._connection.execute(statement.where(billing_sync.c.account_id == account_id))).first()
        return Reading(0, "") if row is None else Reading(*row)
