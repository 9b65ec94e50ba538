"""What the quota tests stand on: plans as billing sends them, a billing that answers, and the service as a process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from sqlalchemy.ext.asyncio import AsyncEngine

from local import ports
from services.kit.clock import BusinessClock
from services.kit.database import create_engine
from services.quota.events import to_snapshot
from services.quota.main import prepare
from services.quota.storage import Plans, QuotaUnitOfWork
from tollway.billing.v1 import entitlement_pb2, entitlement_pb2_grpc
from tollway.quota.v1 import quota_pb2, quota_pb2_grpc


def entitlements(
    account_id: str,
    *,
    version: int = 1,
    tier: str = "free",
    limit: int | None = 100,
    burst: int | None = None,
    per_key: int | None = None,
    window_s: int = 60,
) -> entitlement_pb2.Entitlements:
    """A plan with the meter `messages`, limited by the calendar month, and at most `burst` in any window."""
    message = entitlement_pb2.Entitlements(
        account_id=account_id,
        version=version,
        tier=tier,
        meters=[entitlement_pb2.Meter(name="messages")],
        limits=[
            entitlement_pb2.Limit(
                name="messages",
                meters=["messages"],
                kind=entitlement_pb2.LIMIT_KIND_QUOTA,
                limit=limit,
                period=entitlement_pb2.PERIOD_MONTH,
                refusal=entitlement_pb2.Refusal(
                    reason="message_quota_exceeded", http_status=402, detail="The month's messages are used up."
                ),
            )
        ],
        billing_url="https://pay.example/billing",
        support_contact="mailto:help@example.com",
    )
    scopes = {
        "burst": (burst, entitlement_pb2.RATE_SCOPE_ACCOUNT),
        "per_key": (per_key, entitlement_pb2.RATE_SCOPE_KEY),
    }
    for name, (most, scope) in scopes.items():
        if most is not None:
            rate = message.limits.add(
                name=name, meters=["messages"], kind=entitlement_pb2.LIMIT_KIND_RATE, limit=most, scope=scope
            )
            rate.window.FromSeconds(window_s)
            rate.refusal.MergeFrom(entitlement_pb2.Refusal(reason="too_fast", http_status=429, detail="Slow down."))
    return message


@dataclass
class Billing(entitlement_pb2_grpc.EntitlementServiceServicer):
    """Billing's EntitlementService over a list; it remembers what it was asked."""

    accounts: list[entitlement_pb2.Entitlements] = field(default_factory=list)
    asked: list[list[str]] = field(default_factory=list)
    gate: asyncio.Event | None = None  # when set, answers wait for it

    async def BatchGetEntitlements(  # noqa: N802
        self, request: entitlement_pb2.BatchGetEntitlementsRequest, context: object
    ) -> entitlement_pb2.BatchGetEntitlementsResponse:
        self.asked.append(list(request.account_ids))
        if self.gate is not None:
            await self.gate.wait()
        found = {account.account_id: account for account in self.accounts}
        return entitlement_pb2.BatchGetEntitlementsResponse(
            entitlements=[found[name] for name in request.account_ids if name in found]
        )

    async def ListEntitlements(  # noqa: N802
        self, request: entitlement_pb2.ListEntitlementsRequest, context: object
    ) -> entitlement_pb2.ListEntitlementsResponse:
        start = int(request.page_token or 0)
        page = self.accounts[start : start + 2]
        end = start + len(page)
        return entitlement_pb2.ListEntitlementsResponse(
            entitlements=page, next_page_token=str(end), has_more=end < len(self.accounts)
        )


@contextlib.asynccontextmanager
async def billing_server(billing: Billing) -> AsyncIterator[str]:
    server = grpc.aio.server()
    entitlement_pb2_grpc.add_EntitlementServiceServicer_to_server(billing, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


@contextlib.asynccontextmanager
async def tables(dsn: str) -> AsyncIterator[AsyncEngine]:
    """The migrated database, with today's ledger."""
    engine = create_engine(dsn)
    try:
        await prepare(engine)
        yield engine
    finally:
        await engine.dispose()


def unit_of_work(engine: AsyncEngine, clock: BusinessClock | None = None) -> QuotaUnitOfWork:
    return QuotaUnitOfWork(engine, Plans(), clock or BusinessClock())


async def put(engine: AsyncEngine, *accounts: entitlement_pb2.Entitlements) -> int:
    async with unit_of_work(engine) as uow:
        changed = await uow.accounts.apply([to_snapshot(account) for account in accounts])
        await uow.commit()
    return changed


@dataclass
class Process:
    """`python -m services.quota.main`, with its failpoints folder."""

    child: subprocess.Popen[bytes]
    port: int
    failpoints: Path
    log: Path

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def arm(self, failpoint: str, passes: int = 0) -> None:
        (self.failpoints / failpoint).write_text(str(passes))


@contextlib.contextmanager
def process(
    folder: Path, dsn: str, *, nats_url: str = "", billing: str = "", port: int | None = None, metrics: int = 0
) -> Iterator[Process]:
    """The service in a process of its own. Without `nats_url` or `billing` those are away; `metrics` is a port."""
    port = port or ports.reserve()
    failpoints = folder / f"failpoints-{port}"
    failpoints.mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TOLLWAY_")} | {
        "TOLLWAY_LOCAL": "1",
        "TOLLWAY_QUOTA_DSN": dsn,
        "TOLLWAY_QUOTA_PORT": str(port),
        "TOLLWAY_QUOTA_METRICS_PORT": str(metrics),
        "TOLLWAY_NATS_URL": nats_url or f"nats://127.0.0.1:{ports.reserve()}",
        "TOLLWAY_BILLING_ADDR": billing or f"127.0.0.1:{ports.reserve()}",
        "TOLLWAY_CLOCK_FILE": str(folder / "clock"),
        "TOLLWAY_FAILPOINTS": str(failpoints),
    }
    written = folder / f"quota-{port}.log"
    with written.open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "services.quota.main"], env=environment, stdout=log, stderr=log, process_group=0
        )
    try:
        yield Process(child, port, failpoints, written)
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(timeout=15)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


@contextlib.asynccontextmanager
async def client(address: str) -> AsyncIterator[quota_pb2_grpc.QuotaServiceStub]:
    """A stub once the service is there."""
    options = (("grpc.min_reconnect_backoff_ms", 100), ("grpc.initial_reconnect_backoff_ms", 50))
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        await asyncio.wait_for(channel.channel_ready(), 20)
        yield quota_pb2_grpc.QuotaServiceStub(channel)


async def consume(
    stub: quota_pb2_grpc.QuotaServiceStub,
    account_id: str,
    amount: int = 1,
    request_id: str = "",
    *,
    key_id: str = "",
    meter: str = "messages",
    deadline_s: float = 10,
) -> quota_pb2.Decision:
    request = quota_pb2.ConsumeRequest(
        account_id=account_id, meter=meter, amount=amount, request_id=request_id, key_id=key_id
    )
    return (await stub.Consume(request, timeout=deadline_s)).decision
