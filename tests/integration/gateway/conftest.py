"""A real gateway on a real port, before fakes of billing and quota on real gRPC servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest
import pytest_asyncio

from gateway.main import serve
from gateway.settings import GatewaySettings
from local import ports
from services.kit.process import Tasks
from services.kit.rpc import Server
from tests.integration.gateway.fakes import Billing, KillSwitches, Quota
from tests.integration.gateway.mails import Notify
from tollway.billing.v1.account_pb2_grpc import add_AccountServiceServicer_to_server
from tollway.billing.v1.auth_pb2_grpc import add_AuthServiceServicer_to_server
from tollway.billing.v1.billing_pb2_grpc import add_BillingServiceServicer_to_server
from tollway.billing.v1.webhook_pb2_grpc import add_WebhookServiceServicer_to_server
from tollway.notify.v1.notify_pb2_grpc import add_NotifyServiceServicer_to_server
from tollway.quota.v1.kill_switch_pb2_grpc import add_KillSwitchServiceServicer_to_server
from tollway.quota.v1.quota_pb2_grpc import add_QuotaServiceServicer_to_server

ISSUER = "https://api.example.com"


@dataclass
class Stack:
    billing: Billing
    quota: Quota
    switches: KillSwitches
    notify: Notify
    http: httpx.AsyncClient
    port: int
    billing_server: Server
    quota_server: Server

    def account(self) -> tuple[str, dict[str, str]]:
        """(account id, headers that authenticate it)."""
        account_id, key = self.billing.new_account()
        return account_id, {"Authorization": f"Bearer {key}"}


@asynccontextmanager
async def standing(**settings: str) -> AsyncIterator[Stack]:
    billing, quota, switches, notify = Billing(ISSUER), Quota(), KillSwitches(), Notify()
    config = GatewaySettings(
        local=True,
        gateway_port=0,
        public_url=ISSUER,
        billing_addr=f"127.0.0.1:{ports.reserve()}",
        quota_addr=f"127.0.0.1:{ports.reserve()}",
        notify_addr=f"127.0.0.1:{ports.reserve()}",
        **settings,
    )
    servers = [
        Server(config, int(addr.rsplit(":", 1)[1]))
        for addr in (config.billing_addr, config.quota_addr, config.notify_addr)
    ]
    prefix = "tollway.billing.v1."
    servers[0].add(add_AccountServiceServicer_to_server, billing, prefix + "AccountService")
    servers[0].add(add_AuthServiceServicer_to_server, billing, prefix + "AuthService")
    servers[0].add(add_BillingServiceServicer_to_server, billing, prefix + "BillingService")
    servers[0].add(add_WebhookServiceServicer_to_server, billing, prefix + "WebhookService")
    servers[1].add(add_QuotaServiceServicer_to_server, quota, "tollway.quota.v1.QuotaService")
    servers[1].add(add_KillSwitchServiceServicer_to_server, switches, "tollway.quota.v1.KillSwitchService")
    servers[2].add(add_NotifyServiceServicer_to_server, notify, "tollway.notify.v1.NotifyService")
    async with AsyncExitStack() as stack:
        for server in servers:
            await server.start()
            stack.push_async_callback(server.stop)
        port = await stack.enter_async_context(serve(config, Tasks()))
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=40))
        yield Stack(billing, quota, switches, notify, http, port, servers[0], servers[1])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Stack]:
    async with standing() as stack:
        yield stack


@pytest.fixture
def stack(shared: Stack) -> Stack:
    """One gateway for a module, with what the fakes hold as new. The gateway itself keeps nothing."""
    shared.billing.__init__(ISSUER, shared.billing.signing)  # type: ignore[misc]
    shared.quota.__init__()  # type: ignore[misc]
    shared.switches.__init__()  # type: ignore[misc]
    return shared


@pytest_asyncio.fixture(loop_scope="module")
async def own() -> AsyncIterator[Stack]:
    """A gateway of the test's own: one that has read no keys yet, or whose services may be stopped."""
    async with standing() as stack:
        yield stack
