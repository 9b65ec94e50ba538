"""Believe others through the inbox: an event counts once, in the transaction that notes its id.

A durable pull consumer hands events to handlers, several at a time; order comes from versions, not from the stream.
What fails for a passing reason is redelivered after a growing delay, for as long as it takes. What fails for its own
reason goes to the dead letters after `MAX_TRIES` tries, and the others flow on.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from google.protobuf.message import DecodeError, Message
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from sqlalchemy import Column, DateTime, MetaData, Table, Text, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.kit import telemetry
from services.kit.failpoint import failpoint
from services.kit.stream import NAME, Stream

MAX_TRIES = 12  # with the delays below: about six minutes of trying
DELAYS_S = (0.1, 0.5, 2.0, 5.0, 15.0, 60.0)  # before the second try, the third, …; the last one repeats
LONGEST_TRANSIENT_DELAY_S = 15.0  # an outage ends for everybody at once: do not make them wait long after it
WORKERS = 16
HANDLING_S = 60.0  # a handler that takes longer is cancelled and tried again
ACK_WAIT_S = 5.0  # what a killed consumer held comes back after it; living ones report progress
PULL_S = 2.0  # a pull request dies with the server: this is how soon one is made anew
MAX_DELAYED = 10_000  # events waiting for another try, beyond which JetStream hands out no others
RETENTION = timedelta(days=40)  # longer than the stream keeps an event: none comes back after its id is forgotten

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

    _next_prune = 0.0  # by time.monotonic(), for the whole process

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def accept(self, event: Received) -> bool:
        """True the first time. Waits for another transaction that holds the same id, and believes its outcome."""
        if time.monotonic() >= Inbox._next_prune:
            Inbox._next_prune = time.monotonic() + 3600
            await self._forget_old()
        statement = insert(_table).values(id=event.id, type=event.type).on_conflict_do_nothing()
        result = await self._connection.execute(statement)
        return result.rowcount == 1

    async def _forget_old(self) -> None:
        old = (
            select(_table.c.id)
            .where(_table.c.receive_time < func.now() - RETENTION)
            .limit(10_000)
            .with_for_update(skip_locked=True)
            .cte("old")
        )
        await self._connection.execute(delete(_table).where(_table.c.id == old.c.id))


Handler = Callable[[Received], Awaitable[None]]


class Consumer:
    """`handlers` maps message classes to async functions; `durable` names this service's place in the stream.

    `is_transient(error)` says which failures are nobody's fault. Each of `workers` takes one event at a time, so a
    slow event holds up one worker and nothing else.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        durable: str,
        handlers: Mapping[type[Message], Handler],
        is_transient: Callable[[BaseException], bool],
        workers: int = WORKERS,
        max_tries: int = MAX_TRIES,
        delays_s: Sequence[float] = DELAYS_S,
    ) -> None:
        self._stream = stream
        self._durable = durable
        self._handlers = {cls.DESCRIPTOR.full_name: (cls, handler) for cls, handler in handlers.items()}
        self._is_transient = is_transient
        self._workers = workers
        self._max_tries = max_tries
        self._delays_s = delays_s
        # Failures that were an event's own, by its place in the stream. Redeliveries for passing reasons do not count.
        self._faults: dict[tuple[int, datetime], int] = {}
        self._lost = False
        self._stopping = False
        self._held: list[Msg] = []  # what was being handled when the consumer was stopped

    def subjects(self) -> list[str]:
        return [
            f"tollway.{cls.DESCRIPTOR.full_name.split('.')[1]}.{cls.DESCRIPTOR.name}.*"
            for cls, _ in self._handlers.values()
        ]

    async def run(self) -> None:
        """Until cancelled. What is being handled then is rolled back and handed back to the stream."""
        self._stopping = False
        workers = [asyncio.create_task(self._work()) for _ in range(self._workers)]
        try:
            await asyncio.wait(workers, return_when=asyncio.FIRST_COMPLETED)  # none ends by itself
        finally:
            # Python 3.11's `wait_for`, in nats-py, swallows a cancellation that meets a message: the flag does not.
            self._stopping = True
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            await self._hand_back()

    async def _hand_back(self) -> None:
        """So that it need not wait for ack_wait. To be called when no worker asks for events any more: else the stream
        would hand it to one that leaves.
        """
        while self._held:
            with contextlib.suppress(Exception):
                await self._held.pop().nak()

    async def _work(self) -> None:
        while not self._stopping:
            try:
                await self._pull(await self._stream.jetstream())
            except Exception as error:
                if not self._lost:  # one line for all workers
                    self._lost = True
                    log.warning("consumer.delayed", durable=self._durable, error=repr(error))
                self._stream.renew()  # the server may have lost its storage
                await asyncio.sleep(0.5)  # pause between attempts: there is nothing to await

    async def _pull(self, jetstream: JetStreamContext) -> None:
        # add_consumer upserts; pull_subscribe alone would keep an older configuration without a word.
        await jetstream.add_consumer(
            NAME,
            ConsumerConfig(
                durable_name=self._durable,
                deliver_policy=DeliverPolicy.ALL,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=ACK_WAIT_S,
                max_deliver=-1,
                max_ack_pending=MAX_DELAYED,
                filter_subjects=self.subjects(),
            ),
        )
        subscription = await jetstream.pull_subscribe_bind(self._durable, stream=NAME)
        try:
            while not self._stopping:
                try:
                    # One at a time: a larger fetch waits for its slowest before it asks for more.
                    [message] = await subscription.fetch(1, timeout=PULL_S)
                except TimeoutError:
                    continue  # quiet; if the consumer is gone, the next request says so
                if self._lost:
                    self._lost = False
                    log.info("consumer.resumed", durable=self._durable)
                await self._handle(message)
        finally:
            with contextlib.suppress(Exception):
                await subscription.unsubscribe()

    async def _handle(self, message: Msg) -> None:
        failpoint(f"inbox.{self._durable}.received")
        progress = asyncio.create_task(_report_progress(message))
        try:
            event = self._decode(message)
            async with asyncio.timeout(HANDLING_S):
                await self._handlers[event.type][1](event)
            failpoint(f"inbox.{self._durable}.handled")
            await message.ack()
        except asyncio.CancelledError:
            self._held.append(message)
            raise
        except Exception as error:
            try:
                await self._retry_or_bury(message, error)
            except Exception as second:  # the server is away: the event comes back after ack_wait
                log.warning("event.unanswered", subject=message.subject, error=repr(second))
        else:
            self._faults.pop(_place(message), None)
            telemetry.count("tollway_events_consumed_total", 1, durable=self._durable, type=event.type)
        finally:
            progress.cancel()

    async def _retry_or_bury(self, message: Msg, error: Exception) -> None:
        if self._is_transient(error):
            tries, longest = message.metadata.num_delivered, LONGEST_TRANSIENT_DELAY_S
        else:
            tries, longest = self._faults.pop(_place(message), 0) + 1, self._delays_s[-1]
            if tries >= self._max_tries:
                await self._bury(message, error)
                return
            self._faults[_place(message)] = tries
            if len(self._faults) > MAX_DELAYED:  # another replica finished the oldest ones
                del self._faults[next(iter(self._faults))]
        delay = min(self._delays_s[min(tries, len(self._delays_s)) - 1], longest)
        log.warning("event.retry", subject=message.subject, tries=tries, delay_s=delay, error=repr(error))
        # A plain nak would come back at once, whatever backoff the consumer has.
        await message.nak(delay=delay)

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
        place = _place(message)
        headers = dict(message.headers or {})
        headers |= {"Tollway-Consumer": self._durable, "Tollway-Error": type(error).__name__}
        # Dying between the two steps buries again: the stream drops the second one by this id.
        headers["Nats-Msg-Id"] = f"{self._durable}.{place[0]}.{place[1].timestamp()}"
        subject = f"tollway_dead.{self._durable}.{message.subject.removeprefix('tollway.')}"
        await self._stream.publish(subject, message.data, headers)
        failpoint(f"inbox.{self._durable}.buried")
        await message.term()
        telemetry.count("tollway_events_dead_total", 1, durable=self._durable)


def _place(message: Msg) -> tuple[int, datetime]:
    """Tells events apart even when the stream was lost and counts from 1 again."""
    return message.metadata.sequence.stream, message.metadata.timestamp


async def _report_progress(message: Msg) -> None:
    """Keeps a slow event ours: without a report it would be delivered again after ack_wait."""
    while True:
        await asyncio.sleep(ACK_WAIT_S / 3)
        with contextlib.suppress(Exception):
            await message.in_progress()
