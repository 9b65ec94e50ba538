"""The lane's one connection: opens accounts under their locks, saves a batch, and finds out after a lost answer.

A raw asyncpg connection outside the pool, for it lives inside transactions that chain: `COMMIT AND CHAIN` saves a
round trip. Between batches it is "idle in transaction" without a lock or a snapshot. Not through a pooler in
transaction mode.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import asyncpg
import structlog
from sqlalchemy.engine import make_url
from uuid_utils import uuid7

from services.kit import telemetry
from services.kit.clock import BusinessClock
from services.kit.failpoint import failpoint
from services.quota.answers import from_ledger, to_message
from services.quota.domain import Account, Command, Grant, Opened, Settled, rate
from services.quota.storage import Plans

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
_OPEN = "SELECT * FROM quota_open($1, $2, $3)"
_SAVE = """
WITH counted AS (
    UPDATE account a SET counters = c.counters::json
    FROM unnest($1::text[], $2::text[]) AS c (id, counters) WHERE a.id = c.id
), granted AS (
    INSERT INTO idem (account_id, key, day, meter, amount, decide_time, answer)
    SELECT g.account_id, g.key, $3, g.meter, g.amount, $4, g.answer
    FROM unnest($5::text[], $6::text[], $7::text[], $8::bigint[], $9::bytea[])
         AS g (account_id, key, meter, amount, answer)
)
UPDATE lane SET seq = $10, use_time = clock_timestamp() WHERE id = $11 RETURNING seq
"""
# Only for a batch with rates: the others pay nothing for them.
_SAVE_RATED = _SAVE.replace(
    ")\nUPDATE lane",
    """), timed AS (
    INSERT INTO bucket (account_id, name, key_id, log)
    SELECT b.account_id, b.name, b.key_id, b.log
    FROM unnest($12::text[], $13::text[], $14::text[], $15::bytea[]) AS b (account_id, name, key_id, log)
    ON CONFLICT (account_id, name, key_id) DO UPDATE SET log = excluded.log, use_time = clock_timestamp()
)
UPDATE lane""",
)
# A statement after the locks, so it sees what was committed before them.
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

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_decode = json.JSONDecoder().raw_decode
log = structlog.get_logger(__name__)


class Verdict(Enum):
    """What an error means for the batch it struck."""

    LOST = "the connection is gone; whether the batch was saved shows after the next"
    AGAIN = "rolled back; the same batch may succeed now"
    NO_DAY = "rolled back; the ledger has no partition for today"
    FATAL = "rolled back; some use of the batch cannot be saved"


class StoreError(ConnectionError):
    """The connection could not be made as the lane needs it."""


class Store:
    """Not for concurrent use: one lane, one batch at a time."""

    def __init__(self, dsn: str, plans: Plans, clock: BusinessClock) -> None:
        url = make_url(dsn)
        self._arguments = dict(url.get_dialect()().create_connect_args(url)[1])
        self._plans = plans
        self._clock = clock
        self._lane = uuid7().hex
        self._name = f"tollway-quota-lane {self._lane[-20:]}"
        self._connection: Any = None
        self._wall = datetime.now(UTC)
        self._committed = 0
        self._sent: int | None = None  # the sequence number that a commit under way carries

    @property
    def in_doubt(self) -> bool:
        """True when a commit was perhaps sent and not answered."""
        return self._sent is not None

    async def open(self, uses: Sequence[Command]) -> Opened:
        """Locks the accounts of the uses in the order of their ids and reads them and the keys that came back."""
        if self._connection is None:
            await self.connect()
        ids: set[str] = set()
        keys: set[tuple[str, str]] = set()
        for use in uses:
            ids.add(use.account_id)
            if use.key and not use.dry_run:
                keys.add((use.account_id, use.key))
        rows = await self._open.fetch(
            list(ids), [account for account, _ in keys], [key for _, key in keys], timeout=STATEMENT_S
        )
        failpoint("quota.lane.opened")
        self._wall = rows[-1][11]
        opened = Opened(self._wall + self._clock.offset(), {}, {})
        if missing := {row[2] for row in rows if row[0] == b"a" and self._plans.get(row[2]) is None}:
            for plan_id, data in await self._connection.fetch(_PLANS, list(missing), timeout=STATEMENT_S):
                self._plans.add(plan_id, data)
        for row in rows:
            kind = row[0]
            if kind == b"a":
                _, account_id, plan_id, version, anchor, interval, counters, *_ = row
                plan = self._plans.get(plan_id)
                assert plan is not None  # noqa: S101 - a foreign key holds it, and it was read above
                opened.accounts[account_id] = Account(
                    account_id, version, plan, anchor, interval, _decode(counters)[0], opened.at
                )
            elif kind == b"k":
                account_id, key, meter, amount, answer = row[1], row[7], row[8], row[9], row[10]
                opened.granted[account_id, key] = Grant(account_id, key, meter, amount, from_ledger(answer))
            elif kind == b"s":
                opened.switches |= {row[8]}
        if any(account.plan.rates_of for account in opened.accounts.values()):
            await self._read_rates(uses, opened)
        return opened

    async def _read_rates(self, uses: Iterable[Command], opened: Opened) -> None:
        asked = {
            (use.account_id, limit.name, use.key_id if limit.per_key else "")
            for use in uses
            if (account := opened.accounts.get(use.account_id)) is not None
            for limit in account.plan.rates_of.get(use.meter, ())
        }
        if not asked:
            return
        for account_id, name, key_id, log in await self._rates.fetch(*zip(*asked, strict=True), timeout=STATEMENT_S):
            opened.accounts[account_id].rates[name, key_id] = rate.unpack(log)
        telemetry.count("tollway_quota_statements_total", 1)

    async def save(self, settled: Settled, opened: Opened) -> None:
        """Writes what was granted and commits. When this returns it is durable."""
        if settled.grants:
            # Noted before it is sent: an answer that never comes must be asked for by this number.
            sent = self._sent = self._committed + 1
            grants, changed = settled.grants, settled.changed.values()
            rates = [
                (account.id, name, key_id, rate.pack(log))
                for account in changed
                if account.rates
                for (name, key_id), log in account.rates.items()
            ]
            noted = await (self._save_rated if rates else self._save).fetch(
                [account.id for account in changed],
                [_encode(account.counters) for account in changed],
                self._wall.date(),
                opened.at,
                [grant.account_id for grant in grants],
                [grant.key for grant in grants],
                [grant.meter for grant in grants],
                [grant.amount for grant in grants],
                [to_message(grant.answer).SerializeToString() for grant in grants],
                sent,
                self._lane,
                *zip(*rates, strict=True),
                timeout=STATEMENT_S,
            )
            if not noted:
                raise StoreError("the lane's row is gone")  # without it a lost answer could not be resolved
            failpoint("quota.lane.before_commit")
        await self._connection.execute("COMMIT AND CHAIN", timeout=STATEMENT_S)
        if self._sent is not None:
            failpoint("quota.lane.after_commit")
            self._committed, self._sent = self._sent, None
        telemetry.count("tollway_quota_statements_total", 3 if settled.grants else 2)

    async def judge(self, error: Exception) -> Verdict:
        """Says what the error means, having rolled back or dropped the connection."""
        state = str(getattr(error, "sqlstate", None) or "")
        if self._connection is None or self._connection.is_closed() or _breaks(error, state):
            self.drop()
            return Verdict.LOST
        try:
            await self._connection.execute("ROLLBACK AND CHAIN", timeout=STATEMENT_S)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            self.drop()
            return Verdict.LOST
        self._sent = None
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
                sent = self._sent
                await self.connect()
                return sent is not None and self._committed >= sent
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
            await connection.execute(_ENTER, self._lane)
            self._committed = await connection.fetchval(_SEQUENCE, self._lane)
            self._open = await connection.prepare(_OPEN)
            self._save = await connection.prepare(_SAVE)
            self._rates = await connection.prepare(_RATES)
            self._save_rated = await connection.prepare(_SAVE_RATED)
            await connection.execute("BEGIN")
        except BaseException:
            connection.terminate()
            raise
        self._connection, self._sent = connection, None
        telemetry.count("tollway_quota_lane_connects_total")

    async def close(self) -> None:
        """Leaves without a trace: the lane's row goes with it."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            await connection.execute("ROLLBACK")
            await connection.execute("DELETE FROM lane WHERE id = $1", self._lane)
            await connection.close(timeout=CONNECT_S)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            connection.terminate()


def _breaks(error: Exception, state: str) -> bool:
    """True when the connection cannot be used on: its state is not known, or the server is ending it."""
    if isinstance(error, asyncpg.PostgresError):
        return state != "57014" and (state[:2] in {"08", "57"} or state == "25P03")
    return isinstance(error, (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError))
