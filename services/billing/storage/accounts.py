"""Accounts, and the count of sign-ups."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.errors import AccountNotFound
from services.billing.storage.tables import account, app_user, membership, sign_up


@dataclass(frozen=True)
class Account:
    id: str
    slug: str
    name: str
    email: str
    stripe_customer_id: str | None
    create_time: datetime
    import_time: datetime | None = None  # from Stripe; what happened there before is nobody's news
    contact_verify_time: datetime | None = None  # since then `email` is known to be theirs
    erase_time: datetime | None = None  # since then there is no personal data of it here

    @property
    def contact_email(self) -> str:
        """Where the account wants its mail; empty until the address is known to be theirs (CONTRACT "Mail")."""
        return self.email if self.contact_verify_time is not None else ""


_SLUG = re.compile(r"[a-z0-9-]{1,100}")


def to_account(row: Row[*tuple[Any, ...]]) -> Account:
    return Account(*row[: len(account.c)])


class Accounts:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, new: Account) -> bool:
        """False when the slug is taken."""
        statement = upsert(account).values(vars(new)).on_conflict_do_nothing(index_elements=["slug"])
        return (await self._connection.execute(statement)).rowcount == 1

    async def get(self, account_id: str, *, lock: bool = False) -> Account:
        """Raises AccountNotFound. `lock` holds the row until the transaction ends."""
        statement = select(account).where(account.c.id == account_id)
        row = (await self._connection.execute(statement.with_for_update() if lock else statement)).first()
        if row is None:
            raise AccountNotFound("There is no such account.")
        return to_account(row)

    async def by_slug(self, slug: str) -> Account:
        """Raises AccountNotFound, in the words of an account that is somebody else's."""
        # What is no slug may be no text that PostgreSQL takes either.
        found = select(account).where(account.c.slug == slug)
        row = (await self._connection.execute(found)).first() if _SLUG.fullmatch(slug) else None
        if row is None:
            raise AccountNotFound("There is no such account.")
        return to_account(row)

    async def of_customer(self, customer_id: str) -> Account | None:
        statement = select(account).where(account.c.stripe_customer_id == customer_id)
        row = (await self._connection.execute(statement)).first()
        return to_account(row) if row is not None else None

    async def of_customers(self, customer_ids: Collection[str]) -> dict[str, Account]:
        """By the customer's id; customers that are nobody's here are left out."""
        found = select(account).where(account.c.stripe_customer_id.in_(customer_ids))
        rows = [to_account(row) for row in (await self._connection.execute(found)).all()]
        return {each.stripe_customer_id: each for each in rows if each.stripe_customer_id is not None}

    async def find(self, account_id: str) -> Account | None:
        row = (await self._connection.execute(select(account).where(account.c.id == account_id))).first()
        return to_account(row) if row is not None else None

    async def of_email(self, email: str) -> Account | None:
        """The oldest account with this address, however it is written; or the oldest of the user who has it."""
        found = select(account).where(func.lower(account.c.email) == email.lower())
        row = (await self._connection.execute(found.order_by(account.c.id).limit(1))).first()
        if row is None:
            members = (
                select(account)
                .join(membership, membership.c.account_id == account.c.id)
                .join(app_user, app_user.c.id == membership.c.user_id)
            )
            theirs = members.where(app_user.c.email == email.lower()).order_by(account.c.id).limit(1)
            row = (await self._connection.execute(theirs)).first()
        return to_account(row) if row is not None else None

    async def lock_imports(self) -> None:
        """One import at a time, until the transaction ends."""
        await self._connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended("imports", 5))))

    async def bind(self, account_id: str, customer_id: str, import_time: datetime | None) -> None:
        """Gives an account without a customer this one, for ever."""
        statement = update(account).where(account.c.id == account_id, account.c.stripe_customer_id.is_(None))
        values = {"stripe_customer_id": customer_id, "import_time": import_time}
        await self._connection.execute(statement.values(values))

    async def set_contact(self, changed: Account) -> None:
        values = {"email": changed.email, "contact_verify_time": changed.contact_verify_time}
        await self._connection.execute(update(account).where(account.c.id == changed.id).values(values))

    async def verify_contact(self, user_id: str, email: str, now: datetime) -> None:
        """The user's own accounts whose contact is this address know now that it is theirs. Keeps the first time."""
        mine = select(membership.c.account_id).where(membership.c.user_id == user_id)
        statement = update(account).where(
            account.c.id.in_(mine), func.lower(account.c.email) == email, account.c.contact_verify_time.is_(None)
        )
        await self._connection.execute(statement.values(contact_verify_time=now))

    async def with_customer(self, after: str, limit: int) -> list[Account]:
        """Those that Stripe knows (erased ones are gone there), in the order of their ids."""
        statement = select(account).where(
            account.c.stripe_customer_id.is_not(None), account.c.erase_time.is_(None), account.c.id > after
        )
        rows = (await self._connection.execute(statement.order_by(account.c.id).limit(limit))).all()
        return [to_account(row) for row in rows]

    async def set_customer(self, account_id: str, customer_id: str) -> str:
        """Keeps the first customer id it is told, for ever; returns the one that is kept."""
        statement = (
            update(account)
            .where(account.c.id == account_id)
            .values(stripe_customer_id=func.coalesce(account.c.stripe_customer_id, customer_id))
            .returning(account.c.stripe_customer_id)
        )
        kept = (await self._connection.execute(statement)).scalar_one_or_none()
        if kept is None:
            raise AccountNotFound("There is no such account.")
        return str(kept)


class SignUps:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def note(self, email: str, remote_address: str, now: datetime) -> None:
        values = {"email": email, "remote_address": remote_address, "create_time": now}
        await self._connection.execute(insert(sign_up).values(values))

    async def since(self, email: str, remote_address: str, begin: datetime) -> tuple[int, int]:
        """How many there were for the email and from the address. Holds both until the transaction ends, so that
        two at once cannot both be the last one allowed."""
        for name in sorted({f"email {email}", f"address {remote_address}"}):
            await self._connection.execute(
                text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 1))"), {"name": name}
            )
        counted = select(
            func.count().filter(sign_up.c.email == email),
            func.count().filter(sign_up.c.remote_address == remote_address),
        ).where(
            sign_up.c.create_time > begin, (sign_up.c.email == email) | (sign_up.c.remote_address == remote_address)
        )
        row = (await self._connection.execute(counted)).one()
        return int(row[0]), int(row[1])

    async def forget(self, now: datetime, keep: timedelta) -> None:
        await self._connection.execute(sign_up.delete().where(sign_up.c.create_time < now - keep))
