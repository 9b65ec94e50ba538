"""Opens the accounts of a batch and saves what was decided.

Mostly an account is as this process knows it, the decision is made on that, and one statement verifies that nothing
has changed since, writes and commits: one trip. Where something has, the batch is read again under locks and decided
on that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from services.kit import telemetry
from services.kit.clock import BusinessClock
from services.kit.failpoint import failpoint
from services.kit.outbox import Envelope
from services.quota.answers import from_ledger, to_message
from services.quota.connection import LaneConnection
from services.quota.domain import Account, Command, Grant, Lease, Opened, Plan, Settled, rate
from services.quota.events import to_event
from services.quota.known import Known, KnownAccounts
from services.quota.storage import Plans

_READING_S = 10.0  # how long the database's clock is gone by from one reading

MOST_RATES = 16  # logs of one account that are kept known: an account may have any number of keys
# Between the elements of a list, and for an empty one among them: no element holds control characters like these.
_APART, _NONE = "\x1d", "\x1f"
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
        self._wall = _DatabaseClock()
        self._switches: list[str] = []
        self._connects = 0
        self.connection = LaneConnection(dsn)

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
        locking = locking or any(use.needs_ledger for use in uses)
        if contended := [each for each in ids if known.is_contended(each)]:
            locking = True
            for account_id in contended:
                known.take_turn(account_id)
        found: dict[str, Known] = {}
        if locking:
            self._wall.forget()  # what is read under locks is decided at the time of that reading
        else:
            found = {each: entry for each in ids if (entry := known.get(each)) is not None}
            await connection.end()
        batch = Batch(_UNREAD, {}, {}, locked=locking, known=found)
        batch.keys = {(use.account_id, use.key) for use in uses if use.key and not use.dry_run}
        if len(found) < len(ids) or not self._wall.is_fresh:
            keys = list(batch.keys) if locking else []
            rows = await connection.read(
                list(ids - found.keys()), [owner for owner, _ in keys], [key for _, key in keys], locking=locking
            )
            await self._take_in(rows, batch)
        failpoint("quota.lane.opened")
        batch.wall = self._wall.now()
        batch.at = batch.wall + self._clock.offset()
        batch.switches = frozenset(self._switches)
        if any(entry.plan.rates_of for entry in found.values()):
            await self._read_rates(uses, found)
        batch.accounts = {entry.id: _to_account(entry, batch.at) for entry in found.values()}
        return batch

    async def _take_in(self, rows: Iterable[Any], batch: Batch) -> None:
        accounts: list[Any] = []
        leases: dict[str, list[Lease]] = {}
        switches: list[str] = []
        for row in rows:
            kind, owner = row[0], row[1]
            if kind == b"a":
                accounts.append(row)
            elif kind == b"k":
                grant = Grant(owner, row[9], row[10], row[11], from_ledger(row[15]), row[14], row[12], row[16])
                batch.granted[owner, row[9]] = grant
            elif kind == b"l":
                lease = Lease(row[9], owner, row[10], row[11], row[12], row[13], row[14])
                leases.setdefault(owner, []).append(lease)
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
            batch.known[row[1]] = Known(
                row[1], row[2], row[3], plan, row[5], row[6], row[7], row[8], tuple(leases.get(row[1], ())), {}
            )

    async def _read_rates(self, uses: Iterable[Command], found: dict[str, Known]) -> None:
        asked = {
            (use.account_id, *name)
            for use in uses
            if (entry := found.get(use.account_id)) is not None
            for name in _rates_of(entry.plan, use.meter, use.key_id)
            if name not in entry.rates
        }
        if not asked:
            return
        logs = dict.fromkeys(asked, b"")
        for account_id, name, key_id, log in await self.connection.rates(*map(list, zip(*asked, strict=True))):
            logs[account_id, name, key_id] = log
        for (account_id, name, key_id), log in logs.items():
            entry = found[account_id]
            found[account_id] = entry._replace(rates={**entry.rates, (name, key_id): log})

    async def save(self, settled: Settled, batch: Batch) -> bool:
        """Verifies what the decisions stood on, writes what was granted and commits: when this returns it is durable.

        False: others changed it meanwhile, and nothing was written.
        """
        connection, grants, changed = self.connection, settled.grants, settled.changed
        rates = _charged(settled, batch)
        new = [_to_known(changed[each], batch.known[each], rates.get(each, {})) for each in sorted(changed)]
        seen = [batch.known[each] for each in sorted(batch.known.keys() - changed.keys())]
        keys = [] if batch.locked else list(batch.keys)
        arguments = [
            None if batch.locked else batch.wall,  # read under the locks, it is the database's own
            "".join([each + _APART for each in self._switches]) or None,
            _list([entry.id for entry in seen]),
            _list([str(entry.rev) for entry in seen]),
            _list([owner for owner, _ in keys]),
            _list([key for _, key in keys]),
            _list([entry.id for entry in new]),
            _list([str(entry.rev - 1) for entry in new]),
            _list([entry.counters for entry in new]),
            _list([entry.terms for entry in new]),
            _list([grant.account_id for grant in grants]),
            _list([grant.key for grant in grants]),
            _list([grant.meter for grant in grants]),
            _list([str(grant.amount) for grant in grants]),
            _list([to_message(grant.answer).SerializeToString().hex() for grant in grants]),
            _list([grant.key_id or _NONE for grant in grants]),
            batch.wall.date(),
            batch.at,
            *_rest(settled, rates),
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
            await connection.finish()
        if new:
            failpoint("quota.lane.after_commit")
            connection.committed, connection.sent = connection.committed + 1, None
        for entry in (*seen, *new):
            self._known.keep(entry, verified=not batch.locked)
        if settled.announcements:
            self._announced()
        return True

    async def _doubt(self, verdict: bytes, stale: Iterable[str]) -> None:
        """Drops what turned out to be old; the next try reads it under locks."""
        telemetry.count("tollway_quota_stale_total", kind=_KINDS[verdict])
        self._known.found_stale(stale)
        if verdict == b"c":
            self._wall.forget()
        await self.connection.end()


def _to_account(entry: Known, at: datetime) -> Account:
    return Account(
        entry.id,
        entry.version,
        entry.plan,
        entry.anchor,
        entry.interval,
        orjson.loads(entry.counters),
        at,
        {name: rate.unpack(log) for name, log in entry.rates.items() if log} if entry.rates else {},
        {lease.id: lease for lease in entry.leases} if entry.leases else {},
        orjson.loads(entry.terms) if entry.terms != "{}" else {},
    )


def _to_known(account: Account, before: Known, rates: Mapping[tuple[str, str], bytes]) -> Known:
    """The account as it will be once it is saved."""
    kept = before.rates if len(before.rates) <= MOST_RATES else {}
    return Known(
        before.id,
        before.rev + 1,
        before.version,
        before.plan,
        before.anchor,
        before.interval,
        orjson.dumps(account.counters).decode(),
        orjson.dumps(account.terms).decode() if account.terms else "{}",
        tuple(account.leases.values()),
        {**kept, **rates} if rates else before.rates,
    )


def _charged(settled: Settled, batch: Batch) -> dict[str, dict[tuple[str, str], bytes]]:
    """The logs to which something was added, packed, by account."""
    charged: dict[str, dict[tuple[str, str], bytes]] = {}
    done = set()
    for grant in settled.grants:
        account = batch.accounts[grant.account_id]
        # Once for all grants of a batch: a log may have a thousand numbers.
        if account.plan.rates_of and (which := (grant.account_id, grant.meter, grant.key_id)) not in done:
            done.add(which)
            for name in _rates_of(account.plan, grant.meter, grant.key_id):
                if (log := account.rates.get(name)) is not None:
                    charged.setdefault(account.id, {})[name] = rate.pack(log)
    return charged


def _rates_of(plan: Plan, meter: str, key_id: str) -> list[tuple[str, str]]:
    return [(limit.name, key_id if limit.per_key else "") for limit in plan.rates_of.get(meter, ())]


def _rest(settled: Settled, rates: Mapping[str, Mapping[tuple[str, str], bytes]]) -> list[Any]:
    """What few batches have to write; empty when this one has none of it."""
    leases = settled.opened + settled.renewed
    taken_back = settled.reversed + [(grant.account_id, grant.key) for grant in settled.grants if grant.reversed]
    if not (rates or leases or settled.ended or taken_back or settled.announcements):
        return []
    buckets = [(each, *name, log) for each, logs in rates.items() for name, log in logs.items()]
    events = [Envelope.of(to_event(each), each.account_id) for each in settled.announcements]
    return [
        _list([bucket[0] for bucket in buckets]),
        _list([bucket[1] for bucket in buckets]),
        _list([bucket[2] or _NONE for bucket in buckets]),
        _list([bucket[3].hex() for bucket in buckets]),
        _list([lease.account_id for lease in leases]),
        _list([lease.id for lease in leases]),
        _list([lease.meter for lease in leases]),
        _list([str(lease.reserved) for lease in leases]),
        [lease.acquire_time for lease in leases],
        [lease.expire_time for lease in leases],
        _list([lease.key_id or _NONE for lease in leases]),
        _list([account_id for account_id, _ in settled.ended]),
        _list([lease_id for _, lease_id in settled.ended]),
        _list([account_id for account_id, _ in taken_back]),
        _list([key for _, key in taken_back]),
        _list([event.id for event in events]),
        _list([event.type for event in events]),
        _list([event.subject for event in events]),
        _list([event.account_id for event in events]),
        _list([event.data.hex() for event in events]),
    ]


def _list(elements: list[str]) -> str | None:
    """As `quota_save` takes it."""
    return _APART.join(elements) if elements else None
