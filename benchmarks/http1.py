"""A load generator for HTTP/1.1: keep-alive connections with requests made in advance."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from functools import partial
from typing import cast

from benchmarks import common

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items())]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join((*lines, "", "")).encode() + body


class _Connection(asyncio.Protocol):
    """One request at a time; each answer starts the next until `stop_at`."""

    def __init__(self, requests: Callable[[], bytes], count_from: float, stop_at: float) -> None:
        self._requests = requests
        self._count_from, self._stop_at = count_from, stop_at
        self._buffer = b""
        self.latencies: list[float] = []
        self.answered = self.failures = 0
        self.idle = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._send()

    def _send(self) -> None:
        self._began = time.perf_counter()
        self._transport.write(self._requests())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not found or length is None or len(body) < int(length[1]):
            return
        now = time.perf_counter()
        self.answered += 1
        self.failures += not head.startswith(b"HTTP/1.1 200")
        if self._count_from <= now < self._stop_at:
            self.latencies.append(now - self._began)
        self._buffer = b""
        if now < self._stop_at:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.idle.done():
            self.idle.set_result(None)


def _same(protocol: _Connection) -> _Connection:
    return protocol


async def load(
    port: int, requests: Callable[[], bytes], *, in_flight: int, seconds: float, warm_s: float = 0.0
) -> common.Result:
    """Keeps `in_flight` requests under way on 127.0.0.1 and counts the answers after `warm_s`. Any but 200 fails."""
    loop = asyncio.get_running_loop()
    count_from = time.perf_counter() + warm_s
    made = [_Connection(requests, count_from, count_from + seconds) for _ in range(in_flight)]
    await asyncio.gather(*(loop.create_connection(partial(_same, each), "127.0.0.1", port) for each in made))
    await asyncio.gather(*(each.idle for each in made))
    latencies = [latency for each in made for latency in each.latencies]
    return common.Result(
        len(latencies),
        seconds,
        sum(each.failures for each in made),
        latencies,
        answered=sum(each.answered for each in made),
    )
