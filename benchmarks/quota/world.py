"""Everything that is measured, running: databases, servers, replicas, Envoys."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import asyncpg
import grpc
import psutil
from google.protobuf.wrappers_pb2 import UInt64Value

from benchmarks import common
from benchmarks.quota import envoy, plans
from benchmarks.quota.payloads import ACCOUNTS, MANY, REPLAYS, first_use, replayed
from benchmarks.quota.servers import POOL, SCHEMA, connect_arguments
from local import ports
from services.billing.domain.api_key import NewKey
from tollway.envoy.ratelimit.v3 import rls_pb2, rls_pb2_grpc
from tollway.quota.v1 import quota_pb2, quota_pb2_grpc

SERVERS = "benchmarks.quota.servers"
_COMMITS = "SELECT coalesce(sum(seq), 0)::bigint FROM lane"
_LEDGER = "SELECT coalesce(sum(amount), 0)::bigint FROM idem"
_COUNTERS = "SELECT coalesce(sum(used), 0)::bigint FROM counter WHERE period = 'month'"


@dataclass
class Database:
    """A database of quota, and how many units those who asked were told that they have; of those whose call failed it
    cannot be told.
    """

    connection: Any
    told: int = 0
    unsure: int = 0

    async def commits(self) -> int:
        return int(await self.connection.fetchval(_COMMITS))

    async def check(self) -> int:
        """The units in the ledger. Raises RuntimeError unless the counters hold as many and callers were told so."""
        lines, units = await self.connection.fetchval(_LEDGER), await self.connection.fetchval(_COUNTERS)
        if lines != units or not self.told <= lines <= self.told + self.unsure:
            raise RuntimeError(f"the ledger has {lines} units, the counters {units}, and callers were told {self.told}")
        return int(lines)


@dataclass
class Target:
    """One server or several that take calls together."""

    ports: tuple[int, ...]
    processes: tuple[psutil.Process, ...]
    metrics: tuple[int, ...] = ()
    database: Database | None = None

    async def know(self, prefix: str) -> None:
        """Asks each server about all accounts whose ids begin so, and counts nothing.

        A service that runs for long knows its busy accounts. Here scenarios with accounts of their own share one, and
        its memory does not hold all of theirs.
        """
        uses = [first_use(prefix, number, dry_run=True) for number in range(ACCOUNTS)]
        for port in self.ports:
            await _ask_all(port, uses)

    async def know_keys(self, keys: Sequence[NewKey]) -> None:
        """The same for API keys."""
        asked = [
            rls_pb2.RateLimitDescriptor(
                entries=[
                    rls_pb2.RateLimitDescriptor.Entry(key="api_key", value=key.secret),
                    rls_pb2.RateLimitDescriptor.Entry(key="meter", value="live_downloads"),
                ],
                hits_addend=UInt64Value(value=0),
            )
            for key in keys
        ]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.ports[0]}") as channel:
            stub = rls_pb2_grpc.RateLimitServiceStub(channel)
            for start in range(0, len(asked), 500):
                request = rls_pb2.RateLimitRequest(domain="tollway", descriptors=asked[start : start + 500])
                await stub.ShouldRateLimit(request, timeout=20, wait_for_ready=True)

    def cpu_s(self) -> float:
        """Processor time that they have used so far."""
        times = [process.cpu_times() for process in self.processes]
        return float(sum(each.user + each.system for each in times))

    def statements(self) -> float:
        """Statements that the lanes have sent so far."""
        return sum(_scrape(port, "tollway_quota_statements_total") for port in self.metrics)


@dataclass
class World:
    """Targets by name: null, kit, naive, quota, two (replicas), many (accounts), envoy_null, envoy_quota."""

    targets: dict[str, Target] = field(default_factory=dict)
    naive_pool: Any = None
    keys: Sequence[NewKey] = ()

    def databases(self) -> list[Database]:
        found = {id(each.database): each.database for each in self.targets.values() if each.database is not None}
        return list(found.values())


@contextlib.asynccontextmanager
async def running(*, many: bool = True) -> AsyncIterator[World]:
    """The world for the length of a block. `many` false: without the large database, which takes a while to fill."""
    names = ["bench_quota", "bench_naive", *(["bench_many"] if many else [])]
    async with AsyncExitStack() as stack:
        dsns = stack.enter_context(common.postgres(*names))
        world = World(naive_pool=await _prepare_naive(dsns[1]))
        stack.push_async_callback(world.naive_pool.close)
        for kind, arguments in (("null", ()), ("kit", ()), ("naive", (dsns[1],))):
            port = ports.reserve()
            world.targets[kind] = Target(
                (port,), (stack.enter_context(common.process(SERVERS, kind, str(port), *arguments)),)
            )
        database = await open_database(stack, dsns[0])
        world.keys = await plans.load(dsns[0], database.connection)
        first = world.targets["quota"] = _service(stack, dsns[0], database)
        second = _service(stack, dsns[0], database)
        world.targets["two"] = Target(
            first.ports + second.ports,
            first.processes + second.processes,
            first.metrics + second.metrics,
            database,
        )
        if many:
            large = await open_database(stack, dsns[2])
            await plans.load(dsns[2], large.connection, many=MANY)
            world.targets["many"] = _service(stack, dsns[2], large)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tollway-bench-")))
        product = stack.enter_context(envoy.product(folder))
        for name in ("null", "quota"):
            behind = world.targets[name]
            public = stack.enter_context(envoy.limited(folder, behind.ports[0], product))
            world.targets[f"envoy_{name}"] = Target((public,), behind.processes, behind.metrics, behind.database)
        for target in world.targets.values():
            for port in target.ports:
                await common.listening(port)
        await _use_up(first)
        await _connect(second, "two_0000000")
        if many:
            await _connect(world.targets["many"], "many_0000000")
        yield world


def serve(stack: AsyncExitStack, dsn: str, **environment: str) -> Target:
    """One more replica of quota, alone: nothing tells it of changes."""
    port, metrics = ports.reserve(), ports.reserve()
    given = {
        "TOLLWAY_LOCAL": "1",
        "TOLLWAY_QUOTA_DSN": dsn,
        "TOLLWAY_QUOTA_PORT": str(port),
        "TOLLWAY_QUOTA_METRICS_PORT": str(metrics),
        "TOLLWAY_NATS_URL": "nats://127.0.0.1:9",
        "TOLLWAY_BILLING_ADDR": "127.0.0.1:9",
        "TOLLWAY_LOG_LEVEL": "warning",
    }
    process = stack.enter_context(common.process("services.quota.main", **given | environment))
    return Target((port,), (process,), (metrics,))


def _service(stack: AsyncExitStack, dsn: str, database: Database) -> Target:
    target = serve(stack, dsn)
    target.database = database
    return target


async def open_database(stack: AsyncExitStack, dsn: str) -> Database:
    """A connection for the length of the stack, beside those of the services."""
    connection = await asyncpg.connect(**connect_arguments(dsn))
    stack.push_async_callback(connection.close)
    return Database(connection)


async def _connect(target: Target, account_id: str) -> None:
    """Has the replica decide something, so that its lane is connected. Counts nothing."""
    request = quota_pb2.ConsumeRequest(account_id=account_id, meter="live_downloads", amount=1, dry_run=True)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{target.ports[0]}") as channel:
        stub = quota_pb2_grpc.QuotaServiceStub(channel)
        for left in range(9, -1, -1):
            try:
                await stub.Consume(request, timeout=20, wait_for_ready=True)
            except grpc.aio.AioRpcError:
                if not left:
                    raise
            else:
                return


async def _use_up(target: Target) -> None:
    """What later calls repeat, what uses up the rate that others are refused by, and a first use of each account."""
    uses = [replayed(number) for number in range(REPLAYS)]
    uses.append(quota_pb2.ConsumeRequest(account_id="no_rate", meter="live_downloads", amount=1, key_id="key_1"))
    for prefix in ("acct_", "envoy_", "full_"):
        uses += [first_use(prefix, number) for number in range(ACCOUNTS)]
    await _ask_all(target.ports[0], uses)
    assert target.database is not None
    target.database.told += len(uses)


async def _ask_all(port: int, uses: Sequence[quota_pb2.ConsumeRequest]) -> None:
    """Raises RuntimeError unless all are allowed."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = quota_pb2_grpc.QuotaServiceStub(channel)
        for start in range(0, len(uses), 500):
            answer = await stub.ConsumeBatch(
                quota_pb2.ConsumeBatchRequest(requests=uses[start : start + 500]), timeout=20, wait_for_ready=True
            )
            if not all(result.decision.allowed for result in answer.results):
                raise RuntimeError("a use of an account that may do everything was refused")


async def _prepare_naive(dsn: str) -> Any:
    pool = await asyncpg.create_pool(**connect_arguments(dsn), min_size=POOL, max_size=POOL)
    await pool.execute(SCHEMA)
    await pool.executemany(
        "INSERT INTO naive VALUES ($1, 'messages', date_trunc('month', now())::date, 0, 1000000000000)",
        [(f"acct_{number:07d}",) for number in range(ACCOUNTS)],
    )
    await pool.execute("VACUUM ANALYZE naive")
    return pool


def _scrape(port: int, name: str) -> float:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
    return 0.0
