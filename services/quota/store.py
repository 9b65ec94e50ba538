"""Opens the accounts of a batch and saves what was decided.

Mostly an account is as this process knows it, the decision is made on that, and one statement verifies that nothing
has changed since, writes and commits: one trip. Where something has, the batch is read again under locks and decided
on that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from services.kit import telemetry
from services.kit.clock import BusinessClock
from services.kit.failpoint import failpoint
from services.quota import rows
from services.quota.answers import from_ledger, to_message
from services.quota.connection import LaneConnection
from services.quota.domain import ALL, Command, Grant, Lease, Opened, Settled
from services.quota.known import Known, KnownAccounts, Trust
from services.quota.storage import Plans

_READING_S = 10.0  # how long the database's clock is gone by from one reading

_UNREAD = datetime.min.replace(tzinfo=UTC)
_KINDS = {b"s": "account", b"w": "kill_switch", b"c": "clock", b"k": "key"}


class _DatabaseClock:
    """The database's clock between two of its answers: never ahead of it, behind by less than an answer takes."""

    def __init__(self) -> None:
        self._wall = _UNREAD
        self._read = -_READING_S

    def now(self) -> datetime:
        return self._wall + timedelta(seconds=time.monotonic() - self._read)

    @property
    def is_fresh(self) -> bool:
        return time.monotonic() - self._read < _READING_S

    def believe(self, wall: datetime) -> None:
        # The later of two readings that are both late is the better one; an old one may stem from a clock set back.
        if not self.is_fresh or wall > self.now():
            self._wall, self._read = wall, time.monotonic()

    def forget(self) -> None:
        self._read = -_READING_S


@dataclass
class Batch(Opened):
    """What a batch is decided on, and what has to be verified when it is saved."""

    wall: datetime = _UNREAD
    locked: bool = False
    known: dict[str, Known] = field(default_factory=dict)
    keys: set[tuple[str, str]] = field(default_factory=set)  # accounts and keys that callers gave


class Store:
    """Not for concurrent use: one lane, one batch at a time."""

    def __init__(
        self, dsn: str, plans: Plans, clock: BusinessClock, announced: Callable[[], None] = lambda: None
    ) -> None:
        """`announced` is called after a commit with events in the outbox."""
        self._plans = plans
        self._clock = clock
        self._announced = announced
        self._known = KnownAccounts()
        self._trust = Trust()
        self._wall = _DatabaseClock()
        self._switches: list[str] = []
        self._connects = 0
        self.connection = LaneConnection(dsn)

    def is_suspended(self, meter: str) -> bool:
        """By a kill switch, as the last batch saw them."""
        return ALL in self._switches or meter in self._switches

    async def open(self, uses: Sequence[Command], *, locking: bool = False) -> Batch:
        """The accounts of the uses; with `locking` read under their locks, with the keys that came back."""
        connection, known = self.connection, self._known
        if not connection.is_open:
            await connection.connect()
        if connection.connects != self._connects:
            # A server that took over may lack the last commits, and revisions may have been used again.
            self._connects = connection.connects
            known.clear()
            self._wall.forget()
        ids = {use.account_id for use in uses}
        believed = {each: entry for each in ids if (entry := known.get(each)) is not None}
        must_lock = locking or any(use.needs_ledger for use in uses)
        locking = must_lock or self._trust.is_low
        found = {} if locking else believed
        if locking:
            self._wall.forget()  # what is read under locks is decided at the time of that reading
        else:
            await connection.end()
        batch = Batch(_UNREAD, {}, {}, locked=locking, known=found)
        batch.keys = {(use.account_id, use.key) for use in uses if use.key and not use.dry_run}
        if len(found) < len(ids) or not self._wall.is_fresh:
            unknown = ids - found.keys()
            # Whatever plan it is that an account has; this process has seen most of them.
            rates = {
                (use.account_id, name, use.key_id if per_key else "")
                for use in uses
                if use.account_id in unknown
                for name, per_key in self._plans.rates_of(use.meter)
            }
            read = await connection.read(unknown, batch.keys if locking else (), rates, locking=locking)
            switches = self._switches
            await self._take_in(read, rates, batch)
            if locking and not must_lock:
                revisions = {entry.id: entry.rev for entry in found.values()}
                same = all(revisions.get(entry.id) == entry.rev for entry in believed.values())
                self._trust.saw(held=same and not batch.granted and switches == self._switches)
        failpoint("quota.lane.opened")
        batch.wall = self._wall.now()
        batch.at = batch.wall + self._clock.offset()
        batch.switches = frozenset(self._switches)
        if any(entry.plan.rates_of for entry in found.values()):
            await self._read_rates(uses, found)
        batch.accounts = {entry.id: rows.to_account(entry, batch.at) for entry in found.values()}
        return batch

    async def _take_in(self, read: Iterable[Any], rates: Iterable[tuple[str, str, str]], batch: Batch) -> None:
        """`rates` are those that were asked for; an account without a log of one was granted nothing under it."""
        logs: dict[str, dict[tuple[str, str], bytes]] = {}
        for owner, name, key_id in rates:
            logs.setdefault(owner, {})[name, key_id] = b""
        accounts: list[Any] = []
        leases: dict[str, list[Lease]] = {}
        switches: list[str] = []
        for row in read:
            kind, owner = row[0], row[1]
            if kind == b"a":
                accounts.append(row)
            elif kind == b"k":
                grant = Grant(owner, row[9], row[10], row[11], from_ledger(row[15]), row[14], row[12], row[16])
                batch.granted[owner, row[9]] = grant
            elif kind == b"l":
                lease = Lease(row[9], owner, row[10], row[11], row[12], row[13], row[14])
                leases.setdefault(owner, []).append(lease)
            elif kind == b"b":
                logs[owner][row[9], row[14]] = row[15]
            elif kind == b"s":
                switches.append(row[10])
            else:
                self._wall.believe(row[12])
        self._switches = sorted(switches)
        if missing := {row[4] for row in accounts if self._plans.get(row[4]) is None}:
            for plan_id, data in await self.connection.plans(list(missing)):
                self._plans.add(plan_id, data)
        for row in accounts:
            plan = self._plans.get(row[4])
            assert plan is not None  # noqa: S101 - a foreign key holds it, and it was read above
            held, rates_of = tuple(leases.get(row[1], ())), logs.get(row[1], {})
            batch.known[row[1]] = Known(row[1], row[2], row[3], plan, row[5], row[6], row[7], row[8], held, rates_of)

    async def _read_rates(self, uses: Iterable[Command], found: dict[str, Known]) -> None:
        asked = {
            (use.account_id, *name)
            for use in uses
            if (entry := found.get(use.account_id)) is not None
            for name in rows.rates_told(use, entry)
            if name not in entry.rates
        }
        if not asked:
            return
        logs = dict.fromkeys(asked, b"")
        for account_id, name, key_id, log in await self.connection.rates(asked):
            logs[account_id, name, key_id] = log
        for (account_id, name, key_id), log in logs.items():
            entry = found[account_id]
            found[account_id] = entry._replace(rates={**entry.rates, (name, key_id): log})

    async def save(self, settled: Settled, batch: Batch) -> bool:
        """Verifies what the decisions stood on, writes what was granted and commits: when this returns it is durable.

        False: others changed it meanwhile, and nothing was written.
        """
        connection, grants, changed = self.connection, settled.grants, settled.changed
        rates = rows.charged(settled, batch)
        new = [rows.to_known(changed[each], batch.known[each], rates.get(each, {})) for each in sorted(changed)]
        seen = [batch.known[each] for each in sorted(batch.known.keys() - changed.keys())]
        keys = [] if batch.locked else list(batch.keys)
        arguments = [
            None if batch.locked else batch.wall,  # read under the locks, it is the database's own
            "".join([each + rows.APART for each in self._switches]) or None,
            rows.joined([entry.id for entry in seen]),
            rows.joined([str(entry.rev) for entry in seen]),
            rows.joined([owner for owner, _ in keys]),
            rows.joined([key for _, key in keys]),
            rows.joined([entry.id for entry in new]),
            rows.joined([str(entry.rev - 1) for entry in new]),
            rows.joined([entry.counters for entry in new]),
            rows.joined([entry.terms for entry in new]),
            rows.joined([grant.account_id for grant in grants]),
            rows.joined([grant.key for grant in grants]),
            rows.joined([grant.meter for grant in grants]),
            rows.joined([str(grant.amount) for grant in grants]),
            rows.joined([to_message(grant.answer).SerializeToString().hex() for grant in grants]),
            rows.joined([grant.key_id or rows.NONE for grant in grants]),
            batch.wall.date(),
            batch.at,
            *rows.rest(settled, rates),
        ]
        if new:
            # Noted before it is sent: an answer that never comes must be asked for by this number.
            connection.sent = connection.committed + 1
            if not batch.locked:
                failpoint("quota.lane.before_commit")
        verdict, wall, stale = await connection.save(arguments)
        self._wall.believe(wall)
        if verdict != b"o":
            connection.sent = None
            await self._doubt(verdict, stale or ())
            return False
        if batch.locked:
            failpoint("quota.lane.before_commit")
            await connection.finish(wrote=bool(new))
        else:
            self._trust.saw(held=True)
        if new:
            failpoint("quota.lane.after_commit")
            connection.committed, connection.sent = connection.committed + 1, None
        for entry in (*seen, *new):
            self._known.keep(entry)
        if settled.announcements:
            self._announced()
        return True

    async def _doubt(self, verdict: bytes, stale: Iterable[str]) -> None:
        """Drops what turned out to be old; the next try reads it under locks."""
        telemetry.count("tollway_quota_stale_total", kind=_KINDS[verdict])
        for account_id in stale:
            self._known.forget(account_id)
        if verdict == b"c":
            self._wall.forget()
        else:
            self._trust.saw(held=False)
        await self.connection.end()
