"""Takes a person out of every table. Rows that the law wants kept, or that others point at, stay with their ids."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Text, cast, delete, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.domain.principal import ActorKind
from services.billing.storage.accounts import Account
from services.billing.storage.tables import (
    account,
    api_key,
    app_user,
    audit_log,
    device_code_miss,
    device_login,
    invoice,
    key_session,
    login_session,
    membership,
    outside_identity,
    override,
    sign_in_attempt,
    sign_in_link,
    sign_up,
    webhook_event,
)


class Erasure:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def erase(self, erased: Account, addresses: set[str]) -> None:
        """Everything personal of the account. `erased` is the account as it is afterwards; `addresses`: those it had,
        in lower case. People who are in other accounts too stay there."""
        await self._people(erased.id, addresses)
        await self._keys(erased.id)
        mine: list[Any] = [
            delete(outside_identity).where(outside_identity.c.account_id == erased.id),
            delete(device_login).where(device_login.c.account_id == erased.id),
            delete(override).where(override.c.account_id == erased.id),
            update(invoice).where(invoice.c.account_id == erased.id).values(customer_email=""),
            update(audit_log).where(audit_log.c.account_id == erased.id).values(details={}),
            update(audit_log)
            .where(audit_log.c.account_id == erased.id, audit_log.c.actor_kind == ActorKind.OUTSIDE)
            .values(actor_id=""),
            update(webhook_event).where(webhook_event.c.account_id == erased.id).values(payload=_emptied()),
            delete(sign_up).where(func.lower(sign_up.c.email).in_(addresses)),
            delete(sign_in_attempt).where(sign_in_attempt.c.email.in_(addresses)),
            update(account).where(account.c.id == erased.id).values(vars(erased)),
        ]
        for statement in mine:
            await self._connection.execute(statement)

    async def _people(self, account_id: str, addresses: set[str]) -> None:
        here = select(membership.c.user_id).where(membership.c.account_id == account_id)
        elsewhere = select(membership.c.user_id).where(membership.c.account_id != account_id)
        only_here = select(app_user.c.id, app_user.c.email).where(
            app_user.c.id.in_(here), app_user.c.id.not_in(elsewhere)
        )
        found = (await self._connection.execute(only_here)).all()
        gone = [row[0] for row in found]
        addresses |= {row[1] for row in found}
        await self._connection.execute(delete(membership).where(membership.c.account_id == account_id))
        if not gone:
            return
        for table in (login_session, sign_in_link, device_login, device_code_miss):
            await self._connection.execute(delete(table).where(table.c.user_id.in_(gone)))
        # Ids of theirs stay in what they did.
        nameless = update(app_user).where(app_user.c.id.in_(gone))
        values = {"email": func.concat("erased:", app_user.c.id), "verify_time": None}
        await self._connection.execute(nameless.values(values))

    async def _keys(self, account_id: str) -> None:
        keys = select(api_key.c.id).where(api_key.c.account_id == account_id)
        await self._connection.execute(delete(key_session).where(key_session.c.key_id.in_(keys)))
        nameless = update(api_key).where(api_key.c.account_id == account_id)
        await self._connection.execute(nameless.values(name=""))


def _emptied() -> Any:
    """What is left of an event's payload: its id and type."""
    kept = func.json_build_object("id", webhook_event.c.id, "type", webhook_event.c.type, "erased", text("true"))
    return func.convert_to(cast(kept, Text), "UTF8")
