"""What quota is compared with, each as a process: `python -m benchmarks.quota.servers null|kit|naive PORT [DSN]`.

null: an empty RPC of the same messages on grpc.aio with the kit's server options and nothing around it; and an empty
rate limit service for Envoy.
kit: the same behind the kit's boundary (token, errors, deadlines, metrics).
naive: the usual way, one UPDATE per request over a pool of 32 connections; no idempotency key, no ledger.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import grpc
from sqlalchemy.engine import make_url

from services.kit import process, rpc
from services.kit.config import Settings
from tollway.envoy.ratelimit.v3 import rls_pb2, rls_pb2_grpc
from tollway.quota.v1 import quota_pb2, quota_pb2_grpc

POOL = 32
FULL_NAME = "tollway.quota.v1.QuotaService"
SCHEMA = """
CREATE TABLE naive (
    account_id text, meter text, period date, used bigint NOT NULL, lim bigint NOT NULL,
    PRIMARY KEY (account_id, meter, period)
) WITH (fillfactor = 50)
"""
UPDATE = """
UPDATE naive SET used = used + $3
WHERE account_id = $1 AND meter = $2 AND period = date_trunc('month', now())::date AND used + $3 <= lim
RETURNING used, lim
"""


class Null(quota_pb2_grpc.QuotaServiceServicer):
    """Answers at once what a grant looks like."""

    def __init__(self) -> None:
        limit = quota_pb2.LimitState(name="messages", used=1, limit=10**12, remaining=10**12 - 1)
        self._answer = quota_pb2.ConsumeResponse(
            decision=quota_pb2.Decision(allowed=True, limits=[limit], tier="free", version=1)
        )

    async def Consume(self, request: quota_pb2.ConsumeRequest, context: Any) -> quota_pb2.ConsumeResponse:  # noqa: N802
        return self._answer

    async def ConsumeBatch(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError

    async def Reverse(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError

    async def GetUsage(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError


class NullLimits(rls_pb2_grpc.RateLimitServiceServicer):
    async def ShouldRateLimit(self, request: rls_pb2.RateLimitRequest, context: Any) -> rls_pb2.RateLimitResponse:  # noqa: N802
        return rls_pb2.RateLimitResponse(
            overall_code=rls_pb2.RateLimitResponse.OK,
            statuses=[rls_pb2.RateLimitResponse.DescriptorStatus(code=rls_pb2.RateLimitResponse.OK)],
        )


class Naive(Null):
    def __init__(self, pool: Any) -> None:
        super().__init__()
        self._pool = pool

    async def Consume(self, request: quota_pb2.ConsumeRequest, context: Any) -> quota_pb2.ConsumeResponse:  # noqa: N802
        row = await self._pool.fetchrow(UPDATE, request.account_id, request.meter, request.amount)
        used, limit = row or (0, 0)
        state = quota_pb2.LimitState(name="messages", used=used, limit=limit, remaining=limit - used)
        return quota_pb2.ConsumeResponse(
            decision=quota_pb2.Decision(allowed=row is not None, limits=[state], tier="free", version=1)
        )


def connect_arguments(dsn: str) -> dict[str, Any]:
    url = make_url(dsn)
    return dict(url.get_dialect()().create_connect_args(url)[1])


def main() -> None:
    kind, port = sys.argv[1], int(sys.argv[2])
    settings = Settings(local=True)

    @asynccontextmanager
    async def service(_: process.Tasks) -> AsyncIterator[None]:
        pool = None
        if kind == "naive":
            pool = await asyncpg.create_pool(**connect_arguments(sys.argv[3]), min_size=POOL, max_size=POOL)
        servicer = Null() if pool is None else Naive(pool)
        server = rpc.Server(settings, port)
        bare = grpc.aio.server(options=rpc.OPTIONS)
        if kind == "kit":
            server.add(quota_pb2_grpc.add_QuotaServiceServicer_to_server, servicer, FULL_NAME)
            await server.start()
        else:
            quota_pb2_grpc.add_QuotaServiceServicer_to_server(servicer, bare)
            rls_pb2_grpc.add_RateLimitServiceServicer_to_server(NullLimits(), bare)
            bare.add_insecure_port(f"127.0.0.1:{port}")
            await bare.start()
        try:
            yield
        finally:
            await (server.stop() if kind == "kit" else bare.stop(0))
            if pool is not None:
                await pool.close()

    process.run(service)


if __name__ == "__main__":
    main()
