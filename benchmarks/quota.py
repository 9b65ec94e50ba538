"""What a durable decision costs: `python -m benchmarks.quota [SECONDS]`.

In one run against one PostgreSQL of its own (fsync on), 64 calls in flight: an empty grpc.aio RPC, one UPDATE per
request (over gRPC, and bare), our Consume with an idempotency key each, spread over 10,000 accounts and on one hot
account, the same without keys, refusals, and batches of 100. Scenarios take turns for several rounds and the median
of each is reported, for other work on the machine would favour whoever ran alone. Each run is checked: the ledger's
lines, the counters and what callers were told must be the same number.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import asyncpg
import psutil
import uvloop

from benchmarks import common
from benchmarks.quota_servers import POOL, SCHEMA, UPDATE, connect_arguments
from local import ports
from services.kit.clock import BusinessClock
from services.kit.database import create_engine
from services.quota.events import to_snapshot
from services.quota.main import prepare
from services.quota.storage import Plans, QuotaUnitOfWork
from tollway.billing.v1 import entitlement_pb2
from tollway.quota.v1 import quota_pb2

ACCOUNTS = 10_000
IN_FLIGHT = 64
BATCH = 100
BATCHES_IN_FLIGHT = 16
CONSUME = "/tollway.quota.v1.QuotaService/Consume"
CONSUME_BATCH = "/tollway.quota.v1.QuotaService/ConsumeBatch"

Run = Callable[[float], Awaitable[common.Result]]


@dataclass
class Scenario:
    name: str
    run: Run
    server: psutil.Process | None = None  # whose processor time is told
    items: int = 1  # decisions per call
    results: list[common.Result] | None = None

    async def measure(self, seconds: float) -> None:
        before = _cpu_s(self.server)
        result = await self.run(seconds)
        result.server_cpu_s = _cpu_s(self.server) - before
        self.results = [*(self.results or []), result]

    def cpu_us(self) -> float:
        """Processor time of the server per decision: what is left when others use the machine too."""
        spent = [r.server_cpu_s / r.answered / self.items for r in self.results or [] if r.answered]
        return min(spent, default=0.0) * 1e6

    def rates(self) -> list[float]:
        return [result.rate * self.items for result in self.results or []]


def _cpu_s(process: psutil.Process | None) -> float:
    if process is None:
        return 0.0
    times = process.cpu_times()
    return float(times.user + times.system)


def account(number: int) -> str:
    return f"acct_{number:06d}"


def entitlements(account_id: str, limit: int) -> entitlement_pb2.Entitlements:
    refusal = entitlement_pb2.Refusal(reason="message_quota_exceeded", http_status=402, detail="Used up.")
    quota = entitlement_pb2.Limit(
        name="messages",
        meters=["messages"],
        kind=entitlement_pb2.LIMIT_KIND_QUOTA,
        limit=limit,
        period=entitlement_pb2.PERIOD_MONTH,
        refusal=refusal,
    )
    return entitlement_pb2.Entitlements(
        account_id=account_id, version=1, tier="pro", meters=[entitlement_pb2.Meter(name="messages")], limits=[quota]
    )


class Payloads:
    """Requests, serialized, with ids that never repeat."""

    def __init__(self) -> None:
        self._ids = itertools.count()
        self._random = random.Random(1)

    def request(self, account_id: str, *, key: bool = True) -> quota_pb2.ConsumeRequest:
        request_id = f"req-{next(self._ids):032d}" if key else ""
        return quota_pb2.ConsumeRequest(account_id=account_id, meter="messages", amount=1, request_id=request_id)

    def spread(self) -> bytes:
        return self.request(account(self._random.randrange(ACCOUNTS))).SerializeToString()

    def hot(self) -> bytes:
        return self.request(account(0)).SerializeToString()

    def without_key(self) -> bytes:
        return self.request(account(self._random.randrange(ACCOUNTS)), key=False).SerializeToString()

    def refused(self) -> bytes:
        return self.request("acct_refused").SerializeToString()

    def batch_spread(self) -> bytes:
        requests = [self.request(account(self._random.randrange(ACCOUNTS))) for _ in range(BATCH)]
        return quota_pb2.ConsumeBatchRequest(requests=requests).SerializeToString()

    def batch_hot(self) -> bytes:
        return quota_pb2.ConsumeBatchRequest(
            requests=[self.request(account(0)) for _ in range(BATCH)]
        ).SerializeToString()


async def _prepare_accounts(dsn: str) -> None:
    engine = create_engine(dsn)
    await prepare(engine)
    snapshots = [to_snapshot(entitlements(account(number), 10**12)) for number in range(ACCOUNTS)]
    snapshots.append(to_snapshot(entitlements("acct_refused", 0)))
    async with QuotaUnitOfWork(engine, Plans(), BusinessClock()) as uow:
        await uow.accounts.apply(snapshots)
        await uow.commit()
    await engine.dispose()
    connection = await asyncpg.connect(**connect_arguments(dsn))
    await connection.execute("VACUUM ANALYZE account")
    await connection.close()


async def _prepare_naive(dsn: str) -> Any:
    pool = await asyncpg.create_pool(**connect_arguments(dsn), min_size=POOL, max_size=POOL)
    await pool.execute(SCHEMA)
    await pool.executemany(
        "INSERT INTO naive VALUES ($1, 'messages', date_trunc('month', now())::date, 0, 1000000000000)",
        [(account(number),) for number in range(ACCOUNTS)],
    )
    await pool.execute("VACUUM ANALYZE naive")
    return pool


async def _naive_bare(pool: Any, seconds: float) -> common.Result:
    """The UPDATE alone, without any RPC: what this PostgreSQL and driver give at 64 in flight."""
    latencies: list[float] = []
    spread = random.Random(2)
    began = time.perf_counter()

    async def caller() -> None:
        while (now := time.perf_counter()) < began + seconds:
            await pool.fetchrow(UPDATE, account(spread.randrange(ACCOUNTS)), "messages", 1)
            latencies.append(time.perf_counter() - now)

    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    return common.Result(len(latencies), time.perf_counter() - began, 0, latencies)


async def _ledger(dsn: str) -> tuple[int, int]:
    """Lines of the ledger, units in the counters."""
    connection = await asyncpg.connect(**connect_arguments(dsn))
    lines = await connection.fetchval("SELECT count(*) FROM idem")
    units = await connection.fetchval("SELECT coalesce(sum(used), 0)::bigint FROM counter WHERE period = 'month'")
    await connection.close()
    return lines, units


async def _commits(dsn: str) -> int:
    connection = await asyncpg.connect(**connect_arguments(dsn))
    await connection.execute("SELECT pg_stat_force_next_flush()")
    total: int = await connection.fetchval("SELECT sum(seq)::bigint FROM lane")
    await connection.close()
    return total


async def _measure(seconds: float, rounds: int) -> dict[str, Any]:
    null_port, kit_port, naive_port, quota_port = (ports.reserve() for _ in range(4))
    with common.postgres("bench_quota", "bench_naive") as (quota_dsn, naive_dsn):
        await _prepare_accounts(quota_dsn)
        pool = await _prepare_naive(naive_dsn)
        settings = {
            "TOLLWAY_LOCAL": "1",
            "TOLLWAY_QUOTA_DSN": quota_dsn,
            "TOLLWAY_QUOTA_PORT": str(quota_port),
            "TOLLWAY_QUOTA_METRICS_PORT": "0",
            "TOLLWAY_NATS_URL": "nats://127.0.0.1:9",
            "TOLLWAY_BILLING_ADDR": "127.0.0.1:9",
            "TOLLWAY_LOG_LEVEL": "warning",
        }
        servers = "benchmarks.quota_servers"
        with (
            common.process(servers, "null", str(null_port)) as null,
            common.process(servers, "kit", str(kit_port)) as kit,
            common.process(servers, "naive", str(naive_port), naive_dsn) as naive,
            common.process("services.quota.main", **settings) as service,
        ):
            for port in (null_port, kit_port, naive_port, quota_port):
                await common.listening(port)
            payloads = Payloads()

            def calls(port: int, payload: Callable[[], bytes], path: str = CONSUME, width: int = IN_FLIGHT) -> Run:
                return lambda length: common.load(port, path, payload, in_flight=width, seconds=length)

            scenarios = [
                Scenario("null_rpc", calls(null_port, payloads.spread), null),
                Scenario("null_rpc_with_boundary", calls(kit_port, payloads.spread), kit),
                Scenario("consume_spread", calls(quota_port, payloads.spread), service),
                Scenario("consume_hot", calls(quota_port, payloads.hot), service),
                Scenario("consume_without_key", calls(quota_port, payloads.without_key), service),
                Scenario("consume_refused", calls(quota_port, payloads.refused), service),
                Scenario("naive_update_rpc", calls(naive_port, payloads.spread), naive),
                Scenario("naive_update_bare", lambda length: _naive_bare(pool, length)),
                Scenario(
                    "batch_spread",
                    calls(quota_port, payloads.batch_spread, CONSUME_BATCH, BATCHES_IN_FLIGHT),
                    service,
                    items=BATCH,
                ),
                Scenario(
                    "batch_hot",
                    calls(quota_port, payloads.batch_hot, CONSUME_BATCH, BATCHES_IN_FLIGHT),
                    service,
                    items=BATCH,
                ),
            ]
            for _ in range(rounds):
                for scenario in scenarios:
                    await scenario.measure(seconds)
            rss = service.memory_info().rss
            commits = await _commits(quota_dsn)
        await pool.close()
        lines, units = await _ledger(quota_dsn)
        if not lines == units:
            raise RuntimeError(f"the ledger has {lines} lines and the counters {units} units")
    return _summary(scenarios, seconds, rounds) | {
        "granted": lines,
        "decisions_per_commit": round(lines / commits, 1) if commits else 0.0,
        "quota_rss_mb": round(rss / 2**20, 1),
    }


def _summary(scenarios: list[Scenario], seconds: float, rounds: int) -> dict[str, Any]:
    base = dict(zip((s.name for s in scenarios), (s.rates() for s in scenarios), strict=True))
    null, naive = base["null_rpc"], base["naive_update_rpc"]
    shown = {}
    for scenario in scenarios:
        rates, results = base[scenario.name], scenario.results or []
        shown[scenario.name] = {
            "per_second": round(statistics.median(rates)),
            "p50_ms": round(statistics.median(result.percentile_ms(50) for result in results), 2),
            "p99_ms": round(statistics.median(result.percentile_ms(99) for result in results), 2),
            # Round by round: both sides of a ratio saw the same machine.
            "of_null": round(statistics.median(a / b for a, b in zip(rates, null, strict=True)), 2),
            "of_naive": round(statistics.median(a / b for a, b in zip(rates, naive, strict=True)), 2),
            "server_cpu_us": round(scenario.cpu_us(), 1),
            "failures": sum(result.failures for result in results),
        }
    return {
        "in_flight": IN_FLIGHT,
        "accounts": ACCOUNTS,
        "batch": BATCH,
        "batches_in_flight": BATCHES_IN_FLIGHT,
        "rounds": rounds,
        "seconds_per_round": seconds,
        "cores": psutil.cpu_count(),
        "scenarios": shown,
    }


def measure(seconds: float = 2.0, rounds: int = 3) -> dict[str, Any]:
    """Rates per second, latencies in milliseconds, ratios to the empty RPC and to one UPDATE per request."""
    return uvloop.run(_measure(seconds, rounds))


def report(numbers: dict[str, Any]) -> str:
    rows = [("quota", "decisions/s", "p50 ms", "p99 ms", "× null", "× naive", "server µs", "failed")]
    for name, cells in numbers["scenarios"].items():
        rows.append(
            (
                name,
                f"{cells['per_second']:,}",
                f"{cells['p50_ms']:.2f}",
                f"{cells['p99_ms']:.2f}",
                f"{cells['of_null']:.2f}",
                f"{cells['of_naive']:.2f}",
                f"{cells['server_cpu_us']:.0f}",
                str(cells["failures"]),
            )
        )
    title = (
        f"{numbers['in_flight']} in flight, {numbers['accounts']:,} accounts, batches of {numbers['batch']} "
        f"({numbers['batches_in_flight']} in flight), {numbers['cores']} cores; null_rpc is bare grpc.aio"
    )
    tail = (
        f"\ngranted {numbers['granted']:,} = ledger = counters; {numbers['decisions_per_commit']} decisions a commit;"
        f" quota's RSS {numbers['quota_rss_mb']} MB"
    )
    return common.table(title, rows) + tail


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    print(report(measure(seconds)))


if __name__ == "__main__":
    main()
