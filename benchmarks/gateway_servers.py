"""What the gateway is measured against: `python -m benchmarks.gateway_servers backend|bare PORT [BACKEND_PORT CALLS]`.

`backend`: billing and quota that answer at once with what is made ready. `bare`: an ASGI application that answers a
constant after CALLS bare gRPC calls to the backend, on the same HTTP server as the gateway.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc
import uvicorn
import uvloop

from services.kit.config import Settings
from services.kit.rpc import Server
from tollway.billing.v1 import account_pb2, auth_pb2
from tollway.billing.v1.auth_pb2_grpc import (
    AuthServiceServicer,
    AuthServiceStub,
    add_AuthServiceServicer_to_server,
)
from tollway.quota.v1 import quota_pb2
from tollway.quota.v1.quota_pb2_grpc import QuotaServiceServicer, add_QuotaServiceServicer_to_server

ACCOUNT = "acct_" + "0" * 32
_PRINCIPAL = auth_pb2.Principal(
    account=account_pb2.Account(id=ACCOUNT, slug="bench", name="Bench", email="bench@example.com"),
    key_id="key_1",
    key_kind="live",
    scopes=["billing", "usage"],
    tier="pro",
    version=1,
)
_DECISION = quota_pb2.Decision(
    allowed=True,
    tier="pro",
    version=1,
    limits=[quota_pb2.LimitState(name="messages_per_month", used=1, limit=1_000_000, remaining=999_999)],
)
_DECISION.limits[0].reset_time.seconds = 4_102_444_800


class Backend(AuthServiceServicer, QuotaServiceServicer):
    async def Authenticate(self, request: Any, context: Any) -> auth_pb2.AuthenticateResponse:  # noqa: N802
        return auth_pb2.AuthenticateResponse(principal=_PRINCIPAL)

    async def Consume(self, request: Any, context: Any) -> quota_pb2.ConsumeResponse:  # noqa: N802
        return quota_pb2.ConsumeResponse(decision=_DECISION)


async def _backend(port: int) -> None:
    server = Server(Settings(local=True), port)
    backend = Backend()  # type: ignore[abstract]  # the other methods are never called
    server.add(add_AuthServiceServicer_to_server, backend, "tollway.billing.v1.AuthService")
    server.add(add_QuotaServiceServicer_to_server, backend, "tollway.quota.v1.QuotaService")
    await server.start()
    await asyncio.Event().wait()


async def _bare(port: int, backend: int, calls: int) -> None:
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{backend}")
    stub = AuthServiceStub(channel)
    request = auth_pb2.AuthenticateRequest(api_key="sk_live_" + "0" * 33)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]

    async def application(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(calls):
            await stub.Authenticate(request)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    config = uvicorn.Config(
        application, port=port, http="h11", ws="none", lifespan="off", log_config=None, access_log=False
    )
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    kind, *numbers = sys.argv[1:]
    uvloop.run((_backend if kind == "backend" else _bare)(*map(int, numbers)))
