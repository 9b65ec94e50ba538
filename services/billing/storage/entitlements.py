"""Entitlement state: one row per account."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.domain.entitlement import Entitlement
from services.billing.errors import AccountNotFound
from services.billing.storage.tables import account, entitlement

_FIELDS = [field.name for field in fields(Entitlement)]
_COLUMNS = [entitlement.c[name] for name in _FIELDS]


@dataclass(frozen=True)
class Listed:
    """An entitlement with what its snapshot needs beside it."""

    entitlement: Entitlement
    slug: str
    change_time: datetime


def _entitlement(row: Mapping[str, Any]) -> Entitlement:
    return Entitlement(**{name: row[name] for name in _FIELDS})


class Entitlements:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def get(self, account_id: str, *, lock: bool = False) -> Entitlement:
        """Raises AccountNotFound. `lock` holds the row until the transaction ends."""
        statement = select(*_COLUMNS).where(entitlement.c.account_id == account_id)
        result = await self._connection.execute(statement.with_for_update() if lock else statement)
        row = result.mappings().first()
        if row is None:
            raise AccountNotFound("There is no such account.")
        return _entitlement(dict(row))

    async def add(self, new: Entitlement) -> None:
        await self._connection.execute(insert(entitlement).values(**vars(new), change_time=func.clock_timestamp()))

    async def save(self, changed: Entitlement) -> None:
        statement = update(entitlement).where(entitlement.c.account_id == changed.account_id)
        await self._connection.execute(statement.values(**vars(changed), change_time=func.clock_timestamp()))

    async def of(self, account_ids: Collection[str]) -> list[Listed]:
        return await self._listed(entitlement.c.account_id.in_(account_ids), limit=len(account_ids))

    async def changed_after(self, after: tuple[datetime, str], limit: int) -> list[Listed]:
        """In the order of their latest change."""
        return await self._listed(tuple_(entitlement.c.change_time, entitlement.c.account_id) > after, limit=limit)

    async def page(self, after: str, limit: int) -> list[Listed]:
        """Of all accounts, in the order of their ids."""
        statement = (
            select(*_COLUMNS, account.c.slug, entitlement.c.change_time)
            .join_from(entitlement, account, entitlement.c.account_id == account.c.id)
            .where(entitlement.c.account_id > after)
            .order_by(entitlement.c.account_id)
            .limit(limit)
        )
        rows = (await self._connection.execute(statement)).mappings()
        return [Listed(_entitlement(dict(row)), row["slug"], row["change_time"]) for row in rows]

    async def tiers(self) -> set[str]:
        return set((await self._connection.execute(select(entitlement.c.tier).distinct())).scalars())

    async def of_other_catalog(self, fingerprints: Collection[str], limit: int) -> list[str]:
        """Accounts that another catalog resolved; the rows are held, rows that others hold are left out."""
        statement = (
            select(entitlement.c.account_id)
            .where(entitlement.c.catalog_hash.not_in(fingerprints))
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return list((await self._connection.execute(statement)).scalars())

    async def _listed(self, condition: Any, limit: int) -> list[Listed]:
        statement = (
            select(*_COLUMNS, account.c.slug, entitlement.c.change_time)
            .join_from(entitlement, account, entitlement.c.account_id == account.c.id)
            .where(condition)
            .order_by(entitlement.c.change_time, entitlement.c.account_id)
            .limit(limit)
        )
        rows = (await self._connection.execute(statement)).mappings()
        return [Listed(_entitlement(dict(row)), row["slug"], row["change_time"]) for row in rows]

    async def now(self) -> datetime:
        """The database's clock, which the order of changes is kept by."""
        value: datetime = (await self._connection.execute(select(func.clock_timestamp()))).scalar_one()
        return value
