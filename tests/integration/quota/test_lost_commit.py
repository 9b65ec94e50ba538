"""COMMIT's answer is lost: what leases and reversals are told when they ask again, and that each counts once.

Uses are in `test_lane`.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from services.quota.domain import (
    Acquire,
    Command,
    Decision,
    LimitState,
    Release,
    Reversal,
    Reverse,
    SetCap,
    Settle,
    Use,
)
from services.quota.errors import LeaseNotFound, StoreUnavailable
from services.quota.lane import Lane
from tests.contract.quota.test_commands import guarded
from tests.integration.quota import lanes, world
from tests.integration.quota import proxy as proxies
from tests.integration.quota.lanes import decided, one, serving
from tests.integration.quota.proxy import COMMIT, Fault, Proxy
from tollway.billing.v1 import entitlement_pb2

FAULTS = [Fault.CUT_AFTER, Fault.CUT_BEFORE, Fault.SILENCE]


def acquire(name: str, key: str) -> Acquire:
    return Acquire("acct_a", "messages", 2, 5, name, timedelta(hours=1), key)


async def strike(
    proxy: Proxy, engine: AsyncEngine, lane: Lane, fault: Fault, command: Command, *, under_locks: bool
) -> object:
    """The outcome of a command whose commit fares as `fault` says."""
    [(lane_id,)] = await lanes.rows(engine, "SELECT id FROM lane")
    proxy.at = COMMIT if under_locks else str(lane_id).encode()
    before, proxy.fault = proxy.struck, fault
    outcome = await one(lane, command)
    assert proxy.struck == before + 1
    return outcome


async def plan_changes(engine: AsyncEngine, version: int) -> entitlement_pb2.Entitlements:
    """What a lane knows of the account is old now, so that it decides under locks."""
    message = guarded("acct_a", quota=None)
    message.version = version
    await world.put(engine, message)
    return message


async def leases(engine: AsyncEngine) -> list[tuple[object, ...]]:
    return await lanes.rows(engine, "SELECT id, reserved FROM lease ORDER BY id")


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("under_locks", [False, True])
async def test_an_acquired_lease_is_one_lease_whoever_asks_again(
    database: str, fault: Fault, under_locks: bool
) -> None:
    async with world.tables(database) as engine, proxies.before(database) as (proxy, dsn):
        await world.put(engine, guarded("acct_a", quota=None))
        async with serving(engine, dsn, patience_s=15.0) as lane, serving(engine, database) as other:
            await decided(lane, Use("acct_a", "messages", 1))
            if under_locks:
                await plan_changes(engine, 2)
            first = await strike(proxy, engine, lane, fault, acquire("lease_1", "k"), under_locks=under_locks)
            assert isinstance(first, Decision)
            assert first.lease is not None
            for asked in (lane, other):
                # As a client's retry comes: the edge has named the lease anew.
                again = await decided(asked, acquire(f"lease_{id(asked)}", "k"))
                assert (again.replayed, again.lease, again.limits) == (True, first.lease, first.limits)
            assert await leases(engine) == [("lease_1", 5)]
            assert not isinstance(await one(other, Release("acct_a", "lease_1")), LeaseNotFound)
        assert await lanes.totals(engine) == (3, 3)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("under_locks", [False, True])
async def test_a_lease_is_settled_once(database: str, fault: Fault, under_locks: bool) -> None:
    async with world.tables(database) as engine, proxies.before(database) as (proxy, dsn):
        await world.put(engine, guarded("acct_a", quota=None))
        async with serving(engine, dsn, patience_s=15.0) as lane, serving(engine, database) as other:
            await decided(lane, acquire("lease_1", "k"))
            if under_locks:
                await plan_changes(engine, 2)
            settle = Settle("acct_a", "lease_1", 4)
            first = await strike(proxy, engine, lane, fault, settle, under_locks=under_locks)
            assert isinstance(first, Decision)
            assert [state.used for state in first.limits] == [6, 6, 0]
            for asked in (lane, other):
                assert isinstance(await one(asked, settle), LeaseNotFound)
            assert await leases(engine) == []
        assert await lanes.totals(engine) == (6, 6)


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_grant_is_taken_back_once(database: str, fault: Fault) -> None:
    async with world.tables(database) as engine, proxies.before(database) as (proxy, dsn):
        await world.put(engine, guarded("acct_a", quota=None))
        async with serving(engine, dsn, patience_s=15.0) as lane, serving(engine, database) as other:
            await decided(lane, Use("acct_a", "messages", 1))
            await decided(lane, acquire("lease_1", "k"))
            first = await strike(proxy, engine, lane, fault, Reverse("acct_a", "k"), under_locks=True)
            assert first == Reversal("messages", 2)
            for asked in (lane, other):
                assert await one(asked, Reverse("acct_a", "k")) == Reversal("messages", 2, replayed=True)
            assert await leases(engine) == []
        assert await lanes.totals(engine) == (1, 1)


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_cap_that_was_set_is_set_and_announced_once(database: str, fault: Fault) -> None:
    async with world.tables(database) as engine, proxies.before(database) as (proxy, dsn):
        await world.put(engine, guarded("acct_a", quota=None))
        async with serving(engine, dsn, patience_s=15.0) as lane, serving(engine, database) as other:
            await decided(lane, Use("acct_a", "messages", 6))
            first = await strike(proxy, engine, lane, fault, SetCap("acct_a", "messages", 5), under_locks=False)
            assert isinstance(first, LimitState)
            assert (first.used, first.limit) == (6, 5)
            for asked in (lane, other):
                assert await one(asked, SetCap("acct_a", "messages", 5)) == first
                assert not (await decided(asked, Use("acct_a", "messages", 1))).allowed
        told = await lanes.rows(engine, "SELECT count(*) FROM outbox WHERE type LIKE '%CapReached'")
        assert told == [(1,)]


async def test_what_grants_nothing_commits_nothing_under_locks_either(database: str) -> None:
    async with world.tables(database) as engine, proxies.before(database) as (proxy, dsn):
        await world.put(engine, guarded("acct_a", quota=3))
        async with serving(engine, dsn, patience_s=15.0) as lane:
            await decided(lane, Use("acct_a", "messages", 3, "k"))
            proxy.at, proxy.fault = COMMIT, Fault.CUT_BEFORE
            for _ in range(3):
                assert (await decided(lane, Use("acct_a", "messages", 3, "k"))).replayed
            assert not (await decided(lane, Use("acct_a", "messages", 1))).allowed
            assert proxy.struck == 0
            assert (await decided(lane, Use("acct_a", "messages", 3, "k"))).replayed
        async with serving(engine, database) as other:  # and no lock is left behind
            assert not (await decided(other, Use("acct_a", "messages", 1))).allowed


async def test_a_caller_whose_time_ends_in_doubt_does_not_hear_that_nothing_was_counted(database: str) -> None:
    async with world.tables(database) as engine, proxies.before(database) as (proxy, dsn):
        await world.put(engine, guarded("acct_a", quota=None))
        async with serving(engine, dsn, patience_s=15.0) as lane:
            await decided(lane, Use("acct_a", "messages", 1))
            [(lane_id,)] = await lanes.rows(engine, "SELECT id FROM lane")
            proxy.at, proxy.fault = str(lane_id).encode(), Fault.SILENCE
            asked = lane.decide([Use("acct_a", "messages", 1, "k")], 1.0)
            async with asyncio.timeout(10):
                while not proxy.struck:  # noqa: ASYNC110 - the proxy announces to nobody that it has struck
                    await asyncio.sleep(0.01)
            proxy.delay_s = 2.5  # finding out takes its time
            [told] = await asked
            assert isinstance(told, StoreUnavailable)
            proxy.delay_s = 0.0
            assert (await decided(lane, Use("acct_a", "messages", 1, "k"))).replayed
        assert await lanes.totals(engine) == (2, 2)
