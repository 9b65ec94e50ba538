"""Believe others through the inbox: an event counts once, in the transaction that notes its id.

A durable pull consumer hands events to handlers, several at a time; order comes from versions, not from the stream.
What fails for a passing reason is redelivered after a growing delay, for as long as it takes. What fails for its own
reason goes to the dead letters after `MAX_DELIVER` tries, and the others flow on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from google.protobuf.message import DecodeError, Message
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError
from sqlalchemy import Column, DateTime, MetaData, Table, Text, func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.kit import telemetry
from services.kit.failpoint import failpoint
from services.kit.stream import NAME, Stream

MAX_DELIVER = 12
ACK_WAIT_S = 30
FETCH = 64
DELAYS_S = (0.1, 0.5, 2.0, 5.0, 15.0, 60.0)

log = structlog.get_logger(__name__)


def inbox_table(metadata: MetaData) -> Table:
    """The table as every consuming service's migrations create it."""
    return Table(
        "inbox",
        metadata,
        Column("id", Text, primary_key=True),
        Column("type", Text, nullable=False),
        Column("receive_time", DateTime(timezone=True), nullable=False, server_default=func.now(), index=True),
    )


_table = inbox_table(MetaData())


@dataclass(frozen=True)
class Received:
    """An event as it came: CloudEvents attributes and the decoded message."""

    id: str
    type: str
    account_id: str
    time: datetime
    message: Message


class Inbox:
    """The ids this service has acted on, seen from one transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def accept(self, event: Received) -> bool:
        """True the first time. Waits for another transaction that holds the same id, and believes its outcome."""
        statement = insert(_table).values(id=event.id, type=event.type).on_conflict_do_nothing()
        result = await self._connection.execute(statement)
        return result.rowcount == 1


Handler = Callable[[Received], Awaitable[None]]


class Consumer:
    """`handlers` maps message classes to async functions; `durable` names this service's place in the stream.

    `is_transient(error)` says which failures are nobody's fault.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        durable: str,
        handlers: Mapping[type[Message], Handler],
        is_transient: Callable[[BaseException], bool],
    ) -> None:
        self._stream = stream
        self._durable = durable
        self._handlers = {cls.DESCRIPTOR.full_name: (cls, handler) for cls, handler in handlers.items()}
        self._is_transient = is_transient

    def subjects(self) -> list[str]:
        return [
            f"tollway.{cls.DESCRIPTOR.full_name.split('.')[1]}.{cls.DESCRIPTOR.name}.*"
            for cls, _ in self._handlers.values()
        ]

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._consume(await self._stream.jetstream())
            except Exception as error:
                log.warning("consumer.delayed", durable=self._durable, error=repr(error))
                await asyncio.sleep(0.5)  # the server is away: pause between attempts to subscribe again

    async def _consume(self, jetstream: JetStreamContext) -> None:
        # add_consumer upserts; pull_subscribe alone would keep an older configuration without a word.
        await jetstream.add_consumer(
            NAME,
            ConsumerConfig(
                durable_name=self._durable,
                deliver_policy=DeliverPolicy.ALL,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=ACK_WAIT_S,
                max_deliver=-1,
                max_ack_pending=1024,
                filter_subjects=self.subjects(),
            ),
        )
        subscription = await jetstream.pull_subscribe_bind(self._durable, stream=NAME)
        try:
            while True:
                try:
                    messages = await subscription.fetch(FETCH, timeout=20)
                except TimeoutError:
                    # Quiet, or the consumer is gone with the server's storage: then this raises.
                    with contextlib.suppress(TimeoutError):
                        await jetstream.consumer_info(NAME, self._durable)
                    continue
                await asyncio.gather(*(self._handle(message) for message in messages))
        except NotFoundError:
            log.warning("consumer.recreated", durable=self._durable)
        finally:
            with contextlib.suppress(Exception):
                await subscription.unsubscribe()

    async def _handle(self, message: Msg) -> None:
        tries = message.metadata.num_delivered
        try:
            event = self._decode(message)
            handler = self._handlers[event.type][1]
            await handler(event)
            failpoint(f"inbox.{self._durable}.handled")
            await message.ack()
            telemetry.count("tollway_events_consumed_total", 1, type=event.type)
        except Exception as error:
            try:
                if not self._is_transient(error) and tries >= MAX_DELIVER:
                    await self._bury(message, error)
                else:
                    log.warning("event.retry", subject=message.subject, tries=tries, error=repr(error))
                    # A plain nak would come back at once, whatever backoff the consumer has.
                    await message.nak(delay=DELAYS_S[min(tries - 1, len(DELAYS_S) - 1)])
            except Exception as second:  # the server is away: the message comes back after ack_wait
                log.warning("event.unanswered", subject=message.subject, error=repr(second))

    def _decode(self, message: Msg) -> Received:
        headers = message.headers or {}
        kind = headers.get("ce-type", "")
        if kind not in self._handlers:
            raise DecodeError(f"an event of type {kind!r} on {message.subject}")
        decoded = self._handlers[kind][0]()
        decoded.ParseFromString(message.data)
        return Received(
            id=headers["ce-id"],
            type=kind,
            account_id=headers.get("ce-subject", message.subject.rsplit(".", 1)[-1]),
            time=datetime.fromisoformat(headers["ce-time"]).astimezone(UTC),
            message=decoded,
        )

    async def _bury(self, message: Msg, error: Exception) -> None:
        log.error("event.dead", subject=message.subject, error=repr(error))
        telemetry.count("tollway_events_dead_total", 1, durable=self._durable)
        headers = dict(message.headers or {})
        headers |= {"Tollway-Consumer": self._durable, "Tollway-Error": type(error).__name__}
        headers.pop("Nats-Msg-Id", None)
        subject = f"tollway_dead.{self._durable}.{message.subject.removeprefix('tollway.')}"
        await self._stream.publish(subject, message.data, headers)
        await message.term()
