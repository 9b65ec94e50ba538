"""API keys: rows that are never deleted, and end at `revoke_time`."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.domain.principal import Role
from services.billing.errors import KeyNotFound
from services.billing.storage.accounts import Account, to_account
from services.billing.storage.tables import account, api_key, entitlement, membership

_ID = re.compile(r"key_[0-9a-f]{32}")


@dataclass(frozen=True)
class ApiKey:
    id: str
    account_id: str
    kind: str
    name: str
    hash: bytes
    shown: str
    create_time: datetime
    revoke_time: datetime | None = None  # from then on it is refused; after a rotation this lies ahead
    successor_id: str | None = None
    user_id: str | None = None  # for whom it was issued, when that was a user

    def ended(self, now: datetime) -> bool:
        return self.revoke_time is not None and self.revoke_time <= now


@dataclass(frozen=True)
class KeyOwner:
    """A key with its account, the tier of this moment, and the role of the user for whom it was issued."""

    account: Account
    key_id: str
    key_kind: str
    revoke_time: datetime | None
    tier: str
    version: int
    role: Role | None


class ApiKeys:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, key: ApiKey) -> None:
        await self._connection.execute(insert(api_key).values(vars(key)))

    async def get(self, account_id: str, key_id: str) -> ApiKey:
        """Raises KeyNotFound, for another account's key too."""
        statement = select(api_key).where(api_key.c.id == key_id, api_key.c.account_id == account_id)
        # What is no id may be no text that PostgreSQL takes either.
        row = (await self._connection.execute(statement)).first() if _ID.fullmatch(key_id) else None
        if row is None:
            raise KeyNotFound("There is no such key.", field="key_id")
        return _key(row)

    async def list(self, account_id: str, before: str, limit: int) -> list[ApiKey]:
        """Newest first; `before` is the id of the last one seen, or empty."""
        statement = select(api_key).where(api_key.c.account_id == account_id)
        if before:
            statement = statement.where(api_key.c.id < before)
        rows = await self._connection.execute(statement.order_by(api_key.c.id.desc()).limit(limit))
        return [_key(row) for row in rows]

    async def held(self, account_id: str, kinds: Collection[str]) -> int:
        """How many have no end set. Lock the account first, or two at once count the same."""
        statement = select(func.count()).where(
            api_key.c.account_id == account_id, api_key.c.kind.in_(kinds), api_key.c.revoke_time.is_(None)
        )
        return int((await self._connection.execute(statement)).scalar_one())

    async def predecessor(self, key_id: str) -> ApiKey | None:
        """The key whose rotation issued this one."""
        row = (await self._connection.execute(select(api_key).where(api_key.c.successor_id == key_id))).first()
        return _key(row) if row is not None else None

    async def end(self, key_id: str, revoke_time: datetime, successor_id: str | None = None) -> None:
        values: dict[str, Any] = {"revoke_time": revoke_time}
        if successor_id is not None:
            values["successor_id"] = successor_id
        await self._connection.execute(update(api_key).where(api_key.c.id == key_id).values(values))

    async def owner(self, key_hash: bytes) -> KeyOwner | None:
        """One read: the key, its account, the tier as it is now, and its user's role."""
        return await self._owner(api_key.c.hash == key_hash)

    async def owner_of_id(self, key_id: str) -> KeyOwner | None:
        return await self._owner(api_key.c.id == key_id)

    async def _owner(self, which: ColumnElement[bool]) -> KeyOwner | None:
        columns = (api_key.c.id, api_key.c.kind, api_key.c.revoke_time, entitlement.c.tier, entitlement.c.version)
        statement = (
            select(account, *columns, membership.c.role)
            .join_from(api_key, account, api_key.c.account_id == account.c.id)
            .join(entitlement, entitlement.c.account_id == account.c.id)
            .outerjoin(
                membership,
                (membership.c.account_id == api_key.c.account_id) & (membership.c.user_id == api_key.c.user_id),
            )
            .where(which)
        )
        row = (await self._connection.execute(statement)).first()
        if row is None:
            return None
        key_id, kind, revoke_time, tier, version, role = row[len(account.c) :]
        return KeyOwner(
            to_account(row), key_id, kind, revoke_time, tier, version, Role(role) if role is not None else None
        )


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(*row[: len(api_key.c)])
