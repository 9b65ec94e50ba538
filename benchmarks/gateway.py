"""What the gateway itself costs: `python -m benchmarks.gateway [SECONDS]`.

Behind it a billing and a quota that answer at once, so what is measured is HTTP, authentication, validation and
translation. CPU per request is the process's own user and system time divided by the requests it answered: unlike
a rate it hardly depends on what else the machine does. Scenarios take turns, and the median of the rounds is told.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import psutil
import uvloop

from benchmarks import common
from local import ports

IN_FLIGHT = 16
ROUNDS = 3
KEY = "sk_live_" + "0" * 33
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_USE = b'{"meter":"messages","amount":1}'


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items())]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join((*lines, "", "")).encode() + body


class _Connection(asyncio.Protocol):
    """One keep-alive connection; each answer starts the next request until `stop_at`."""

    def __init__(self, message: bytes, stop_at: float) -> None:
        self._message = message
        self._stop_at = stop_at
        self._buffer = b""
        self.latencies: list[float] = []
        self.failures = 0
        self.idle = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._send()

    def _send(self) -> None:
        self._began = time.perf_counter()
        self._transport.write(self._message)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not found or length is None or len(body) < int(length[1]):
            return
        now = time.perf_counter()
        self.failures += not head.startswith(b"HTTP/1.1 200")
        self.latencies.append(now - self._began)
        self._buffer = b""
        if now < self._stop_at:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.idle.set_result(None)


def _same(protocol: _Connection) -> _Connection:
    return protocol


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
        before, began = self.process.cpu_times(), time.perf_counter()
        made = [_Connection(self.message, began + seconds) for _ in range(IN_FLIGHT)]
        loop = asyncio.get_running_loop()
        await asyncio.gather(
            *(loop.create_connection(partial(_same, protocol), "127.0.0.1", self.port) for protocol in made)
        )
        await asyncio.gather(*(protocol.idle for protocol in made))
        after, took = self.process.cpu_times(), time.perf_counter() - began
        latencies = [latency for protocol in made for latency in protocol.latencies]
        if any(protocol.failures for protocol in made) or not latencies:
            raise RuntimeError(f"{self.name}: not every answer was 200")
        if not count:
            return
        spent = (after.user + after.system) - (before.user + before.system)
        result = common.Result(len(latencies), took, 0, latencies)
        self.cpu_us.append(spent / len(latencies) * 1e6)
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
