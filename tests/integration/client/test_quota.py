"""The client against quota as a process of its own, on PostgreSQL."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from local import ports
from services.kit.config import Settings
from services.kit.rpc import Server
from services.quota.grpc_leases import FULL_NAME as LEASES
from services.quota.grpc_server import FULL_NAME
from tests.integration.kit.test_tls import Authority
from tests.integration.quota import world
from tollway.client import Decision, InvalidArgument, KeyReused, NotFound, Quota, Tls, Unauthenticated, Unavailable, Use
from tollway.quota.v1 import lease_pb2, lease_pb2_grpc, quota_pb2_grpc
from tollway.quota.v1 import quota_pb2 as pb

CALLS = 40


@pytest.fixture
async def engine(quota_database: str) -> AsyncIterator[AsyncEngine]:
    async with world.tables(quota_database) as engine:
        await world.put(
            engine,
            world.entitlements("acct_a", limit=5),
            world.entitlements("acct_b", limit=None, tier="pro"),
        )
        yield engine


async def ledger(engine: AsyncEngine) -> tuple[int, int, int]:
    """Units in the counters, units in the ledger, ids in the ledger."""
    async with engine.connect() as connection:
        counted = await connection.execute(text("SELECT coalesce(sum(used), 0) FROM counter WHERE period = 'month'"))
        lines = await connection.execute(text("SELECT coalesce(sum(amount), 0), count(DISTINCT key) FROM idem"))
        units, ids = lines.one()
        return int(counted.scalar_one()), int(units), int(ids)


async def test_the_whole_client_against_a_real_service(
    tmp_path: Path, quota_database: str, engine: AsyncEngine
) -> None:
    billing = world.Billing()
    async with world.billing_server(billing) as address:
        with world.process(tmp_path, quota_database, billing=address) as process:
            # The process is only starting: the first call waits for it.
            async with Quota(process.address, timeout_s=30) as quota:
                first = await quota.consume("acct_a", "messages", 3, request_id="r1")
                assert first
                assert (first.tier, first.version, first.replayed) == ("free", 1, False)
                assert [(state.name, state.used, state.remaining) for state in first.limits] == [("messages", 3, 2)]
                again = await quota.consume("acct_a", "messages", 3, request_id="r1")
                assert again
                assert again.replayed
                with pytest.raises(KeyReused) as reused:
                    await quota.consume("acct_a", "messages", 2, request_id="r1")
                assert reused.value.reason == "IDEMPOTENCY_KEY_REUSED"
                assert await quota.consume("acct_a", "messages", 2, dry_run=True)
                refused = await quota.consume("acct_a", "messages", 3)
                assert not refused
                assert (refused.reason, refused.http_status) == ("message_quota_exceeded", 402)
                assert (refused.binding_limit, refused.billing_url) == ("messages", "https://pay.example/billing")
                assert refused.retry_after is None or refused.retry_after.total_seconds() > 0
                with pytest.raises(NotFound) as stranger:
                    await quota.consume("acct_nobody", "messages")
                assert stranger.value.reason == "ACCOUNT_NOT_FOUND"
                with pytest.raises(InvalidArgument) as unknown:
                    await quota.consume("acct_a", "nonsense")
                assert (unknown.value.reason, unknown.value.field) == ("UNKNOWN_METER", "meter")
                uses = [Use("acct_a", "messages", 2), Use("acct_a", "messages"), Use("acct_nobody", "messages")]
                granted, over, nobody = await quota.consume_batch([*uses])
                assert isinstance(granted, Decision)
                assert granted
                assert isinstance(over, Decision)
                assert not over
                assert isinstance(nobody, NotFound)
                usage = await quota.usage("acct_a")
                assert (usage.tier, usage.meter("messages").used, usage.meter("messages").remaining) == ("free", 5, 0)
                with pytest.raises(NotFound):
                    await quota.usage("acct_nobody")
    assert await ledger(engine) == (5, 5, 2)


async def test_a_service_killed_after_its_commit_and_restarted_counted_every_call_once(
    tmp_path: Path, quota_database: str, engine: AsyncEngine
) -> None:
    with world.process(tmp_path, quota_database) as first:
        async with Quota(first.address, timeout_s=60) as quota:
            assert not (await quota.consume("acct_b", "messages")).replayed
            # It dies between the commit and the answers of one batch: only retries can learn what they were granted.
            first.arm("quota.lane.after_commit")
            calls = [asyncio.create_task(quota.consume("acct_b", "messages")) for _ in range(CALLS)]
            assert await asyncio.to_thread(first.child.wait, 30) == -signal.SIGKILL
            with world.process(tmp_path, quota_database, port=first.port):
                decisions = await asyncio.gather(*calls)
                assert (await quota.usage("acct_b")).meter("messages").used == CALLS + 1
    assert all(decisions)
    assert any(decision.replayed for decision in decisions)
    assert len({decision.request_id for decision in decisions}) == CALLS
    assert await ledger(engine) == (CALLS + 1, CALLS + 1, CALLS + 1)


async def test_where_nobody_listens_the_deadline_is_kept_and_the_error_names_the_id() -> None:
    async with Quota(f"127.0.0.1:{ports.reserve()}", timeout_s=1) as quota:
        began = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            await quota.consume("acct_a", "messages", request_id="r1")
        assert time.monotonic() - began < 2
        assert caught.value.request_id == "r1"


class _Yes:
    async def Consume(self, request: pb.ConsumeRequest, context: object) -> pb.ConsumeResponse:  # noqa: N802
        return pb.ConsumeResponse(decision=pb.Decision(allowed=True))

    ConsumeBatch = GetUsage = Reverse = Consume


class _Silent(_Yes):
    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def Consume(self, request: pb.ConsumeRequest, context: object) -> pb.ConsumeResponse:  # noqa: N802
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    ConsumeBatch = GetUsage = Reverse = Consume


class _Leases:
    """Grants leases of a second and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def Acquire(self, request: lease_pb2.AcquireRequest, context: object) -> lease_pb2.AcquireResponse:  # noqa: N802
        self.asked.append("Acquire")
        lease = pb.Lease(id="lease_1", account_id=request.account_id, meter=request.meter)
        lease.expire_time.FromSeconds(1)
        return lease_pb2.AcquireResponse(decision=pb.Decision(allowed=True, lease=lease))

    async def Renew(self, request: lease_pb2.RenewRequest, context: object) -> lease_pb2.RenewResponse:  # noqa: N802
        self.asked.append("Renew")
        return lease_pb2.RenewResponse()

    async def Release(self, request: lease_pb2.ReleaseRequest, context: object) -> lease_pb2.ReleaseResponse:  # noqa: N802
        self.asked.append("Release")
        return lease_pb2.ReleaseResponse()

    Settle = ListLeases = Release


async def serve(settings: Settings, service: _Yes | None = None, leases: _Leases | None = None) -> Server:
    server = Server(settings, 0)
    server.add(quota_pb2_grpc.add_QuotaServiceServicer_to_server, service or _Yes(), FULL_NAME)
    server.add(lease_pb2_grpc.add_LeaseServiceServicer_to_server, leases or _Leases(), LEASES)
    await server.start()
    return server


async def test_the_token_is_needed_and_enough() -> None:
    server = await serve(Settings(rpc_token="t0ken"))
    try:
        async with Quota(f"127.0.0.1:{server.port}", token="t0ken") as quota:
            assert await quota.consume("acct_a", "messages")
        async with Quota(f"127.0.0.1:{server.port}", token="other") as quota:
            with pytest.raises(Unauthenticated) as caught:
                await quota.consume("acct_a", "messages")
            assert caught.value.reason == "RPC_TOKEN_REQUIRED"
    finally:
        await server.stop()


async def test_mutual_tls_admits_only_certificates_of_the_authority(tmp_path: Path) -> None:
    ours, foreign = Authority(tmp_path, "ours"), Authority(tmp_path, "foreign")
    certificate, key = ours.issue("server")
    mine, my_key = ours.issue("client")
    theirs, their_key = foreign.issue("intruder")
    server = await serve(Settings(tls_ca=ours.pem, tls_cert=certificate, tls_key=key))
    address = f"127.0.0.1:{server.port}"
    try:
        async with Quota(address, tls=Tls(ours.pem, mine, my_key)) as quota:
            assert await quota.consume("acct_a", "messages")
        for tls in (None, Tls(ours.pem), Tls(ours.pem, theirs, their_key), Tls(foreign.pem, mine, my_key)):
            async with Quota(address, tls=tls, timeout_s=0.5) as quota:
                with pytest.raises(Unavailable):
                    await quota.consume("acct_a", "messages")
    finally:
        await server.stop()


async def test_a_client_that_was_closed_connects_anew() -> None:
    server = await serve(Settings(local=True))
    try:
        quota = Quota(f"127.0.0.1:{server.port}")
        for _ in range(2):
            assert await quota.consume("acct_a", "messages")
            await quota.close()
        await quota.close()
    finally:
        await server.stop()


async def test_who_waits_while_the_client_is_closed_hears_that_and_the_id_to_ask_again_with() -> None:
    service = _Silent()
    server = await serve(Settings(local=True), service)
    away = f"127.0.0.1:{ports.reserve()}"
    try:
        for address in (f"127.0.0.1:{server.port}", away):
            quota = Quota(address, timeout_s=20)
            waiting = asyncio.create_task(quota.consume("acct_a", "messages", request_id="r1"))
            batch = asyncio.create_task(quota.consume_batch([Use("acct_a", "messages", request_id="r2")]))
            if address != away:
                await asyncio.wait_for(service.asked.wait(), 10)
            await asyncio.sleep(0.2)  # where nobody listens the calls may be between two attempts
            await quota.close()
            with pytest.raises(Unavailable) as caught:
                await asyncio.wait_for(waiting, 5)
            assert (caught.value.reason, caught.value.request_id) == ("CLOSED", "r1")
            (told,) = await asyncio.wait_for(batch, 5)
            assert isinstance(told, Unavailable)
            assert (told.reason, told.request_id) == ("CLOSED", "r2")
            assert quota._channel is None  # nobody would close it
    finally:
        await server.stop()


async def test_who_is_cancelled_while_it_waits_is_cancelled() -> None:
    service = _Silent()
    server = await serve(Settings(local=True), service)
    try:
        async with Quota(f"127.0.0.1:{server.port}") as quota:
            waiting = asyncio.create_task(quota.consume("acct_a", "messages"))
            await asyncio.wait_for(service.asked.wait(), 10)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
    finally:
        await server.stop()


async def test_a_closed_client_does_not_connect_again_to_renew_and_the_lease_is_lost_in_its_time() -> None:
    leases = _Leases()
    server = await serve(Settings(local=True), leases=leases)
    try:
        quota = Quota(f"127.0.0.1:{server.port}")
        async with quota.lease("acct_a", "messages") as lease:
            await quota.close()
            await asyncio.wait_for(lease.lost.wait(), 10)
            assert quota._channel is None
            assert leases.asked == ["Acquire"]
        assert leases.asked == ["Acquire", "Release"]
        await quota.close()
    finally:
        await server.stop()
