"""The whole process: gRPC in front, PostgreSQL behind, NATS and billing beside it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sqlalchemy import text

from services.kit.config import Settings
from services.kit.errors import TollwayError
from services.kit.outbox import Envelope
from services.kit.rpc import Link
from services.kit.stream import Stream
from tests.integration.quota import world
from tollway.billing.v1 import events_pb2
from tollway.quota.v1 import quota_pb2, quota_pb2_grpc


async def test_it_serves_while_nats_and_billing_are_away(tmp_path: Path, database: str) -> None:
    async with world.tables(database) as engine:
        await world.put(engine, world.entitlements("acct_a", limit=5))
    with world.process(tmp_path, database) as quota:
        async with world.client(quota.address) as stub:
            assert (await world.consume(stub, "acct_a")).allowed
            async with grpc.aio.insecure_channel(quota.address) as channel:
                health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
            assert health.status == health_pb2.HealthCheckResponse.SERVING


async def test_of_200_parallel_calls_with_10_left_exactly_10_pass(tmp_path: Path, database: str) -> None:
    async with world.tables(database) as engine:
        await world.put(engine, world.entitlements("acct_a", limit=10))
        with world.process(tmp_path, database) as one, world.process(tmp_path, database) as two:
            async with world.client(one.address) as first, world.client(two.address) as second:
                decisions = await asyncio.gather(
                    *(world.consume((first, second)[n % 2], "acct_a", request_id=f"r{n}") for n in range(200))
                )
        assert sum(decision.allowed for decision in decisions) == 10
        refused = next(decision for decision in decisions if not decision.allowed)
        assert refused.binding_limit == "messages"
        assert (refused.refusal.reason, refused.refusal.http_status) == ("message_quota_exceeded", 402)
        assert refused.refusal.billing_url == "https://pay.example/billing"
        assert (refused.limits[0].used, refused.limits[0].limit, refused.limits[0].remaining) == (10, 10, 0)
        async with engine.connect() as connection:
            ledger = (await connection.execute(text("SELECT sum(amount) FROM idem"))).scalar()
            month = (await connection.execute(text("SELECT used FROM counter WHERE period = 'month'"))).scalar()
        assert ledger == month == 10


async def test_an_event_lifts_the_limit_and_keeps_the_usage(tmp_path: Path, database: str, nats_url: str) -> None:
    account = f"acct_{tmp_path.name}"
    stream = Stream(nats_url, name="test")
    stream.start()

    async def publish(version: int, tier: str, limit: int) -> None:
        message = events_pb2.EntitlementsChanged(
            entitlements=world.entitlements(account, version=version, tier=tier, limit=limit)
        )
        envelope = Envelope.of(message, account)
        await stream.publish(envelope.subject, envelope.data, envelope.headers())

    with world.process(tmp_path, database, nats_url=nats_url) as quota:
        async with world.client(quota.address) as stub:
            usage = quota_pb2.GetUsageRequest(account_id=account)

            async def tier_is(tier: str) -> quota_pb2.GetUsageResponse:
                async with asyncio.timeout(10):
                    while True:
                        # Until the event is here the account is unknown, and billing is away.
                        with contextlib.suppress(grpc.aio.AioRpcError):
                            answer = await stub.GetUsage(usage)
                            if answer.tier == tier:
                                return answer

            await publish(1, "free", 2)
            await tier_is("free")
            assert [(await world.consume(stub, account)).allowed for _ in range(3)] == [True, True, False]
            await publish(3, "pro", 10)
            answer = await tier_is("pro")
            assert (answer.meters[0].used, answer.meters[0].limit, answer.meters[0].remaining) == (2, 10, 8)
            await publish(2, "free", 2)  # late: an older version
            await publish(4, "pro", 11)
            async with asyncio.timeout(10):
                while (await stub.GetUsage(usage)).version != 4:
                    pass
            assert (await world.consume(stub, account)).limits[0].used == 3
    await stream.close()


async def test_a_new_account_is_read_from_billing_and_an_absent_one_is_not_found(tmp_path: Path, database: str) -> None:
    billing = world.Billing([world.entitlements("acct_new", limit=5)])
    async with world.billing_server(billing) as address:
        with world.process(tmp_path, database, billing=address) as quota:
            async with world.client(quota.address) as stub:
                assert (await world.consume(stub, "acct_new")).limits[0].used == 1
                for _ in range(3):
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await world.consume(stub, "acct_absent")
                    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert sum("acct_absent" in ids for ids in billing.asked) == 1  # the answer is believed for 5 s


async def test_a_moved_clock_rolls_the_month_over_and_keys_stay_known(tmp_path: Path, database: str) -> None:
    async with world.tables(database) as engine:
        await world.put(engine, world.entitlements("acct_a", limit=2))
    with world.process(tmp_path, database) as quota:
        async with world.client(quota.address) as stub:
            assert (await world.consume(stub, "acct_a", 2, "k")).allowed
            assert not (await world.consume(stub, "acct_a")).allowed
            moved = tmp_path / "clock.new"
            moved.write_text(str(35 * 86400))
            moved.rename(tmp_path / "clock")
            decision = await world.consume(stub, "acct_a")
            assert decision.allowed
            assert decision.limits[0].used == 1
            usage = await stub.GetUsage(quota_pb2.GetUsageRequest(account_id="acct_a"))
            assert usage.meters[0].used == 1
            # A retry is a matter of the wall clock: it finds its answer whatever the business date is.
            assert (await world.consume(stub, "acct_a", 2, "k")).replayed


async def test_errors_carry_reason_and_field_over_the_wire(tmp_path: Path, database: str) -> None:
    billing = world.Billing()
    async with world.tables(database) as engine:
        await world.put(engine, world.entitlements("acct_a"))
    async with world.billing_server(billing) as address:
        with world.process(tmp_path, database, billing=address) as quota:
            link = Link(quota.address, Settings(local=True))
            stub = quota_pb2_grpc.QuotaServiceStub(link.channel)
            async with asyncio.timeout(20):
                while not await link.healthy():
                    pass

            async def fault(**fields: object) -> tuple[str, str, str]:
                request = quota_pb2.ConsumeRequest(
                    **({"account_id": "acct_a", "meter": "messages", "amount": 1} | fields)  # type: ignore[arg-type]
                )
                with pytest.raises(TollwayError) as caught:
                    await link.call(stub.Consume, request)
                return caught.value.code, caught.value.error_reason, caught.value.field

            assert await fault(amount=0) == ("INVALID_ARGUMENT", "INVALID_ARGUMENT", "amount")
            assert await fault(meter="nonsense") == ("INVALID_ARGUMENT", "UNKNOWN_METER", "meter")
            assert await fault(account_id="acct_x") == ("NOT_FOUND", "ACCOUNT_NOT_FOUND", "account_id")
            await link.call(
                stub.Consume, quota_pb2.ConsumeRequest(account_id="acct_a", meter="messages", amount=1, request_id="k")
            )
            assert await fault(amount=2, request_id="k") == ("ALREADY_EXISTS", "IDEMPOTENCY_KEY_REUSED", "request_id")
            await link.close()
