"""notify's tables in PostgreSQL, behind the two ports that use them. All times here are the database's."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    and_,
    case,
    func,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.kit.database import UnitOfWork, new_metadata
from services.kit.ids import new_id
from services.kit.inbox import inbox_table
from services.notify.domain import State, Verdict
from services.notify.ports import Claimed, Draft, Message

# How long a claimed message may wait for the mail server to take its envelope. When it lapses too early no harm is
# done: `mark_sending` then says whose it is.
CLAIM = timedelta(seconds=20)
# Longer than the mailer's own timeouts for the content: after it, whoever held it is dead or cut off.
SENDING = timedelta(seconds=90)

# The states that need work or an eye. Nearly all rows are in none of them, so this index stays small.
OPEN = "state IN ('pending', 'sending', 'unknown', 'dead')"

metadata = new_metadata()
inbox = inbox_table(metadata)
messages = Table(
    "messages",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject_id", Text, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempt_count", Integer, nullable=False, server_default="0"),
    Column("next_attempt_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("claim", Text),
    Column("claim_until", DateTime(timezone=True)),
    Column("error", Text, nullable=False, server_default=""),
    Column("withdrawn", Text, nullable=False, server_default=""),  # why it should not be tried again
    Column("message_id", Text, nullable=False, unique=True),
    Column("event_type", Text, nullable=False),
    Column("event_data", LargeBinary, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("send_time", DateTime(timezone=True)),
    UniqueConstraint("kind", "subject_id", name="uq_messages_kind_subject"),
    Index("ix_messages_due", "next_attempt_time", postgresql_where=literal_column("state = 'pending'")),
    Index("ix_messages_open", "state", postgresql_where=literal_column(OPEN)),
    Index("ix_messages_account", "account_id", "id"),
)
_c = messages.c


class NotifyUnitOfWork(UnitOfWork):
    drafts: PostgresDrafts

    def bind(self, connection: AsyncConnection) -> None:
        self.drafts = PostgresDrafts(connection)


class PostgresDrafts:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def lock(self, subject_id: str) -> None:
        await self._connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(subject_id, 0))))

    async def exists(self, kind: str, subject_id: str) -> bool:
        statement = select(_c.id).where(_c.kind == kind, _c.subject_id == subject_id)
        return (await self._connection.execute(statement)).first() is not None

    async def add(self, draft: Draft) -> bool:
        statement = (
            insert(messages)
            .values(
                id=new_id("msg"),
                account_id=draft.account_id,
                kind=draft.kind,
                subject_id=draft.subject_id,
                recipient=draft.opening.recipient,
                state=draft.opening.state.value,
                error=draft.opening.reason,
                message_id=draft.message_id,
                event_type=draft.event_type,
                event_data=draft.event_data,
            )
            .on_conflict_do_nothing(constraint="uq_messages_kind_subject")
        )
        return (await self._connection.execute(statement)).rowcount == 1

    async def withdraw(self, kind: str, subject_id: str, reason: str) -> None:
        statement = (
            update(messages)
            .where(_c.kind == kind, _c.subject_id == subject_id, _c.withdrawn == "")
            .values(
                withdrawn=reason,
                state=case((waits := _c.state == State.PENDING.value, State.SKIPPED.value), else_=_c.state),
                error=case((waits, reason), else_=_c.error),
            )
        )
        await self._connection.execute(statement)


def _unclaimed() -> Any:
    return or_(_c.claim_until.is_(None), _c.claim_until < func.now())


def _unless_withdrawn(state: State) -> Any:
    """Waiting again, unless there is nothing to wait for any more."""
    if state is not State.PENDING:
        return state.value
    return case((_c.withdrawn == "", State.PENDING.value), else_=State.SKIPPED.value)


class PostgresMailbag:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def claim(self, limit: int) -> Sequence[Claimed]:
        due = (
            select(_c.id)
            .where(_c.state == State.PENDING.value, _c.next_attempt_time <= func.now(), _unclaimed())
            .order_by(_c.next_attempt_time)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        statement = (
            update(messages)
            .where(_c.id.in_(due.scalar_subquery()))
            .values(claim=new_id("claim"), claim_until=func.now() + CLAIM)
            .returning(
                _c.id,
                _c.claim,
                _c.recipient,
                _c.message_id,
                _c.event_type,
                _c.event_data,
                _c.attempt_count + 1,
                func.now() - _c.create_time,
            )
        )
        async with self._engine.begin() as connection:
            return [Claimed(*row) for row in (await connection.execute(statement)).all()]

    async def mark_sending(self, message: Claimed) -> bool:
        return await self._update(message, State.PENDING, state=State.SENDING.value, claim_until=func.now() + SENDING)

    async def settle(self, message: Claimed, verdict: Verdict) -> None:
        # `unknown` too: we may have been cut off from the database so long that it was given up as unknown.
        await self._update(
            message,
            State.PENDING,
            State.SENDING,
            State.UNKNOWN,
            state=_unless_withdrawn(verdict.state),
            error=verdict.error[:500],
            attempt_count=message.tries,
            next_attempt_time=func.now() + (verdict.retry_after or timedelta(0)),
            send_time=func.now() if verdict.state is State.SENT else None,
            claim=None,
            claim_until=None,
        )

    async def release(self, message: Claimed) -> None:
        await self._update(
            message, State.PENDING, State.SENDING, state=_unless_withdrawn(State.PENDING), claim=None, claim_until=None
        )

    async def _update(self, message: Claimed, *states: State, **values: Any) -> bool:
        statement = (
            update(messages)
            .where(_c.id == message.id, _c.claim == message.claim, _c.state.in_([s.value for s in states]))
            .values(**values)
        )
        async with self._engine.begin() as connection:
            return (await connection.execute(statement)).rowcount == 1

    async def expire(self) -> int:
        statement = (
            update(messages)
            .where(_c.state == State.SENDING.value, _c.claim_until < func.now())
            .values(
                state=State.UNKNOWN.value,
                attempt_count=_c.attempt_count + 1,
                error="tollway stopped between handing it over and writing that down",
            )
        )
        async with self._engine.begin() as connection:
            return (await connection.execute(statement)).rowcount

    async def page(self, account_id: str, state: State | None, limit: int, before: str | None) -> Sequence[Message]:
        # What a dead process left in `sending` is unknown already, also in the second before `expire` says so.
        shown = case(
            (and_(_c.state == State.SENDING.value, _c.claim_until < func.now()), State.UNKNOWN.value), else_=_c.state
        )
        statement = select(
            _c.id,
            _c.account_id,
            _c.kind,
            _c.subject_id,
            _c.recipient,
            shown.label("state"),
            _c.attempt_count,
            _c.error,
            _c.message_id,
            _c.create_time,
            _c.send_time,
        )
        if account_id:
            statement = statement.where(_c.account_id == account_id)
        if state is State.PENDING:
            statement = statement.where(shown.in_([State.PENDING.value, State.SENDING.value]))
        elif state is not None:
            statement = statement.where(shown == state.value)
        if before is not None:
            statement = statement.where(_c.id < before)
        async with self._engine.connect() as connection:
            rows = (await connection.execute(statement.order_by(_c.id.desc()).limit(limit))).all()
        return [Message(*row[:5], State(row.state), *row[6:]) for row in rows]

    async def counts(self) -> dict[str, int]:
        """How many messages stand where they need an eye: pending, sending, unknown, dead."""
        statement = select(_c.state, func.count()).where(literal_column(OPEN)).group_by(_c.state)
        async with self._engine.connect() as connection:
            return {str(state): int(number) for state, number in (await connection.execute(statement)).all()}
