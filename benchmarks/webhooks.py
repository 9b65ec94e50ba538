"""A burst of Stripe's webhooks: `python -m benchmarks.webhooks [--count N] [--accounts N]`.

Events that Stripe could have sent, each with an id of its own, arrive at the gateway on 32 connections at once, as many
as the stand-in's deliverer uses. Beside it, in the same run on the same PostgreSQL (fsync on), the bare cost: this
process verifies the same signatures and inserts the same payloads, one transaction each, through as many connections
as billing has. The ratio says what HTTP, two processes and marking the account add; the rounds of both take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import stripe
import uvloop

from benchmarks import common
from benchmarks.latency import Bench
from benchmarks.system import System, running

COUNT, ACCOUNTS, ROUNDS = 1000, 10, 3
IN_FLIGHT = 32
POOL = 10  # billing's connections
WITHIN_S = 120.0

_TABLE = "CREATE TABLE IF NOT EXISTS bare_event (id text PRIMARY KEY, payload bytea NOT NULL)"
_INSERT = "INSERT INTO bare_event VALUES ($1, $2) ON CONFLICT DO NOTHING"


async def _each(work: Iterator[Any], do: Callable[[Any], Awaitable[None]]) -> list[float]:
    """Does it all, one after another; seconds each took."""
    took = []
    for one in work:
        began = time.perf_counter()
        await do(one)
        took.append(time.perf_counter() - began)
    return took


async def _burst(system: System, requests: list[bytes]) -> common.Result:
    """Through the gateway. Raises RuntimeError unless each is answered 200."""
    work = iter(requests)
    began = time.perf_counter()
    took = await asyncio.gather(*(_connection(system.port("gateway"), work) for _ in range(IN_FLIGHT)))
    latencies = [one for each in took for one in each]
    return common.Result(len(requests), time.perf_counter() - began, 0, latencies)


async def _connection(port: int, work: Iterator[bytes]) -> list[float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def send(request: bytes) -> None:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise RuntimeError(f"a webhook was answered {head!r}")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))

    try:
        return await _each(work, send)
    finally:
        writer.close()


async def _bare(pool: asyncpg.Pool[Any], secret: str, requests: list[bytes]) -> common.Result:
    """The same signatures verified and the same payloads stored, with nothing around it."""
    work = iter(requests)

    async def take(request: bytes) -> None:
        head, _, payload = request.partition(b"\r\n\r\n")
        signature = next(line for line in head.decode().split("\r\n") if line.startswith("Stripe-Signature: "))
        stripe.WebhookSignature.verify_header(payload.decode(), signature.partition(": ")[2], secret, 300)
        async with pool.acquire() as connection:
            await connection.execute(_INSERT, uuid.uuid4().hex, payload)

    began = time.perf_counter()
    took = await asyncio.gather(*(_each(work, take) for _ in range(IN_FLIGHT)))
    latencies = [one for each in took for one in each]
    return common.Result(len(requests), time.perf_counter() - began, 0, latencies)


async def _events(bench: Bench, accounts: int) -> list[dict[str, Any]]:
    """One event of each of some accounts that have paid."""
    found = []
    for _ in range(accounts):
        _, session = await bench.customer()
        found.append(next(e for e in await bench.pay(session) if e["type"] == "customer.subscription.created"))
    return found


async def _measure(count: int, accounts: int) -> dict[str, Any]:
    async with running() as system:
        bench = Bench(system)
        await bench.open()
        dsn = system.env["TOLLWAY_BILLING_DSN"].replace("postgresql+asyncpg", "postgresql")
        try:
            async with asyncpg.create_pool(dsn, min_size=POOL, max_size=POOL) as pool:
                await pool.execute(_TABLE)
                return await _rounds(system, bench, pool, count, accounts)
        finally:
            await bench.close()


async def _rounds(system: System, bench: Bench, pool: asyncpg.Pool[Any], count: int, accounts: int) -> dict[str, Any]:
    events = itertools.cycle(await _events(bench, accounts))
    secret = system.env["STRIPE_WEBHOOK_SECRET"]
    bursts: list[common.Result] = []
    bare: list[common.Result] = []
    applied_s, calls = [], []
    for number in range(ROUNDS + 1):
        # The first round warms both up; made just before it is sent, because a signature is good for 5 minutes.
        size = count if number else max(IN_FLIGHT, count // 10)
        made = [bench.signed(next(events) | {"id": f"evt_{uuid.uuid4().hex}"}) for _ in range(size)]
        system.relay.forget()
        began = time.perf_counter()
        burst = await _burst(system, made)
        async with asyncio.timeout(WITHIN_S):
            await bench.quiet()
        took = time.perf_counter() - began
        if await pool.fetchval("SELECT count(*) FROM webhook_event WHERE status = 'pending'"):
            raise RuntimeError("not every event was applied")
        alone = await _bare(pool, secret, made)
        if number:
            bursts.append(burst)
            bare.append(alone)
            applied_s.append(took)
            calls.append(len(system.relay.calls))
    rate, bare_rate = (statistics.median(each.rate for each in some) for some in (bursts, bare))
    return {
        "count": count,
        "accounts": accounts,
        "in_flight": IN_FLIGHT,
        "per_second": round(rate),
        "p50_ms": round(statistics.median(each.percentile_ms(50) for each in bursts), 1),
        "p99_ms": round(statistics.median(each.percentile_ms(99) for each in bursts), 1),
        "bare_per_second": round(bare_rate),
        "ratio": round(rate / bare_rate, 3),
        "applied_s": round(statistics.median(applied_s), 2),  # from the first byte until nothing waits any more
        "calls_to_stripe": round(statistics.median(calls)),
    }


def measure(count: int = COUNT, accounts: int = ACCOUNTS) -> dict[str, Any]:
    """Rates per second, latencies in milliseconds of the answers, and how the rest of the work went."""
    return uvloop.run(_measure(count, accounts))


def report(numbers: dict[str, Any]) -> str:
    return (
        f"{numbers['count']} webhooks, {numbers['in_flight']} at once: {numbers['per_second']}/s, p50"
        f" {numbers['p50_ms']} ms, p99 {numbers['p99_ms']} ms; verify + insert alone {numbers['bare_per_second']}/s:"
        f" ratio {numbers['ratio']}; all applied after {numbers['applied_s']} s with {numbers['calls_to_stripe']} calls"
        " to Stripe"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="A burst of webhooks.")
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--accounts", type=int, default=ACCOUNTS)
    given = parser.parse_args()
    print(report(measure(max(IN_FLIGHT, given.count), max(1, given.accounts))))


if __name__ == "__main__":
    main()
