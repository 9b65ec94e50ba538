"""Sign-in links, the count of tries to sign in, and sessions that are an API key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.storage.identity import User
from services.billing.storage.tables import app_user, key_session, sign_in_attempt, sign_in_link


@dataclass(frozen=True)
class Link:
    id: str
    user: User
    browser_hash: bytes
    create_time: datetime
    expire_time: datetime
    use_time: datetime | None


@dataclass(frozen=True)
class KeySession:
    id: str
    key_id: str
    create_time: datetime
    expire_time: datetime
    end_time: datetime | None

    def valid(self, now: datetime) -> bool:
        return self.end_time is None and now < self.expire_time


class SignInLinks:
    """By the hash of their token: what lies here opens nothing."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, link: Link, token_hash: bytes) -> None:
        values = {name: value for name, value in vars(link).items() if name != "user"}
        values |= {"user_id": link.user.id, "hash": token_hash}
        await self._connection.execute(insert(sign_in_link).values(values))

    async def find(self, token_hash: bytes) -> Link | None:
        statement = (
            select(
                app_user,
                sign_in_link.c.id.label("link_id"),
                sign_in_link.c.browser_hash,
                sign_in_link.c.create_time.label("begin_time"),
                sign_in_link.c.expire_time,
                sign_in_link.c.use_time,
            )
            .join_from(sign_in_link, app_user, sign_in_link.c.user_id == app_user.c.id)
            .where(sign_in_link.c.hash == token_hash)
        )
        row = (await self._connection.execute(statement)).first()
        if row is None:
            return None
        link_id, browser_hash, create_time, expire_time, use_time = row[-5:]
        return Link(link_id, User(*row[:-5]), browser_hash, create_time, expire_time, use_time)

    async def use(self, link_id: str, now: datetime) -> bool:
        """False when it was used already: of two at once one is told so."""
        unused = update(sign_in_link).where(sign_in_link.c.id == link_id, sign_in_link.c.use_time.is_(None))
        return (await self._connection.execute(unused.values(use_time=now))).rowcount == 1

    async def forget(self, before: datetime) -> None:
        """Those that expired before then."""
        await self._connection.execute(delete(sign_in_link).where(sign_in_link.c.expire_time < before))


class SignInAttempts:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def note(self, email: str, remote_address: str, now: datetime) -> None:
        values = {"email": email, "remote_address": remote_address, "create_time": now}
        await self._connection.execute(insert(sign_in_attempt).values(values))

    async def since(self, email: str, remote_address: str, begin: datetime) -> tuple[int, int]:
        """How many there were for the email and from the address. Holds both until the transaction ends, so that two
        at once cannot both be the last one allowed."""
        names = [f"{kind} {value}" for kind, value in (("email", email), ("address", remote_address)) if value]
        for name in sorted(names):
            await self._connection.execute(
                text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 4))"), {"name": name}
            )
        attempt = sign_in_attempt.c
        counted = select(
            func.count().filter(attempt.email == email), func.count().filter(attempt.remote_address == remote_address)
        ).where(attempt.create_time > begin, (attempt.email == email) | (attempt.remote_address == remote_address))
        row = (await self._connection.execute(counted)).one()
        return int(row[0]), int(row[1])

    async def forget(self, before: datetime) -> None:
        await self._connection.execute(delete(sign_in_attempt).where(sign_in_attempt.c.create_time < before))


class KeySessions:
    """By the hash of their token, as sessions of people."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, session: KeySession, token_hash: bytes) -> None:
        await self._connection.execute(insert(key_session).values({**vars(session), "hash": token_hash}))

    async def find(self, token_hash: bytes) -> KeySession | None:
        columns = (key_session.c[name] for name in ("id", "key_id", "create_time", "expire_time", "end_time"))
        row = (await self._connection.execute(select(*columns).where(key_session.c.hash == token_hash))).first()
        return KeySession(*row) if row is not None else None

    async def end(self, token_hash: bytes, now: datetime) -> None:
        statement = update(key_session).where(key_session.c.hash == token_hash, key_session.c.end_time.is_(None))
        await self._connection.execute(statement.values(end_time=now))

    async def forget(self, before: datetime) -> None:
        """Those that expired before then."""
        await self._connection.execute(delete(key_session).where(key_session.c.expire_time < before))
