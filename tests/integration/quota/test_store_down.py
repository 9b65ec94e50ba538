"""PostgreSQL stopped, slow or overrun: bounded waits, the catalog's policy, and a way back without a restart."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import httpx
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text
from structlog.testing import capture_logs

from local import ports
from services.kit.rpc import from_rpc_error
from services.quota.domain import ALL, Acquire, KillSwitch, Use
from services.quota.errors import QueueFull, StoreUnavailable
from tests.integration.quota import lanes, world
from tests.integration.quota import proxy as proxies
from tests.integration.quota.lanes import decided, one, serving, taken
from tests.integration.quota.test_crash import own_postgres, postmaster
from tollway.billing.v1 import entitlement_pb2
from tollway.quota.v1 import quota_pb2, quota_pb2_grpc


def both(account_id: str = "acct_a", **fields: int | None) -> entitlement_pb2.Entitlements:
    """`messages` is refused while the store is away, `pings` passes."""
    message = world.entitlements(account_id, **{"limit": None, **fields})  # type: ignore[arg-type]
    message.meters.add(name="pings", on_store_down=entitlement_pb2.ON_STORE_DOWN_ALLOW)
    return message


def unverified() -> float:
    return REGISTRY.get_sample_value("tollway_quota_unverified_total") or 0.0


@contextlib.asynccontextmanager
async def frozen(folder: Path) -> AsyncIterator[None]:
    """PostgreSQL with all its processes under SIGSTOP."""
    server = postmaster(folder)
    processes = [server, *server.children(recursive=True)]
    for each in processes:
        each.suspend()
    try:
        yield
    finally:
        for each in processes:
            each.resume()


async def test_while_it_is_stopped_deny_is_unavailable_and_allow_passes_and_both_come_back(tmp_path: Path) -> None:
    async with own_postgres(tmp_path) as (_, _, dsn), world.tables(dsn) as engine:
        await world.put(engine, both())
        metrics = ports.reserve()
        with world.process(tmp_path, dsn, metrics=metrics) as quota:
            async with world.client(quota.address) as stub:
                for meter in ("messages", "pings"):
                    assert (await world.consume(stub, "acct_a", meter=meter)).allowed
                async with frozen(tmp_path):
                    await _refused_within(stub, 8.0)
                    # It is known to be away now: nobody waits to hear that.
                    began = time.monotonic()
                    blind = await asyncio.gather(*(world.consume(stub, "acct_a", meter="pings") for _ in range(30)))
                    assert time.monotonic() - began < 1.5
                    await asyncio.gather(*(_refused_within(stub, 8.0) for _ in range(5)))
                assert all(each.allowed and each.unverified and not each.limits for each in blind)
                # The process finds it again by itself, though nobody asks for what has to be counted.
                async with asyncio.timeout(20):
                    while (await world.consume(stub, "acct_a", meter="pings")).unverified:  # noqa: ASYNC110 - a question to another process
                        await asyncio.sleep(0.05)
                assert (await world.consume(stub, "acct_a")).allowed
                async with httpx.AsyncClient(trust_env=False) as client:
                    page = (await client.get(f"http://127.0.0.1:{metrics}/metrics")).text
        lines = [json.loads(line) for line in quota.log.read_text().splitlines() if "lane.unverified" in line]
        told = [line for line in page.splitlines() if line.startswith("tollway_quota_unverified_total ")]
        assert float(told[0].split()[1]) == len(lines) >= 30
        assert {(line["account_id"], line["meter"], line["amount"]) for line in lines} == {("acct_a", "pings", 1)}
        counted, written = await lanes.totals(engine)
        assert counted == written


async def _refused_within(stub: quota_pb2_grpc.QuotaServiceStub, seconds: float) -> None:
    began = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Consume(quota_pb2.ConsumeRequest(account_id="acct_a", meter="messages", amount=1))
    assert time.monotonic() - began < seconds
    error = from_rpc_error(caught.value)
    assert (error.code, error.error_reason) == ("UNAVAILABLE", "STORE_UNAVAILABLE")
    assert error.retry_after is not None
    assert error.retry_after.total_seconds() > 0


async def test_uses_that_pass_blind_do_not_keep_the_store_from_being_found_again(database: str) -> None:
    async with world.tables(database) as engine, proxies.before(database) as (proxy, dsn):
        await world.put(engine, both())
        async with serving(engine, dsn, patience_s=0.5) as lane:
            assert not (await decided(lane, Use("acct_a", "pings", 1))).unverified
            proxy.delay_s = 4.0  # longer than a statement is waited for
            assert (await decided(lane, Use("acct_a", "pings", 1))).unverified
            async with asyncio.timeout(15):
                while True:
                    began = time.monotonic()
                    assert (await decided(lane, Use("acct_a", "pings", 1))).unverified
                    if time.monotonic() - began < 0.1:
                        break  # known to be away
            proxy.delay_s = 0.0
            async with asyncio.timeout(15):
                while (await decided(lane, Use("acct_a", "pings", 1))).unverified:  # noqa: ASYNC110 - a question to the lane
                    await asyncio.sleep(0.02)


async def test_a_slow_store_is_waited_for_as_long_as_callers_have_patience(database: str) -> None:
    async with world.tables(database) as engine, proxies.before(database) as (proxy, dsn):
        await world.put(engine, both(limit=100))
        async with serving(engine, dsn) as lane:
            await decided(lane, Use("acct_a", "messages", 1))
            proxy.delay_s = 0.2
            outcomes = await asyncio.gather(*(decided(lane, Use("acct_a", "messages", 1, f"k{n}")) for n in range(20)))
            assert all(outcome.allowed for outcome in outcomes)
            proxy.delay_s = 6.0
            began = time.monotonic()
            late, blind = await asyncio.gather(
                one(lane, Use("acct_a", "messages", 1, "late")), one(lane, Use("acct_a", "pings", 1))
            )
            assert time.monotonic() - began < 5.0
            assert isinstance(late, StoreUnavailable)
            assert late.retry_after is not None
            assert getattr(blind, "unverified", False)
            proxy.delay_s = 0.0
            async with asyncio.timeout(15):
                while isinstance(await one(lane, Use("acct_a", "messages", 1, "late")), StoreUnavailable):
                    pass
        assert await lanes.rows(engine, "SELECT count(*) FROM idem WHERE key = 'late'") == [(1,)]
        counted, written = await lanes.totals(engine)
        assert counted == written


async def test_a_full_queue_answers_by_the_meters_policy(database: str) -> None:
    async with world.tables(database) as engine:
        await world.put(engine, both())
        async with serving(engine, database, queue=5, patience_s=1.0) as lane, engine.connect() as holder:
            await decided(lane, Use("acct_a", "pings", 1))
            await holder.execute(text("SELECT FROM account FOR UPDATE"))
            waiting = [lane.decide([Use("acct_a", "messages", 1)], 15.0)]
            await taken(lane)
            waiting += [lane.decide([Use("acct_a", "messages", 1)], 15.0) for _ in range(5)]
            before = unverified()
            with capture_logs() as logs:
                blind = await decided(lane, Use("acct_a", "pings", 7, "k7"))
            assert (blind.allowed, blind.unverified) == (True, True)
            assert unverified() - before == 1
            logged = [(line["event"], line["meter"], line["amount"], line["request_id"]) for line in logs]
            assert logged == [("lane.unverified", "pings", 7, "k7")]
            with capture_logs() as logs:  # a dry run would have been counted nowhere
                assert (await decided(lane, Use("acct_a", "pings", 7, dry_run=True))).unverified
            assert (unverified() - before, logs) == (1, [])
            # A lease is a promise: it is never given blind. Nor is a call of which one use must be counted.
            for refused in (
                [Acquire("acct_a", "pings", 0, 0, "lease_1")],
                [Use("acct_a", "pings", 1), Use("acct_a", "messages", 1)],
            ):
                with pytest.raises(QueueFull) as caught:
                    lane.decide(refused, 15.0)
                assert caught.value.retry_after is not None
            await holder.rollback()
            await asyncio.gather(*waiting)
            assert not (await decided(lane, Use("acct_a", "pings", 1))).unverified


@pytest.mark.parametrize("meter", [ALL, "pings"])
async def test_what_a_kill_switch_has_stopped_passes_not_even_blind(database: str, meter: str) -> None:
    async with world.tables(database) as engine:
        await world.put(engine, both())
        async with serving(engine, database, queue=1) as lane, engine.connect() as holder:
            async with world.unit_of_work(engine) as uow:
                await uow.switches.put(KillSwitch(meter, enabled=True, reason="test", change_time=datetime.now(UTC)))
                await uow.commit()
            assert not (await decided(lane, Use("acct_a", "pings", 1))).allowed
            await holder.execute(text("SELECT FROM account FOR UPDATE"))
            waiting = lane.decide([Use("acct_a", "messages", 1)], 15.0)
            await taken(lane)
            behind = lane.decide([Use("acct_a", "messages", 1)], 15.0)
            with pytest.raises(QueueFull):
                lane.decide([Use("acct_a", "pings", 1)], 15.0)
            await holder.rollback()
            await asyncio.gather(waiting, behind)
