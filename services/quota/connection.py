"""The lane's one connection: made as the lane needs it, judged when it fails, and asked after a lost answer.

A raw asyncpg connection outside the pool, for the lane decides itself where its transactions begin and end. Not
through a pooler in transaction mode.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from enum import Enum
from typing import Any

import asyncpg
import structlog
from sqlalchemy.engine import make_url
from uuid_utils import uuid7

from services.kit import telemetry

CONNECT_S = 2.0
STATEMENT_S = 3.0
TERMINATE_MS = 2000

_SETTINGS = {
    # Generic plans, made without looking at sizes: a plan made while a new day's partition is empty must not turn
    # into a scan when it fills. 9 in 10 lookups go by primary key.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    # The server gives up a little before we do, so that its locks never outlast our patience.
    "lock_timeout": "2000",
    "statement_timeout": "2500",
    # Chained transactions idle by design.
    "idle_in_transaction_session_timeout": "0",
    # A half-open connection must not hold locks.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
_READ = "SELECT * FROM quota_read($1, $2, $3, $4, $5, $6, $7)"
_SAVE = "SELECT * FROM quota_save({})"
FEW, ALL_OF_THEM = 20, 40  # arguments of quota_save: without and with what few batches have
_RATES = """
SELECT asked.account_id, asked.name, asked.key_id, found.log
FROM unnest($1::text[], $2::text[], $3::text[]) AS asked (account_id, name, key_id),
     LATERAL (
         SELECT b.log FROM bucket b
         WHERE b.account_id = asked.account_id AND b.name = asked.name AND b.key_id = asked.key_id LIMIT 1
     ) AS found
"""
_PLANS = "SELECT id, data FROM plan WHERE id = ANY ($1)"
# What an earlier connection of this lane may still be doing must be over before the sequence is read.
_END_OTHERS = """
SELECT pg_terminate_backend(pid, $2) FROM pg_stat_activity
WHERE application_name = $1 AND pid <> pg_backend_pid()
"""
_ENTER = "INSERT INTO lane (id, seq) VALUES ($1, 0) ON CONFLICT DO NOTHING"
_SEQUENCE = "SELECT seq FROM lane WHERE id = $1 FOR UPDATE"

log = structlog.get_logger(__name__)


class Verdict(Enum):
    """What an error means for the batch it struck."""

    LOST = "the connection is gone; whether the batch was saved shows after the next"
    AGAIN = "rolled back; the same batch may succeed now"
    NO_DAY = "rolled back; the ledger has no partition for today"
    FATAL = "rolled back; some use of the batch cannot be saved"


class StoreError(ConnectionError):
    """The connection could not be made as the lane needs it."""


class LaneConnection:
    """Not for concurrent use."""

    def __init__(self, dsn: str) -> None:
        url = make_url(dsn)
        self._arguments = dict(url.get_dialect()().create_connect_args(url)[1])
        self.lane = uuid7().hex
        self._name = f"tollway-quota-lane {self.lane[-20:]}"
        self._connection: Any = None
        self._chained = False
        self.connects = 0  # connections so far: what was seen through an earlier one may have been lost since
        self.committed = 0  # the sequence number of the last batch that was
        self.sent: int | None = None  # the one that a commit under way carries

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    async def read(
        self,
        ids: Collection[str],
        keys: Collection[tuple[str, str]],
        rates: Collection[tuple[str, str, str]],
        *,
        locking: bool,
    ) -> list[Any]:
        """Rows of `quota_read`: accounts, keys by account, and rates by account, name and API key. Counts as a
        statement; so do the others.
        """
        if locking:
            await self._begin()
        return await self._fetch(self._read, ids, *_columns(keys, 2), locking, *_columns(rates, 3))

    async def rates(self, rates: Collection[tuple[str, str, str]]) -> list[Any]:
        return await self._fetch(self._rates, *_columns(rates, 3))

    async def plans(self, ids: list[int]) -> list[Any]:
        return await self._fetch(self._plans, ids)

    async def save(self, arguments: list[Any]) -> Any:
        """The row of `quota_save`, from whose arguments lane and sequence number are left out. Durable when this
        returns, unless `finish` has to follow.
        """
        statement = self._save if len(arguments) == FEW - 2 else self._save_all
        (row,) = await self._fetch(statement, self.lane, self.committed + 1, *arguments)
        return row

    async def finish(self, *, wrote: bool) -> None:
        """Ends what was read under locks: commits it, or lets the locks go, which waits for no disk."""
        if self._chained:
            await self._execute("COMMIT AND CHAIN" if wrote else "ROLLBACK AND CHAIN")

    async def end(self) -> None:
        """Leaves the chain of transactions: the next statement is one by itself."""
        if self._chained:
            await self._execute("ROLLBACK")
            self._chained = False

    async def _begin(self) -> None:
        if not self._chained:
            await self._execute("BEGIN")
            self._chained = True

    async def _fetch(self, statement: Any, *arguments: Any) -> list[Any]:
        telemetry.count("tollway_quota_statements_total")
        rows: list[Any] = await statement.fetch(*arguments, timeout=STATEMENT_S)
        return rows

    async def _execute(self, command: str) -> None:
        telemetry.count("tollway_quota_statements_total")
        await self._connection.execute(command, timeout=STATEMENT_S)

    async def judge(self, error: Exception) -> Verdict:
        """Says what the error means, having rolled back or dropped the connection."""
        state = str(getattr(error, "sqlstate", None) or "")
        if self._connection is None or self._connection.is_closed() or _breaks(error, state):
            self.drop()
            return Verdict.LOST
        try:
            await self.end()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            self.drop()
            return Verdict.LOST
        self.sent = None
        if state == "23514":
            return Verdict.NO_DAY
        # Deadlock, serialization, lock not available, statement timeout, out of resources.
        return Verdict.AGAIN if state[:2] in {"40", "53", "55"} or state == "57014" else Verdict.FATAL

    def drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
            telemetry.count("tollway_quota_lane_lost_total")

    async def recover(self) -> bool:
        """Reconnects for as long as it takes and returns whether the batch in doubt was committed."""
        delay = 0.05
        while True:
            try:
                sent = self.sent
                await self.connect()
                return sent is not None and self.committed >= sent
            except Exception as error:
                log.warning("lane.waiting", error=repr(error))
                await asyncio.sleep(delay)  # backoff between connection attempts: there is nothing to await
                delay = min(delay * 2, 1.0)

    async def connect(self) -> None:
        """Connects, ends what an earlier connection of this lane may still do, and reads how far that came."""
        connection = await asyncpg.connect(
            **self._arguments,
            timeout=CONNECT_S,
            command_timeout=STATEMENT_S,
            server_settings={"application_name": self._name, **_SETTINGS},
        )
        try:
            ended = await connection.fetch(_END_OTHERS, self._name, TERMINATE_MS, timeout=STATEMENT_S)
            if not all(row[0] for row in ended):
                raise StoreError("the lane's earlier connection does not end")  # noqa: TRY301 - closed below
            await connection.execute(_ENTER, self.lane)
            self.committed = await connection.fetchval(_SEQUENCE, self.lane)
            self._read = await connection.prepare(_READ)
            self._rates = await connection.prepare(_RATES)
            self._plans = await connection.prepare(_PLANS)
            self._save = await connection.prepare(_SAVE.format(_places(FEW)))
            self._save_all = await connection.prepare(_SAVE.format(_places(ALL_OF_THEM)))
        except BaseException:
            connection.terminate()
            raise
        self._connection, self._chained, self.sent = connection, False, None
        self.connects += 1
        telemetry.count("tollway_quota_lane_connects_total")

    async def close(self) -> None:
        """Leaves without a trace: the lane's row goes with it."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            await connection.execute("ROLLBACK")
            await connection.execute("DELETE FROM lane WHERE id = $1", self.lane)
            await connection.close(timeout=CONNECT_S)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            connection.terminate()


def _columns(rows: Collection[tuple[str, ...]], count: int) -> list[list[str]]:
    return [[row[index] for row in rows] for index in range(count)]


def _places(count: int) -> str:
    return ", ".join(f"${number}" for number in range(1, count + 1))


def _breaks(error: Exception, state: str) -> bool:
    """True when the connection cannot be used on: its state is not known, or the server is ending it."""
    if isinstance(error, asyncpg.PostgresError):
        # 0A000, 42883: a migration has changed what our statements were prepared for.
        return state != "57014" and (state[:2] in {"08", "57"} or state in {"25P03", "0A000", "42883"})
    return isinstance(error, (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError))
