"""Messages as the sender and operators see them. See `ports.Mailbag`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import timedelta
from typing import Any

from sqlalchemy import and_, case, func, literal_column, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.kit.ids import new_id
from services.notify.domain import State, Verdict
from services.notify.errors import AlreadySent, MessageErased, MessageNotFound, NothingToSend, RequestIdReused
from services.notify.ports import Claimed, Kept, Message, Resent
from services.notify.storage.drafts import overtaken
from services.notify.storage.tables import OPEN, messages, resends

# How long a claimed message may wait for the mail server to take its envelope. When it lapses too early no harm is
# done: `mark_sending` then says whose it is.
CLAIM = timedelta(seconds=20)
# Longer than the mailer's own timeouts for the content: after it, whoever held it is dead or cut off.
SENDING = timedelta(seconds=90)

_c = messages.c

# What a dead process left in `sending` is unknown already, also in the second before `expire` says so.
_STATE: Any = case(
    (and_(_c.state == State.SENDING.value, _c.claim_until < func.now()), State.UNKNOWN.value), else_=_c.state
)
_FIELDS = tuple(field.name for field in fields(Message))
_SHOWN = tuple(_STATE.label(name) if name == "state" else _c[name] for name in _FIELDS)


def _message(row: Any) -> Message:
    values = row._asdict()
    return Message(**{name: values[name] for name in _FIELDS} | {"state": State(row.state)})


async def _kept(message_id: str, connection: AsyncConnection) -> Kept:
    statement = select(*_SHOWN, _c.event_type, _c.event_data, _c.recipient_data).where(_c.id == message_id)
    row = (await connection.execute(statement)).first()
    if row is None:
        raise MessageNotFound("There is no such message.")
    return Kept(_message(row), row.event_type, row.event_data, row.recipient_data)


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
                _c.recipient_data,
                _c.attempt_count + 1,
                func.now() - _c.due_since,
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
            error=case((_c.erased, ""), else_=verdict.error[:500]),
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
        statement = select(*_SHOWN)
        if account_id:
            statement = statement.where(_c.account_id == account_id)
        if state is State.PENDING:
            statement = statement.where(_STATE.in_([State.PENDING.value, State.SENDING.value]))
        elif state is not None:
            statement = statement.where(state.value == _STATE)
        if before is not None:
            statement = statement.where(_c.id < before)
        async with self._engine.connect() as connection:
            rows = (await connection.execute(statement.order_by(_c.id.desc()).limit(limit))).all()
        return [_message(row) for row in rows]

    async def get(self, message_id: str) -> Kept:
        async with self._engine.connect() as connection:
            return await _kept(message_id, connection)

    async def overtaken(self, topic: str, rank: int) -> bool:
        async with self._engine.connect() as connection:
            return await overtaken(topic, rank, connection)

    async def resends(self, message_id: str) -> Sequence[Resent]:
        statement = (
            select(resends.c.actor, resends.c.previous_state, resends.c.create_time)
            .where(resends.c.message_id == message_id)
            .order_by(resends.c.create_time.desc())
        )
        async with self._engine.connect() as connection:
            rows = (await connection.execute(statement)).all()
        return [Resent(row.actor, State(row.previous_state), row.create_time) for row in rows]

    async def resend(self, message_id: str, request_id: str, actor: str, recipient: str, *, again: bool) -> Message:
        async with self._engine.begin() as connection:
            # One at a time for a message, so that a double click finds what the first one did.
            locked = select(_c.withdrawn).where(_c.id == message_id).with_for_update()
            withdrawn = (await connection.execute(locked)).scalar_one_or_none()
            message = (await _kept(message_id, connection)).message
            asked = select(resends.c.message_id).where(resends.c.request_id == request_id)
            earlier = (await connection.execute(asked)).scalar_one_or_none()
            if earlier is not None and earlier != message_id:
                raise RequestIdReused("This request id was used for another message.", field="request_id")
            if earlier is not None or message.state in {State.PENDING, State.SENDING}:
                return message
            if message.erased:
                raise MessageErased("Its account was erased: neither address nor contents are kept.")
            if withdrawn:
                raise NothingToSend(f"There is nothing to send: {withdrawn}.")
            if message.state is State.SENT and not again:
                raise AlreadySent("The mail server has accepted it. Say so if it is to be sent once more.")
            noted = {"request_id": request_id, "message_id": message_id, "actor": actor}
            await connection.execute(insert(resends).values(**noted, previous_state=message.state.value))
            waiting = {
                "state": State.PENDING.value,
                "recipient": recipient,
                "error": "",
                "next_attempt_time": func.now(),
                "due_since": func.now(),
                "send_time": None,
                "claim": None,
                "claim_until": None,
            }
            await connection.execute(update(messages).where(_c.id == message_id).values(**waiting))
            return (await _kept(message_id, connection)).message

    async def counts(self) -> dict[str, int]:
        """How many messages stand where they need an eye: pending, sending, unknown, dead."""
        statement = select(_c.state, func.count()).where(literal_column(OPEN)).group_by(_c.state)
        async with self._engine.connect() as connection:
            return {str(state): int(number) for state, number in (await connection.execute(statement)).all()}
