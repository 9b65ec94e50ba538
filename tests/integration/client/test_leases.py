"""Leases, reversal and caps of the client against a quota that runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.integration.quota import world
from tollway.billing.v1 import entitlement_pb2
from tollway.client import NotFound, Quota, Refused

METER = "messages"


def entitlements() -> entitlement_pb2.Entitlements:
    """100 messages a month, two at once, and a cap that the account may set."""
    message = world.entitlements("acct_1", limit=100)
    kinds = (
        ("cap", entitlement_pb2.LIMIT_KIND_CAP, None),
        ("slots", entitlement_pb2.LIMIT_KIND_CONCURRENCY, 2),
    )
    for name, kind, most in kinds:
        limit = message.limits.add(name=name, meters=[METER], kind=kind, limit=most)
        limit.refusal.MergeFrom(entitlement_pb2.Refusal(reason=f"{name}_reached", http_status=429, detail="No more."))
        if name == "slots":
            limit.window.FromTimedelta(timedelta(minutes=10))
    return message


@pytest.fixture
async def quota(tmp_path: Path, quota_database: str) -> AsyncIterator[Quota]:
    async with world.tables(quota_database) as engine:
        await world.put(engine, entitlements())
    with world.process(tmp_path, quota_database) as process:
        async with Quota(process.address, timeout_s=20) as client:
            yield client


async def used(quota: Quota) -> int:
    return (await quota.usage("acct_1")).meter(METER).used


async def test_two_places_are_two_places_and_free_again_after_the_blocks(quota: Quota) -> None:
    async with quota.lease("acct_1", METER), quota.lease("acct_1", METER):
        assert len(await quota.leases("acct_1", METER)) == 2
        with pytest.raises(Refused) as caught:
            await quota.lease("acct_1", METER).__aenter__()
        decision = caught.value.decision
        assert (decision.reason, decision.binding_limit, decision.http_status) == ("slots_reached", "slots", 429)
    assert await quota.leases("acct_1") == []
    assert await used(quota) == 2


async def test_a_reserve_counts_while_it_is_held_and_then_what_was_used(quota: Quota) -> None:
    async with quota.lease("acct_1", METER, 0, reserve=90) as lease:
        assert not await quota.consume("acct_1", METER, 20)
        lease.used = 30
    assert await used(quota) == 30
    assert await quota.consume("acct_1", METER, 20)


async def test_a_block_that_fails_gives_the_reserve_back_and_reversal_the_rest(quota: Quota) -> None:
    async def work() -> None:
        async with quota.lease("acct_1", METER, 5, reserve=90, request_id="job-1"):
            raise RuntimeError("the work failed")

    with pytest.raises(RuntimeError, match="the work failed"):
        await work()
    assert (await used(quota), await quota.leases("acct_1")) == (5, [])
    taken = await quota.reverse("acct_1", "job-1")
    assert (taken.meter, taken.amount, taken.replayed) == (METER, 5, False)
    assert (await quota.reverse("acct_1", "job-1")).replayed
    assert await used(quota) == 0
    with pytest.raises(NotFound) as caught:
        await quota.reverse("acct_1", "job-2")
    assert caught.value.reason == "GRANT_NOT_FOUND"


async def test_a_lease_of_a_second_outlives_it_while_its_block_runs(quota: Quota) -> None:
    async with quota.lease("acct_1", METER, duration=timedelta(seconds=1)) as lease:
        first = lease.lease.expires_at
        async with asyncio.timeout(20):
            while lease.lease.expires_at < first + timedelta(seconds=1):  # noqa: ASYNC110 - renewed by the clock
                await asyncio.sleep(0.05)
        assert [each.id for each in await quota.leases("acct_1")] == [lease.id]
    assert await quota.leases("acct_1") == []


async def test_a_lease_that_somebody_else_released_is_lost(quota: Quota) -> None:
    async with quota.lease("acct_1", METER, duration=timedelta(seconds=1)) as lease:
        await quota.release("acct_1", lease.id)
        await asyncio.wait_for(lease.lost.wait(), 20)


async def test_a_cap_stops_and_its_removal_lets_go_on(quota: Quota) -> None:
    cap = await quota.set_cap("acct_1", METER, 1)
    assert (cap.kind, cap.limit, cap.auto_stop) == ("cap", 1, True)
    assert await quota.consume("acct_1", METER)
    stopped = await quota.consume("acct_1", METER)
    assert (bool(stopped), stopped.reason) == (False, "cap_reached")
    assert (await quota.set_cap("acct_1", METER, None)).limit is None
    assert await quota.consume("acct_1", METER)
