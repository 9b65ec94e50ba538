"""Tell others through the outbox: an event is a row of the transaction that made it true, published afterwards.

The outbox is the truth; the stream is a copy. A relay claims unpublished rows (SKIP LOCKED, so any number of relays
may run), publishes them outside any transaction with the event's id as `Nats-Msg-Id`, and marks them. A relay that
dies after publishing publishes again: the stream drops that within its duplicate window, consumers by their inbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from google.protobuf.message import Message
from sqlalchemy import (
    Column,
    DateTime,
    Index,
    LargeBinary,
    MetaData,
    Table,
    Text,
    bindparam,
    delete,
    func,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.kit import telemetry
from services.kit.errors import InvalidArgument
from services.kit.failpoint import failpoint
from services.kit.ids import new_id
from services.kit.stream import Stream

CLAIM = timedelta(seconds=6)  # longer than a batch takes; what a killed relay held is free again after it
RETENTION = timedelta(days=8)  # DESIGN §7: published rows stay at least seven days
BATCH = 256
POLL_S = 1.0  # for rows that another process left behind; our own commits wake the relay at once
LONGEST_DELAY_S = 10.0
MAX_EVENT_BYTES = 512 * 1024  # half of what a NATS server takes by default, headers included

REPUBLISHED_AT_ONCE = 1000
_EVENT_ID = re.compile(r"evt_[0-9a-f]{32}")
_SUBJECT_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")

log = structlog.get_logger(__name__)


def outbox_table(metadata: MetaData) -> Table:
    """The table as every service's migrations create it."""
    return Table(
        "outbox",
        metadata,
        Column("id", Text, primary_key=True),
        Column("type", Text, nullable=False),
        Column("subject", Text, nullable=False),
        Column("account_id", Text, nullable=False),
        Column("data", LargeBinary, nullable=False),
        Column("create_time", DateTime(timezone=True), nullable=False),
        Column("claim_until", DateTime(timezone=True)),
        Column("publish_time", DateTime(timezone=True)),
        Index("ix_outbox_unpublished", "id", postgresql_where=literal_column("publish_time IS NULL")),
        Index("ix_outbox_published", "publish_time", postgresql_where=literal_column("publish_time IS NOT NULL")),
    )


_table = outbox_table(MetaData())
_COLUMNS = ("id", "type", "subject", "account_id", "data", "create_time")
# One statement, however many they are.
_INSERT = text("""
INSERT INTO outbox (id, type, subject, account_id, data, create_time)
SELECT * FROM unnest(CAST(:id AS text[]), CAST(:type AS text[]), CAST(:subject AS text[]),
                     CAST(:account_id AS text[]), CAST(:data AS bytea[]), CAST(:create_time AS timestamptz[]))
""")
# For what a crash may take back: a claim that is lost is free sooner, a mark that is lost publishes again and the
# stream or the inbox drops that. Waiting for the disk would only make every event later.
_UNHURRIED = func.set_config("synchronous_commit", "off", True)


@dataclass(frozen=True)
class Envelope:
    """A CloudEvents 1.0 event in binary mode: attributes beside protobuf data."""

    id: str
    type: str  # the message's full name: tollway.billing.v1.TierChanged
    subject: str  # tollway.<service>.<event>.<account_id>
    account_id: str
    data: bytes
    create_time: datetime

    @classmethod
    def of(cls, message: Message, account_id: str) -> Envelope:
        """Raises ValueError for what the stream could never take: it would stay in the outbox for ever."""
        full_name = message.DESCRIPTOR.full_name
        service = full_name.split(".")[1]
        data = message.SerializeToString(deterministic=True)
        if len(data) > MAX_EVENT_BYTES:
            raise ValueError(f"{full_name}: {len(data)} bytes, more than the {MAX_EVENT_BYTES} of an event")
        if not _SUBJECT_TOKEN.fullmatch(account_id):
            raise ValueError(f"{full_name}: account id {account_id!r} cannot be part of a subject")
        return cls(
            id=new_id("evt"),
            type=full_name,
            subject=f"tollway.{service}.{message.DESCRIPTOR.name}.{account_id}",
            account_id=account_id,
            data=data,
            create_time=datetime.now(UTC),
        )

    def headers(self) -> dict[str, str]:
        return {
            "Nats-Msg-Id": self.id,
            "ce-specversion": "1.0",
            "ce-id": self.id,
            "ce-source": "/" + "/".join(self.type.split(".")[:2]),
            "ce-type": self.type,
            "ce-subject": self.account_id,
            "ce-time": self.create_time.isoformat().replace("+00:00", "Z"),
            "ce-datacontenttype": "application/protobuf",
        }


@dataclass(frozen=True)
class Republished:
    count: int
    next_token: str  # empty: that was the last page


class Outbox:
    """The events of one transaction. `add` collects; the unit of work flushes them before it commits."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._pending: list[Envelope] = []
        self.announced = 0

    def add(self, message: Message, account_id: str) -> None:
        self._pending.append(Envelope.of(message, account_id))

    async def flush(self) -> None:
        if self._pending:
            columns = {name: [getattr(each, name) for each in self._pending] for name in _COLUMNS}
            await self._connection.execute(_INSERT, columns)
            self.announced += len(self._pending)
            self._pending.clear()

    async def republish(self, since: datetime | None, after: str = "") -> Republished:
        """Refills a lost stream: the next events that were published at or after `since` (None: all that are kept) go
        out again, with the ids that they had. Consumers drop by id what they have seen. `after` is where an earlier
        call stopped. Raises InvalidArgument naming `page_token`."""
        if after and not _EVENT_ID.fullmatch(after):
            raise InvalidArgument("This is no page token of ours.", field="page_token")
        was = (_table.c.publish_time.is_not(None)) & (_table.c.id > after)
        if since is not None:
            was &= _table.c.publish_time >= since
        chosen = select(_table.c.id).where(was).order_by(_table.c.id).limit(REPUBLISHED_AT_ONCE).with_for_update()
        page = chosen.cte("page")
        again = update(_table).where(_table.c.id == page.c.id).values(publish_time=None, claim_until=None)
        ids = sorted((await self._connection.execute(again.returning(_table.c.id))).scalars())
        self.announced += len(ids)
        return Republished(len(ids), ids[-1] if len(ids) == REPUBLISHED_AT_ONCE else "")


class Relay:
    """Publishes what the outbox holds. One per process; `wake` after a commit makes it prompt."""

    def __init__(self, engine: AsyncEngine, stream: Stream) -> None:
        self._engine = engine
        self._stream = stream
        self._wake = asyncio.Event()
        self._next_prune = 0.0
        self._backlog = 0
        telemetry.gauge("tollway_outbox_pending", lambda: self._backlog)

    def wake(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled; then it finishes the batch under way. A database or stream that is down delays it."""
        failures = 0
        while True:
            await self._stream.jetstream()  # claim nothing while there is nobody to publish to
            self._wake.clear()
            turn = asyncio.create_task(self._turn())
            try:
                published = await asyncio.shield(turn)
            except asyncio.CancelledError:
                with contextlib.suppress(Exception):
                    await turn  # at most the publish timeout: else its claims would delay the next relay
                raise
            except Exception as error:
                failures += 1
                log.warning("outbox.delayed", error=repr(error), failures=failures)
                # Commits do not cut this short: each would try the whole head of the outbox again.
                await asyncio.sleep(min(POLL_S * 2 ** (failures - 2), LONGEST_DELAY_S))
                continue
            failures = 0
            if published < BATCH:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):  # Python 3.11's `wait_for` may swallow a cancellation
                        await self._wake.wait()

    async def _turn(self) -> int:
        try:
            published = await self.publish_batch()
        except Exception:
            self._backlog = await self.pending()
            raise
        self._backlog = 0 if published < BATCH else BATCH
        loop = asyncio.get_running_loop()
        if loop.time() >= self._next_prune:
            self._next_prune = loop.time() + 3600
            await self._prune()
        return published

    async def publish_batch(self) -> int:
        """Publishes up to 256 rows, the oldest first, and returns how many. Raises if the stream refused some."""
        envelopes = await self._claim()
        if not envelopes:
            return 0
        failpoint("outbox.claimed")
        outcomes = await asyncio.gather(
            *(self._stream.publish(e.subject, e.data, e.headers()) for e in envelopes), return_exceptions=True
        )
        failpoint("outbox.published")
        taken: list[str] = []
        refused: dict[str, BaseException] = {}
        for envelope, outcome in zip(envelopes, outcomes, strict=True):
            if outcome is None:
                taken.append(envelope.id)
            else:
                refused[envelope.id] = outcome
        async with self._engine.begin() as connection:
            for ids, values in ((taken, {"publish_time": func.now()}), (list(refused), {"claim_until": None})):
                if ids:
                    statement = update(_table).where(_table.c.id == func.any(bindparam("ids"))).values(values)
                    await connection.execute(statement.returning(_UNHURRIED), {"ids": ids})
        failpoint("outbox.marked")
        telemetry.count("tollway_outbox_published_total", len(taken))
        if refused:
            reason = next(iter(refused.values()))
            raise ConnectionError(f"the stream took {len(taken)} of {len(envelopes)} events: {reason!r}") from reason
        return len(taken)

    async def _claim(self) -> list[Envelope]:
        # A CTE is evaluated once; a subquery in IN may be run again, and lock more rows than its limit.
        free = (
            select(_table.c.id)
            .where(
                _table.c.publish_time.is_(None),
                (_table.c.claim_until.is_(None)) | (_table.c.claim_until < func.now()),
            )
            .order_by(_table.c.id)
            .limit(BATCH)
            .with_for_update(skip_locked=True)
            .cte("free")
        )
        columns = [_table.c[name] for name in _COLUMNS]
        statement = (
            update(_table)
            .where(_table.c.id == free.c.id)
            .values(claim_until=func.now() + CLAIM)
            .returning(*columns, _UNHURRIED)
        )
        async with self._engine.begin() as connection:
            rows = (await connection.execute(statement)).all()
        return [Envelope(*row[:-1]) for row in sorted(rows, key=lambda row: str(row[0]))]

    async def _prune(self) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(delete(_table).where(_table.c.publish_time < func.now() - RETENTION))

    async def pending(self) -> int:
        """How many events wait to be published."""
        async with self._engine.connect() as connection:
            statement = select(func.count()).select_from(_table).where(_table.c.publish_time.is_(None))
            return int((await connection.execute(statement)).scalar_one())
