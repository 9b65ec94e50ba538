"""Whether a part really answers, asked the way its users ask it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine
from typing import Any

# We start processes while checks run. gRPC's handlers for that serve a child that goes on using gRPC; ours never do.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

Check = Callable[[], Coroutine[Any, Any, bool]]

_TRY_S = 2.0


def http(port: int, path: str) -> Check:
    """200 to `GET path` on 127.0.0.1."""

    async def check() -> bool:
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
        line = await _first_line(port, request.encode())
        return line.split(b" ")[1:2] == [b"200"]

    return check


def smtp(port: int) -> Check:
    """A 220 greeting."""

    async def check() -> bool:
        return (await _first_line(port, b"")).startswith(b"220")

    return check


def grpc_health(port: int) -> Check:
    """SERVING from grpc.health.v1 for the whole server."""

    async def check() -> bool:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=(("grpc.enable_http_proxy", 0),)) as channel:
            try:
                answer = await health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(), timeout=_TRY_S
                )
            except grpc.aio.AioRpcError:
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    return check


def every(*checks: Check) -> Check:
    async def check() -> bool:
        for one in checks:
            if not await one():
                return False
        return True

    return check


async def _first_line(port: int, request: bytes) -> bytes:
    """The first line that the server says, or nothing if it does not."""
    try:
        async with asyncio.timeout(_TRY_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                if request:
                    writer.write(request)
                return await reader.readline()
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError):
        return b""
