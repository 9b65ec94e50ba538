"""What the gateway itself costs: `python -m benchmarks.gateway [SECONDS]`.

Behind it a billing and a quota that answer at once, so what is measured is HTTP, authentication, validation and
translation. CPU per request is the process's own user and system time divided by the requests it answered: unlike
a rate it hardly depends on what else the machine does. Scenarios take turns, and the median of the rounds is told.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import psutil
import uvloop

from benchmarks import common, http1
from benchmarks.http1 import request
from local import ports

IN_FLIGHT = 16
ROUNDS = 3
KEY = "sk_live_" + "0" * 33
_USE = b'{"meter":"messages","amount":1}'


@dataclass
class Scenario:
    name: str
    port: int
    message: bytes
    process: psutil.Process
    cpu_us: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)

    async def run(self, seconds: float, *, count: bool = True) -> None:
        before = self.process.cpu_times()
        result = await http1.load(self.port, lambda: self.message, in_flight=IN_FLIGHT, seconds=seconds)
        after = self.process.cpu_times()
        if result.failures:
            raise RuntimeError(f"{self.name}: not every answer was 200")
        if not count:
            return
        if not result.calls:
            raise RuntimeError(f"{self.name}: no answer within {seconds:g} s")
        spent = (after.user + after.system) - (before.user + before.system)
        self.cpu_us.append(spent / result.answered * 1e6)
        self.rates.append(result.rate)
        self.p50_ms.append(result.percentile_ms(50))
        self.p99_ms.append(result.percentile_ms(99))


async def _measure(seconds: float) -> dict[str, Any]:
    with ExitStack() as stack:
        state = stack.enter_context(tempfile.TemporaryDirectory(prefix="tollway-bench-"))
        backend, gateway, *bare = (ports.reserve() for _ in range(5))
        servers = "benchmarks.gateway_servers"
        stack.enter_context(common.process(servers, "backend", str(backend)))
        await common.listening(backend)
        plain = [
            stack.enter_context(common.process(servers, "bare", str(port), str(backend), str(calls)))
            for calls, port in enumerate(bare)
        ]
        address = f"127.0.0.1:{backend}"
        ours = stack.enter_context(
            common.process(
                "gateway.main",
                TOLLWAY_LOCAL="1",
                TOLLWAY_STATE=state,
                TOLLWAY_GATEWAY_PORT=str(gateway),
                TOLLWAY_BILLING_ADDR=address,
                TOLLWAY_QUOTA_ADDR=address,
            )
        )
        for port in (gateway, *bare):
            await common.listening(port)
        use = request("POST", "/v1/usage", _USE, Authorization=f"Bearer {KEY}")
        scenarios = [
            Scenario("bare ASGI answer", bare[0], request("GET", "/"), plain[0]),
            Scenario("bare ASGI + 1 bare gRPC call", bare[1], request("GET", "/"), plain[1]),
            Scenario("bare ASGI + 2 bare gRPC calls", bare[2], request("GET", "/"), plain[2]),
            Scenario("gateway GET /healthz", gateway, request("GET", "/healthz"), ours),
            Scenario("gateway POST /v1/usage (2 calls)", gateway, use, ours),
        ]
        for scenario in scenarios:
            await scenario.run(seconds / 4, count=False)
        for _ in range(ROUNDS):
            for scenario in scenarios:
                await scenario.run(seconds)
        rows = {
            scenario.name: {
                "cpu_us": round(statistics.median(scenario.cpu_us), 1),
                "per_second": round(statistics.median(scenario.rates)),
                "p50_ms": round(statistics.median(scenario.p50_ms), 2),
                "p99_ms": round(statistics.median(scenario.p99_ms), 2),
            }
            for scenario in scenarios
        }
        cpu = [row["cpu_us"] for row in rows.values()]
        return {
            "scenarios": rows,
            # What authentication, validation, translation, logs and metrics add to the bare work they need.
            "own_cpu_us_per_use": round(cpu[4] - cpu[2], 1),
            "grpc_call_cpu_us": round((cpu[2] - cpu[0]) / 2, 1),
            "rss_mb": round(ours.memory_info().rss / 2**20, 1),
            "in_flight": IN_FLIGHT,
        }


def measure(seconds: float = 3.0) -> dict[str, Any]:
    """CPU microseconds per request by scenario, rates, latencies in milliseconds, RSS in MB."""
    return uvloop.run(_measure(seconds))


def report(numbers: dict[str, Any]) -> str:
    rows = [("gateway", "CPU µs/request", "requests/s", "p50 ms", "p99 ms")]
    rows += [
        (name, f"{row['cpu_us']:.0f}", f"{row['per_second']}", f"{row['p50_ms']:.2f}", f"{row['p99_ms']:.2f}")
        for name, row in numbers["scenarios"].items()
    ]
    title = f"The gateway's own cost, {numbers['in_flight']} requests in flight"
    own = f"own CPU per use: {numbers['own_cpu_us_per_use']:.0f} µs; RSS {numbers['rss_mb']:.0f} MB"
    return f"{common.table(title, rows)}\n{own}"


def main() -> None:
    print(report(measure(float(sys.argv[1]) if len(sys.argv) > 1 else 3.0)))


if __name__ == "__main__":
    main()
