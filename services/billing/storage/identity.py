"""Users, memberships, sessions, and identities that an outside issuer vouches for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import case, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.domain.principal import Role
from services.billing.storage.accounts import Account, to_account
from services.billing.storage.tables import account, app_user, login_session, membership, outside_identity


@dataclass(frozen=True)
class User:
    id: str
    email: str  # lower case
    verify_time: datetime | None
    create_time: datetime


@dataclass(frozen=True)
class Member:
    user: User
    role: Role
    create_time: datetime


@dataclass(frozen=True)
class Session:
    id: str
    user: User
    create_time: datetime
    expire_time: datetime
    end_time: datetime | None

    def valid(self, now: datetime) -> bool:
        return self.end_time is None and now < self.expire_time


class Users:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def ensure(self, new: User) -> User:
        """The user of this address: the one that is there, else the new one."""
        await self._connection.execute(upsert(app_user).values(vars(new)).on_conflict_do_nothing())
        found = await self.by_email(new.email)
        assert found is not None  # noqa: S101 - it was inserted, or it was there
        return found

    async def get(self, user_id: str) -> User:
        """One who is known to be there."""
        return User(*(await self._connection.execute(select(app_user).where(app_user.c.id == user_id))).one())

    async def by_email(self, email: str) -> User | None:
        row = (await self._connection.execute(select(app_user).where(app_user.c.email == email))).first()
        return User(*row) if row is not None else None

    async def verify(self, user_id: str, now: datetime) -> None:
        """Keeps the first time."""
        statement = update(app_user).where(app_user.c.id == user_id, app_user.c.verify_time.is_(None))
        await self._connection.execute(statement.values(verify_time=now))


class Memberships:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, account_id: str, user_id: str, role: Role, now: datetime) -> None:
        values = {"account_id": account_id, "user_id": user_id, "role": role.value, "create_time": now}
        await self._connection.execute(insert(membership).values(values))

    async def role(self, account_id: str, user_id: str) -> Role | None:
        statement = select(membership.c.role).where(
            membership.c.account_id == account_id, membership.c.user_id == user_id
        )
        found = (await self._connection.execute(statement)).scalar_one_or_none()
        return Role(found) if found is not None else None

    async def of_account(self, account_id: str, limit: int) -> list[Member]:
        """Owners first, then admins, then by email."""
        rank = case((membership.c.role == Role.OWNER, 0), (membership.c.role == Role.ADMIN, 1), else_=2)
        statement = (
            select(app_user, membership.c.role, membership.c.create_time.label("joined"))
            .join_from(membership, app_user, membership.c.user_id == app_user.c.id)
            .where(membership.c.account_id == account_id)
            .order_by(rank, app_user.c.email)
            .limit(limit)
        )
        rows = await self._connection.execute(statement)
        return [Member(User(*row[:-2]), Role(row[-2]), row[-1]) for row in rows]

    async def of_user(self, user_id: str, limit: int) -> list[tuple[Account, Role]]:
        """By slug."""
        statement = (
            select(account, membership.c.role)
            .join_from(membership, account, membership.c.account_id == account.c.id)
            .where(membership.c.user_id == user_id)
            .order_by(account.c.slug)
            .limit(limit)
        )
        return [(to_account(row), Role(row[-1])) for row in await self._connection.execute(statement)]


class Sessions:
    """By the hash of their token: what lies here opens nothing."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, session: Session, token_hash: bytes) -> None:
        values = {
            "id": session.id,
            "hash": token_hash,
            "user_id": session.user.id,
            "create_time": session.create_time,
            "expire_time": session.expire_time,
        }
        await self._connection.execute(insert(login_session).values(values))

    async def find(self, token_hash: bytes) -> Session | None:
        statement = (
            select(
                app_user,
                login_session.c.id.label("session_id"),
                login_session.c.create_time.label("begin_time"),
                login_session.c.expire_time,
                login_session.c.end_time,
            )
            .join_from(login_session, app_user, login_session.c.user_id == app_user.c.id)
            .where(login_session.c.hash == token_hash)
        )
        row = (await self._connection.execute(statement)).first()
        if row is None:
            return None
        session_id, create_time, expire_time, end_time = row[-4:]
        return Session(session_id, User(*row[:-4]), create_time, expire_time, end_time)

    async def end(self, token_hash: bytes, now: datetime) -> None:
        statement = update(login_session).where(login_session.c.hash == token_hash, login_session.c.end_time.is_(None))
        await self._connection.execute(statement.values(end_time=now))

    async def forget(self, before: datetime) -> None:
        """Those that expired before then."""
        await self._connection.execute(delete(login_session).where(login_session.c.expire_time < before))


class OutsideIdentities:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def account(self, issuer: str, external_id: str) -> Account | None:
        statement = (
            select(account)
            .join_from(outside_identity, account, outside_identity.c.account_id == account.c.id)
            .where(outside_identity.c.issuer == issuer, outside_identity.c.external_id == external_id)
        )
        row = (await self._connection.execute(statement)).first()
        return to_account(row) if row is not None else None

    async def lock(self, issuer: str, external_id: str) -> None:
        """One maker at a time, until the transaction ends."""
        name = f"{issuer}\x1f{external_id}"
        await self._connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(name, 3))))

    async def add(self, issuer: str, external_id: str, account_id: str, now: datetime) -> None:
        values = {"issuer": issuer, "external_id": external_id, "account_id": account_id, "create_time": now}
        await self._connection.execute(insert(outside_identity).values(values))
