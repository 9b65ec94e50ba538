"""Quota's tables, outside the hot path: entitlements as they come in, usage as it is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.kit.clock import BusinessClock
from services.kit.database import UnitOfWork
from services.quota.domain import KillSwitch, Lease, Plan, rate
from services.quota.events import Snapshot, to_plan
from services.quota.ports import KeyOwner, StoredAccount

# In the order of ids, as the lane locks them: two writers in two orders would deadlock.
_APPLY = text("""
INSERT INTO account (id, version, plan_id, status, anchor, "interval", change_time)
SELECT s.id, s.version, p.id, s.status, s.anchor, s."interval", s.change_time
FROM unnest(CAST(:ids AS text[]), CAST(:versions AS bigint[]), CAST(:hashes AS bytea[]), CAST(:statuses AS text[]),
            CAST(:anchors AS timestamptz[]), CAST(:intervals AS text[]), CAST(:change_times AS timestamptz[]))
     AS s (id, version, hash, status, anchor, "interval", change_time)
JOIN plan p ON p.hash = s.hash
ORDER BY s.id COLLATE "C"
ON CONFLICT (id) DO UPDATE SET
    version = excluded.version, plan_id = excluded.plan_id, status = excluded.status, anchor = excluded.anchor,
    "interval" = excluded."interval", change_time = excluded.change_time, rev = account.rev + 1
WHERE account.version < excluded.version
""")
_PLANS = text("""
INSERT INTO plan (hash, data)
SELECT p.hash, p.data FROM unnest(CAST(:hashes AS bytea[]), CAST(:data AS bytea[])) AS p (hash, data)
WHERE NOT EXISTS (SELECT FROM plan WHERE plan.hash = p.hash)
ORDER BY p.hash ON CONFLICT DO NOTHING
""")
_GET = text("""
SELECT a.version, a.plan_id, a.anchor, a."interval", a.counters::text, a.terms::text, clock_timestamp()
FROM account a WHERE a.id = :id
""")
_RATES = text("SELECT name, key_id, log FROM bucket WHERE account_id = :id AND key_id IN ('', :key_id)")
# Those that live, by the time they were acquired and their id. :at NULL: by the clock that decisions go by, in which
# :offset is what local mode adds.
_LEASES = text("""
SELECT id, account_id, meter, reserved, acquire_time, expire_time, key_id FROM lease
WHERE account_id = :id
  AND expire_time > coalesce(CAST(:at AS timestamptz), clock_timestamp() + CAST(:offset AS interval))
  AND (:meter = '' OR meter = :meter)
  AND (CAST(:after_time AS timestamptz) IS NULL OR (acquire_time, id) > (:after_time, :after_id))
ORDER BY acquire_time, id LIMIT :limit
""")
_PUT_SWITCH = text("""
INSERT INTO kill_switch AS k (meter, enabled, reason, change_time)
SELECT s.meter, s.enabled, s.reason, s.change_time
FROM (VALUES (:meter, CAST(:enabled AS boolean), :reason, CAST(:change_time AS timestamptz)))
     AS s (meter, enabled, reason, change_time)
WHERE s.enabled OR EXISTS (SELECT FROM kill_switch t WHERE t.meter = s.meter)
ON CONFLICT (meter) DO UPDATE SET
    enabled = excluded.enabled, reason = excluded.reason, change_time = excluded.change_time
WHERE (k.enabled, k.reason) IS DISTINCT FROM (excluded.enabled, excluded.reason)
""")
_PLACE = text("SELECT token FROM place WHERE name = :name")
_KEYS = text("SELECT hash, account_id, key_id, kind, end_time FROM api_key WHERE hash = ANY (CAST(:hashes AS bytea[]))")
# A key's owner and kind never change, and its end only comes nearer: so events may arrive in any order.
_ADD_KEYS = text("""
INSERT INTO api_key AS k (hash, account_id, key_id, kind, end_time)
SELECT * FROM unnest(CAST(:hashes AS bytea[]), CAST(:accounts AS text[]), CAST(:ids AS text[]), CAST(:kinds AS text[]),
                     CAST(:ends AS timestamptz[])) AS n (hash, account_id, key_id, kind, end_time)
ORDER BY n.hash
ON CONFLICT (hash) DO UPDATE SET end_time = excluded.end_time
WHERE excluded.end_time < coalesce(k.end_time, 'infinity')
""")
_PLAN_IDS = text("SELECT id FROM plan")
_READ_PLANS = text("SELECT id, data FROM plan WHERE id = ANY (CAST(:ids AS bigint[]))")
_KEEP_PLACE = text("INSERT INTO place VALUES (:name, :token) ON CONFLICT (name) DO UPDATE SET token = excluded.token")


class Plans:
    """Plans by id, compiled once: a plan's row never changes. They also tell which meters' uses pass uncounted while
    the store is away, as the newest plan has it that this process has seen: then no account's own can be read.
    """

    MOST = 10_000

    def __init__(self) -> None:
        self._compiled: dict[int, Plan] = {}
        self._passing: dict[str, int] = {}  # meter → id of the newest plan that has it; below 0: it does not pass
        self._rates: dict[str, set[tuple[str, bool]]] = {}

    def passes_when_down(self, meter: str) -> bool:
        return self._passing.get(meter, 0) > 0

    def rates_of(self, meter: str) -> Iterable[tuple[str, bool]]:
        """The rates that some plan has for the meter: by name, and whether they are counted for each API key."""
        return self._rates.get(meter, ())

    def get(self, plan_id: int) -> Plan | None:
        return self._compiled.get(plan_id)

    def add(self, plan_id: int, data: bytes) -> Plan:
        if len(self._compiled) >= self.MOST:
            self._compiled.clear()
            self._rates.clear()
        plan = self._compiled[plan_id] = to_plan(data)
        for meter in plan.meters.values():
            if abs(self._passing.get(meter.name, 0)) < plan_id:
                self._passing[meter.name] = plan_id if meter.on_store_down_allow else -plan_id
        for name, rates in plan.rates_of.items():
            self._rates.setdefault(name, set()).update((each.name, each.per_key) for each in rates)
        return plan


class StoredPlans:
    """Plans as this process compiled them; only those that it has not seen yet are read."""

    def __init__(self, connection: AsyncConnection, plans: Plans) -> None:
        self._connection = connection
        self._plans = plans

    async def read(self, plan_ids: Iterable[int]) -> dict[int, Plan]:
        """Of ids that exist."""
        found = {plan_id: plan for plan_id in plan_ids if (plan := self._plans.get(plan_id)) is not None}
        if missing := [plan_id for plan_id in plan_ids if plan_id not in found]:
            for plan_id, data in await self._connection.execute(_READ_PLANS, {"ids": missing}):
                found[plan_id] = self._plans.add(plan_id, data)
        return found

    async def all(self) -> dict[int, Plan]:
        return await self.read([plan_id for (plan_id,) in await self._connection.execute(_PLAN_IDS)])


class PostgresAccounts:
    def __init__(self, connection: AsyncConnection, plans: StoredPlans, offset: timedelta) -> None:
        self._connection = connection
        self._plans = plans
        self._offset = offset

    async def get(self, account_id: str, key_id: str = "") -> StoredAccount | None:
        row = (await self._connection.execute(_GET, {"id": account_id})).one_or_none()
        if row is None:
            return None
        version, plan_id, anchor, interval, counters, terms, at = row
        at += self._offset
        plan = (await self._plans.read([plan_id]))[plan_id]
        rates = {}
        if plan.rates_of:
            kept = await self._connection.execute(_RATES, {"id": account_id, "key_id": key_id})
            rates = {(name, owner): rate.unpack(log) for name, owner, log in kept}
        leases = await LiveLeases(self._connection, self._offset).list(account_id, at=at)
        return StoredAccount(
            version,
            plan,
            anchor,
            interval,
            orjson.loads(counters),
            at,
            rates,
            {lease.id: lease for lease in leases},
            orjson.loads(terms),
        )

    async def apply(self, snapshots: Iterable[Snapshot]) -> int:
        newest: dict[str, Snapshot] = {}
        for snapshot in snapshots:
            known = newest.get(snapshot.account_id)
            if known is None or known.version < snapshot.version:
                newest[snapshot.account_id] = snapshot
        if not newest:
            return 0
        rows = list(newest.values())
        plans = {row.plan_hash: row.plan for row in rows}
        await self._connection.execute(_PLANS, {"hashes": list(plans), "data": list(plans.values())})
        parameters: dict[str, list[Any]] = {
            "ids": [row.account_id for row in rows],
            "versions": [row.version for row in rows],
            "hashes": [row.plan_hash for row in rows],
            "statuses": [row.status for row in rows],
            "anchors": [row.anchor for row in rows],
            "intervals": [row.interval for row in rows],
            "change_times": [row.change_time for row in rows],
        }
        return int((await self._connection.execute(_APPLY, parameters)).rowcount)


class LiveLeases:
    """Leases that have not expired."""

    def __init__(self, connection: AsyncConnection, offset: timedelta) -> None:
        self._connection = connection
        self._offset = offset

    async def list(
        self,
        account_id: str,
        meter: str = "",
        after: tuple[datetime, str] | None = None,
        limit: int | None = None,
        *,
        at: datetime | None = None,
    ) -> list[Lease]:
        """See ports.Leases. `limit` None: all of them. `at`: business time, else the database's."""
        after_time, after_id = after or (None, "")
        parameters = {
            "id": account_id,
            "at": at,
            "offset": self._offset,
            "meter": meter,
            "after_time": after_time,
            "after_id": after_id,
            "limit": limit,
        }
        return [Lease(*row) for row in await self._connection.execute(_LEASES, parameters)]


class ApiKeys:
    """Who owns a key, by the SHA-256 of the key."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def find(self, hashes: Sequence[bytes]) -> dict[bytes, KeyOwner]:
        """Those that are known here."""
        rows = await self._connection.execute(_KEYS, {"hashes": list(hashes)})
        return {bytes(row[0]): KeyOwner(row[1], row[2], row[3], row[4]) for row in rows}

    async def add(self, owners: Mapping[bytes, KeyOwner]) -> None:
        parameters: dict[str, list[Any]] = {
            "hashes": list(owners),
            "accounts": [owner.account_id for owner in owners.values()],
            "ids": [owner.key_id for owner in owners.values()],
            "kinds": [owner.kind for owner in owners.values()],
            "ends": [owner.end_time for owner in owners.values()],
        }
        await self._connection.execute(_ADD_KEYS, parameters)


class KillSwitches:
    """By meter; `ALL` is the one over every meter. What is not there was never thrown."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def put(self, switch: KillSwitch) -> bool:
        """False: it stands like this already."""
        return bool((await self._connection.execute(_PUT_SWITCH, vars(switch))).rowcount)

    async def list(self) -> list[KillSwitch]:
        rows = await self._connection.execute(text("SELECT meter, enabled, reason, change_time FROM kill_switch"))
        return [KillSwitch(*row) for row in rows]


class Places:
    """How far quota has read what others list."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def get(self, name: str) -> str:
        return (await self._connection.execute(_PLACE, {"name": name})).scalar_one_or_none() or ""

    async def keep(self, name: str, token: str) -> None:
        await self._connection.execute(_KEEP_PLACE, {"name": name, "token": token})


class QuotaUnitOfWork(UnitOfWork):
    """One transaction over quota's tables."""

    accounts: PostgresAccounts
    keys: ApiKeys
    leases: LiveLeases
    places: Places
    plans: StoredPlans
    switches: KillSwitches

    def __init__(
        self,
        engine: AsyncEngine,
        plans: Plans,
        clock: BusinessClock,
        committed: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(engine, committed=committed)
        self._compiled = plans
        self._clock = clock

    def bind(self, connection: AsyncConnection) -> None:
        self.plans = StoredPlans(connection, self._compiled)
        self.accounts = PostgresAccounts(connection, self.plans, self._clock.offset())
        self.keys = ApiKeys(connection)
        self.leases = LiveLeases(connection, self._clock.offset())
        self.places = Places(connection)
        self.switches = KillSwitches(connection)
