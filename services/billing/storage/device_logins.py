"""Logins of programs, by the hashes of their codes; and the wrong codes that people typed."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.domain.device_login import DeviceLogin
from services.billing.storage.tables import device_code_miss, device_login

_COLUMNS = [device_login.c[field.name] for field in fields(DeviceLogin)]


class DeviceLogins:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, login: DeviceLogin, device_hash: bytes, user_hash: bytes) -> bool:
        """False when another login has one of the codes."""
        values = vars(login) | {"device_hash": device_hash, "user_hash": user_hash}
        return (
            await self._connection.execute(upsert(device_login).values(values).on_conflict_do_nothing())
        ).rowcount == 1

    async def by_device(self, device_hash: bytes) -> DeviceLogin | None:
        """Held until the transaction ends: of two polls at once one comes first."""
        return await self._one(device_login.c.device_hash == device_hash)

    async def by_user_code(self, user_hash: bytes) -> DeviceLogin | None:
        """Held until the transaction ends."""
        return await self._one(device_login.c.user_hash == user_hash)

    async def _one(self, condition: Any) -> DeviceLogin | None:
        found = await self._connection.execute(select(*_COLUMNS).where(condition).with_for_update())
        row = found.first()
        return DeviceLogin(*row) if row is not None else None

    async def save(self, login: DeviceLogin) -> None:
        await self._connection.execute(update(device_login).where(device_login.c.id == login.id).values(vars(login)))

    async def begun(self, remote_address: str, since: datetime) -> int:
        """How many there were from the address, which is held until the transaction ends."""
        await self._hold(f"device {remote_address}")
        statement = select(func.count()).where(
            device_login.c.remote_address == remote_address, device_login.c.create_time > since
        )
        return int((await self._connection.execute(statement)).scalar_one())

    async def misses(self, user_id: str, since: datetime) -> int:
        """How many wrong codes the person typed. The person is held until the transaction ends, so that guesses made
        at once are counted one by one."""
        await self._hold(f"device codes {user_id}")
        statement = select(func.count()).where(
            device_code_miss.c.user_id == user_id, device_code_miss.c.create_time > since
        )
        return int((await self._connection.execute(statement)).scalar_one())

    async def miss(self, user_id: str, now: datetime) -> None:
        await self._connection.execute(insert(device_code_miss).values(user_id=user_id, create_time=now))

    async def forget(self, now: datetime, keep: timedelta) -> None:
        await self._connection.execute(delete(device_login).where(device_login.c.expire_time < now - keep))
        await self._connection.execute(delete(device_code_miss).where(device_code_miss.c.create_time < now - keep))

    async def _hold(self, name: str) -> None:
        await self._connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 4))"), {"name": name})
