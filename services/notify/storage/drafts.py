"""Messages within the transaction that believes an event. See `ports.Drafts`."""

from __future__ import annotations

from sqlalchemy import case, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.kit.ids import new_id
from services.notify.domain import State
from services.notify.ports import Draft
from services.notify.storage.tables import erased_accounts, messages

_c = messages.c
_ACCOUNTS = 1  # seeds the locks of accounts, so that they are none of a topic's
_ERASED = "the account was erased"


async def overtaken(topic: str, rank: int, connection: AsyncConnection) -> bool:
    statement = select(_c.id).where(_c.topic == topic, _c.rank > rank).limit(1)
    return (await connection.execute(statement)).first() is not None


class PostgresDrafts:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def lock(self, account_id: str, topic: str) -> bool:
        # The account's is shared among its events and held alone by its erasure.
        locks = select(
            func.pg_advisory_xact_lock_shared(func.hashtextextended(account_id, _ACCOUNTS)),
            func.pg_advisory_xact_lock(func.hashtextextended(topic, 0)),
        )
        await self._connection.execute(locks)
        # A statement of its own: the one that waits for a lock reads as of before it had it.
        erased = select(erased_accounts.c.account_id).where(erased_accounts.c.account_id == account_id)
        return (await self._connection.execute(erased)).first() is None

    async def overtaken(self, topic: str, rank: int) -> bool:
        return await overtaken(topic, rank, self._connection)

    async def add(self, draft: Draft) -> bool:
        statement = (
            insert(messages)
            .values(
                id=new_id("msg"),
                account_id=draft.account_id,
                kind=draft.kind,
                subject_id=draft.subject_id,
                topic=draft.topic,
                rank=draft.rank,
                recipient=draft.opening.recipient,
                state=draft.opening.state.value,
                error=draft.opening.reason,
                message_id=draft.message_id,
                event_type=draft.event_type,
                event_data=draft.event_data,
                recipient_data=draft.recipient_data,
            )
            .on_conflict_do_nothing(constraint="uq_messages_kind_subject")
        )
        return (await self._connection.execute(statement)).rowcount == 1

    async def withdraw(self, topic: str, rank: int, reason: str) -> None:
        statement = (
            update(messages)
            .where(_c.topic == topic, _c.rank < rank, _c.withdrawn == "")
            .values(
                withdrawn=reason,
                state=case((waits := _c.state == State.PENDING.value, State.SKIPPED.value), else_=_c.state),
                error=case((waits, reason), else_=_c.error),
            )
        )
        await self._connection.execute(statement)

    async def erase(self, account_id: str) -> int:
        lock = select(func.pg_advisory_xact_lock(func.hashtextextended(account_id, _ACCOUNTS)))
        await self._connection.execute(lock)
        await self._connection.execute(insert(erased_accounts).values(account_id=account_id).on_conflict_do_nothing())
        waits = _c.state == State.PENDING.value
        statement = (
            update(messages)
            .where(_c.account_id == account_id, ~_c.erased)
            .values(
                erased=True,
                recipient="",
                event_data=b"",
                recipient_data=b"",
                error=case((waits, _ERASED), else_=""),  # a mail server's answer may name the address
                state=case((waits, State.SKIPPED.value), else_=_c.state),
                withdrawn=_ERASED,
            )
        )
        return (await self._connection.execute(statement)).rowcount
