"""The two kinds of caller: `light` in this process, and `aio`, which is this module run as a process of its own.

`python -m benchmarks.quota.callers` reads a `Load` as a line of JSON and answers with its result, until its input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import grpc
import uvloop

from benchmarks import common, http2
from benchmarks.quota.payloads import Kind, Payloads

WARM_S = 0.4
DEADLINE_S = 20.0


@dataclass(frozen=True)
class Load:
    """`in_flight` calls at any moment over all ports together, for so many seconds after those that warm up."""

    ports: tuple[int, ...]
    kind: str
    in_flight: int
    seconds: float
    warm_s: float = WARM_S


class Caller(Protocol):
    name: str

    async def run(self, load: Load) -> common.Result: ...


class Light:
    """Frames made ready in advance; see `http2.load`. It reads no answer but those it has to follow up."""

    name = "light"

    def __init__(self) -> None:
        self._payloads = Payloads()

    async def run(self, load: Load) -> common.Result:
        kind = self._payloads.kinds[load.kind]
        follow = None
        if kind.follow is not None:
            make = kind.follow
            follow = http2.Follow(
                kind.follow_path, lambda answer: make(kind.answer.FromString(answer)).SerializeToString()
            )
        each = [
            http2.load(
                port,
                kind.path,
                lambda: kind.make().SerializeToString(),
                in_flight=load.in_flight // len(load.ports),
                seconds=load.seconds,
                warm_s=load.warm_s,
                follow=follow,
            )
            for port in load.ports
        ]
        return _together(await asyncio.gather(*each))


class Aio:
    """One channel per server, as a service has it."""

    name = "aio"

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def run(self, load: Load) -> common.Result:
        sink, source = self._process.stdin, self._process.stdout
        assert sink is not None
        assert source is not None
        sink.write(json.dumps(asdict(load)).encode() + b"\n")
        answer = await source.readline()
        if not answer:
            raise RuntimeError("the caller's process has ended")
        return common.Result(**json.loads(answer))


@contextlib.asynccontextmanager
async def aio() -> AsyncIterator[Aio]:
    """The caller's process for the length of a block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        limit=2**26,  # a line holds every latency
    )
    try:
        yield Aio(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


def _together(results: list[common.Result]) -> common.Result:
    return common.Result(
        sum(result.calls for result in results),
        results[0].seconds,
        sum(result.failures for result in results),
        [latency for result in results for latency in result.latencies],
        answered=sum(result.answered for result in results),
    )


class _Run:
    """One load of the process: who has an answer asks again."""

    def __init__(self, load: Load, kind: Kind) -> None:
        began = time.perf_counter()
        self._kind = kind
        self._count_from = began + load.warm_s
        self._stop_at = self._count_from + load.seconds
        self.result = common.Result(0, load.seconds, 0, [])

    async def call(self, channel: grpc.aio.Channel) -> None:
        kind, result = self._kind, self.result
        ask: Any = channel.unary_unary(
            kind.path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=kind.answer.FromString,
        )
        then: Any = channel.unary_unary(
            kind.follow_path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=kind.follow_answer.FromString,
        )
        while (now := time.perf_counter()) < self._stop_at:
            try:
                answer = await ask(kind.make(), timeout=DEADLINE_S)
                if kind.follow is not None:
                    await then(kind.follow(answer), timeout=DEADLINE_S)
                good = kind.good(answer)
            except grpc.aio.AioRpcError:
                good = False
            done = time.perf_counter()
            result.answered += 1
            result.failures += not good
            if self._count_from <= done < self._stop_at:
                result.calls += 1
                result.latencies.append(done - now)


async def _serve() -> None:
    payloads = Payloads()
    channels: dict[int, Any] = {}
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        load = Load(**json.loads(line))
        for port in load.ports:
            if port not in channels:
                channels[port] = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
                await channels[port].channel_ready()
        run = _Run(load, payloads.kinds[load.kind])
        width = load.in_flight // len(load.ports)
        await asyncio.gather(*(run.call(channels[port]) for port in load.ports for _ in range(width)))
        print(json.dumps(asdict(run.result)), flush=True)
    for channel in channels.values():
        await channel.close()


if __name__ == "__main__":
    uvloop.run(_serve())
