"""Two lanes that both know an account: neither ever decides on what is no longer so, and both get on."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from array import array
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit.clock import BusinessClock
from services.quota.domain import (
    Acquire,
    Decision,
    KillSwitch,
    Kind,
    Release,
    SetCap,
    Settle,
    Unknown,
    Use,
    rate,
    settle,
)
from services.quota.events import to_plan, to_snapshot
from services.quota.known import Known, KnownAccounts, Trust
from services.quota.lane import Lane, new_key
from services.quota.maintenance import make_days
from services.quota.storage import Plans
from services.quota.store import Store
from tests.contract.quota.test_commands import guarded
from tests.integration.quota import lanes, world
from tests.integration.quota.lanes import allowed, decided, one, serving, taken
from tests.integration.quota.test_lane import statements

USE = Use("acct_a", "messages", 1)


async def throw(engine: AsyncEngine, meter: str, enabled: bool) -> None:
    async with world.unit_of_work(engine) as uow:
        await uow.switches.put(KillSwitch(meter, enabled, "test", datetime.now(UTC)))
        await uow.commit()


async def test_what_changes_beside_a_known_account_holds_for_the_very_next_decision_of_both(database: str) -> None:
    async with world.tables(database) as engine:
        await world.put(engine, guarded("acct_a", quota=None))
        async with serving(engine, database) as one_lane, serving(engine, database) as other:

            async def both_say(expected: bool, *, dry_run: bool = False) -> None:
                for lane in (one_lane, other):
                    use = Use("acct_a", "messages", 1, dry_run=dry_run)
                    assert (await decided(lane, use)).allowed is expected

            async def both_know() -> None:
                # A refusal and a dry run change nothing, so that each of the two goes on knowing the account.
                for lane in (one_lane, other) * 10:
                    await decided(lane, Use("acct_a", "messages", 1, dry_run=True))

            await both_know()
            for meter in ("messages", ""):
                await throw(engine, meter, True)
                await both_say(False)
                await both_know()
                await throw(engine, meter, False)
                await both_say(True)
                await both_know()
            used = (await decided(other, Use("acct_a", "messages", 1, dry_run=True))).limits[0].used - 1
            for cap, expected in ((used, False), (used + 2, True), (used + 2, False), (None, True)):
                await one(one_lane, SetCap("acct_a", "messages", cap))
                await both_say(expected)
                await both_know()
            for version, quota in ((2, 0), (3, None), (4, 1)):
                changed = guarded("acct_a", quota=quota)
                changed.version = version
                await world.put(engine, changed)
                await both_say(quota is None)
                await both_know()


async def test_a_lease_settled_by_another_lane_shows_what_its_rates_have_used(database: str) -> None:
    async with world.tables(database) as engine:
        message = guarded("acct_a", quota=None, slots=4)
        message.limits.extend(world.entitlements("acct_a", burst=12, per_key=10).limits[1:])
        await world.put(engine, message)
        async with serving(engine, database) as one_lane, serving(engine, database) as other:
            acquired = Acquire("acct_a", "messages", 1, 3, "lease_1", timedelta(hours=1), key_id="key_1")
            await decided(one_lane, acquired)
            shown = (await decided(other, Settle("acct_a", "lease_1", 2))).limits
    used = {state.name: state.used for state in shown if state.kind is Kind.RATE}
    assert used == {"burst": 1, "per_key": 1}


async def test_a_slot_that_another_lane_freed_is_free_and_one_that_it_took_is_taken(database: str) -> None:
    async with world.tables(database) as engine:
        await world.put(engine, guarded("acct_a", quota=None, slots=1))
        async with serving(engine, database) as one_lane, serving(engine, database) as other:
            for turn in range(30):
                here, there = (one_lane, other) if turn % 2 else (other, one_lane)
                assert (await decided(here, Acquire("acct_a", "messages", 0, 1, f"lease_{turn}"))).allowed
                assert not (await decided(there, Acquire("acct_a", "messages", 0, 1, "late"))).allowed
                await one(there, Release("acct_a", f"lease_{turn}"))
        assert await lanes.rows(engine, "SELECT count(*) FROM lease") == [(0,)]


async def test_a_lease_that_expires_while_its_renewal_waits_is_not_had_twice(database: str) -> None:
    second = timedelta(seconds=1)
    async with world.tables(database) as engine:
        await world.put(engine, guarded("acct_a", quota=None, slots=1))
        async with serving(engine, database) as one_lane, serving(engine, database) as other:
            for turn in range(3):
                first = await decided(one_lane, Acquire("acct_a", "messages", 0, 0, f"lease_{turn}", second))
                assert first.lease is not None
                await decided(other, Use("acct_a", "messages", 1, dry_run=True))
                async with engine.connect() as holder:
                    await holder.execute(text("SELECT FROM account FOR UPDATE"))
                    wanted = asyncio.ensure_future(one(other, Acquire("acct_a", "messages", 0, 0, f"x{turn}", second)))
                    again = asyncio.ensure_future(
                        one(one_lane, Acquire("acct_a", "messages", 0, 0, f"y{turn}", second))
                    )
                    async with asyncio.timeout(5):
                        while datetime.now(UTC) < first.lease.expire_time:  # noqa: ASYNC110 - time alone ends it
                            await asyncio.sleep(0.01)
                    await holder.rollback()
                outcomes = await asyncio.gather(wanted, again)
                granted = [each.lease for each in outcomes if isinstance(each, Decision) and each.lease is not None]
                assert len(granted) <= 1
                for lease in granted:
                    assert lease.acquire_time >= first.lease.expire_time
                    await one(one_lane, Release("acct_a", lease.id))


async def test_a_rate_of_a_key_that_a_lane_has_not_read_is_read(database: str) -> None:
    async with world.tables(database) as engine:
        await world.put(engine, world.entitlements("acct_a", limit=None, burst=100, per_key=5))
        async with serving(engine, database) as one_lane, serving(engine, database) as other:
            # Both know the account; each key is spent by one lane, and asked for again of the other.
            for number in range(10):
                here, there = (one_lane, other) if number % 2 else (other, one_lane)
                spent = [await decided(here, Use("acct_a", "messages", 1, key_id=f"key_{number}")) for _ in range(5)]
                assert allowed(spent) == 5
                assert not (await decided(there, Use("acct_a", "messages", 1, key_id=f"key_{number}"))).allowed
            mixed = [Use("acct_a", "messages", 1, key_id=f"key_{n}") for n in range(8, 14)]
            assert [isinstance(each, Decision) and each.allowed for each in await other.decide(mixed, 10)] == [
                False,
                False,
                True,
                True,
                True,
                True,
            ]


async def test_nothing_that_was_known_before_the_connection_was_lost_is_believed_after_it(database: str) -> None:
    async with world.tables(database) as engine:
        await world.put(engine, guarded("acct_a", quota=None))
        await make_days(engine)
        store = Store(database, Plans(), BusinessClock())

        async def used() -> int:
            opened = await store.open([USE])
            settled = settle([USE], opened, new_key)
            assert await store.save(settled, opened)
            (decision,) = settled.outcomes
            assert isinstance(decision, Decision)
            return decision.limits[0].used

        try:
            assert [await used(), await used()] == [1, 2]
            # As a server has it that took over without the last commits and went on: other counts, the same revision.
            async with engine.begin() as connection:
                await connection.execute(text("UPDATE account SET counters = '{}'"))
            assert await store.connection.recover() is False
            assert await used() == 1
        finally:
            await store.connection.close()


def test_what_is_known_is_trusted_until_it_fails_in_every_second_batch() -> None:
    trust = Trust()

    def after(*held: bool) -> bool:
        for each in held:
            trust.saw(held=each)
        return trust.is_low

    assert not after(*[True, True, True, False] * 20)
    assert after(*[False] * 6)
    assert after(True, False) is True
    assert not after(*[True] * 6)


async def test_an_account_that_is_removed_is_unknown_to_whoever_knew_it(database: str) -> None:
    async with world.tables(database) as engine:
        await world.put(engine, guarded("acct_a", quota=1), guarded("acct_b"))
        async with serving(engine, database) as lane:
            for dry_run in (False, True):
                await decided(lane, Use("acct_a", "messages", 1, dry_run=dry_run))
                async with engine.begin() as connection:
                    await connection.execute(text("DELETE FROM account WHERE id = 'acct_a'"))
                mixed = [Use("acct_a", "messages", 1, dry_run=dry_run), Use("acct_b", "messages", 1)]
                stranger, neighbour = await lane.decide(mixed, 10)
                assert isinstance(stranger, Unknown)
                assert allowed([neighbour]) == 1
                await world.put(engine, guarded("acct_a", quota=1))


async def test_ids_and_keys_of_any_alphabet_are_known_in_one_order(database: str) -> None:
    # By code points here, by bytes there: the same order, or every one of these would look stale.
    names = ["acct_Z", "acct_a", "acct_é", "acct_ﾮ", "acct_\uffee", "acct_😀", "acct_,", 'acct_"', "acct_{}", "acct_\\"]
    async with world.tables(database) as engine:
        await world.put(engine, *(world.entitlements(name, burst=50) for name in names))
        async with serving(engine, database) as lane:
            for turn in range(3):
                before = statements()
                uses = [Use(name, "messages", 1, f"{name}{turn}", key_id=name) for name in names]
                assert allowed(await lane.decide(uses, 10)) == len(names)
            assert statements() - before == 1
            again = await lane.decide([Use(name, "messages", 1, f"{name}2", key_id=name) for name in names], 10)
            assert all(isinstance(each, Decision) and each.replayed for each in again)
        for name in names:
            assert await lanes.totals(engine, name) == (3, 3)


async def test_a_thousand_uses_of_one_account_in_one_call_are_decided_in_order_to_the_limit(database: str) -> None:
    async with world.tables(database) as engine:
        await world.put(engine, world.entitlements("acct_a", limit=700, burst=900, per_key=400))
        async with serving(engine, database) as one_lane, serving(engine, database) as other:
            uses = [Use("acct_a", "messages", 1, f"k{n}", key_id=f"key_{n % 2}") for n in range(1000)]
            outcomes = await one_lane.decide(uses, 20)
            assert [isinstance(each, Decision) and each.allowed for each in outcomes] == [n < 700 for n in range(1000)]
            # The same again, of both at once: what was granted is repeated, the rest still does not fit.
            for again in await asyncio.gather(one_lane.decide(uses, 20), other.decide(uses, 20)):
                assert sum(isinstance(each, Decision) and each.replayed for each in again) == 700
                assert allowed(again) == 700
        assert await lanes.totals(engine) == (700, 700)


async def test_a_clock_that_jumps_while_a_decision_waits_ends_no_period_twice(tmp_path: Path, database: str) -> None:
    file = tmp_path / "clock"
    async with world.tables(database) as engine:
        await world.put(engine, world.entitlements("acct_a", limit=5))
        async with (
            serving(engine, database, clock=BusinessClock(file)) as one_lane,
            serving(engine, database, clock=BusinessClock(file)) as other,
        ):
            for month in range(1, 5):
                async with engine.connect() as holder:
                    await decided(one_lane, USE)
                    await holder.execute(text("SELECT FROM account FOR UPDATE"))
                    stuck = [lane.decide([USE], 10) for lane in (one_lane, other)]
                    await taken(one_lane, other)
                    file.with_suffix(".new").write_text(str(month * 31 * 86400))
                    file.with_suffix(".new").rename(file)
                    await holder.rollback()
                    assert sum([allowed(await each) for each in stuck]) == 2
                here, there = await decided(one_lane, USE), await decided(other, USE)
                assert there.limits[0].used == here.limits[0].used + 1
                in_month = await lanes.rows(
                    engine,
                    "SELECT coalesce(sum(amount), 0) FROM idem WHERE decide_time >= date_trunc('month', :at, 'UTC')",
                    at=datetime.now(UTC) + timedelta(days=31 * month),
                )
                assert in_month == [(there.limits[0].used,)]
                assert there.limits[0].used <= 5


def test_what_is_known_keeps_to_its_bound_whatever_it_is_made_of() -> None:
    plan = to_plan(to_snapshot(guarded("acct_a")).plan)
    log = rate.pack(array("q", [rate.MOST, *(number for n in range(rate.MOST) for number in (n, 1))]))

    def entry(number: int, *, rates: int = 0, terms: str = "{}") -> Known:
        logs = {(f"rate {number}", f"key_{number}_{n}"): bytes(log) + b"" for n in range(rates)}
        own = {name: value[:-1] + bytes([number % 256]) for name, value in logs.items()}
        counters = f'{{"messages":{{"month":[{number},1],"billing":[{number},1],"lifetime":[0,1]}}}}'
        return Known(f"acct_{number}", number, 1, plan, None, "", counters, terms, (), own)

    bound = 4 * 2**20
    for kind in ({}, {"rates": 3}, {"terms": "x" * 3000}):
        known = KnownAccounts(bound)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(20_000):
            made = entry(number, **kind)  # type: ignore[arg-type]
            known.keep(made._replace(terms=f"{number}{made.terms}"))
        held = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert held < 1.3 * bound, f"{kind}: {held} bytes"
        assert known.get("acct_19999") is not None
        assert known.get("acct_0") is None


@pytest.mark.parametrize("accounts", [1, 4])
async def test_two_replicas_on_the_same_hot_accounts_both_get_on(tmp_path: Path, database: str, accounts: int) -> None:
    names = [f"acct_{n}" for n in range(accounts)]
    async with world.tables(database) as engine:
        await world.put(engine, *(world.entitlements(name, limit=None) for name in names))
        granted: Counter[int] = Counter()
        with world.process(tmp_path, database) as first, world.process(tmp_path, database) as second:
            async with world.client(first.address) as one_stub, world.client(second.address) as other:
                until = time.monotonic() + 3

                async def ask(replica: int, name: str) -> None:
                    while time.monotonic() < until:
                        assert (await world.consume((one_stub, other)[replica], name)).allowed
                        granted[replica] += 1

                await asyncio.gather(*(ask(n % 2, names[n // 2 % accounts]) for n in range(32)))
        print(f"grants in 3 s on {accounts} hot accounts: {granted[0]} and {granted[1]}")
        assert min(granted.values()) > 0.2 * granted.total()
        told = [sum(pair) for pair in zip(*[await lanes.totals(engine, name) for name in names], strict=True)]
        assert told == [granted.total(), granted.total()]


async def test_where_another_process_is_at_work_it_is_locked_at_once_and_known_again_when_that_has_gone(
    database: str,
) -> None:
    names = [f"acct_{n}" for n in range(3)]
    async with world.tables(database) as engine:
        await world.put(engine, *(world.entitlements(name, limit=None) for name in names))
        async with serving(engine, database) as one_lane, serving(engine, database) as other:

            async def cost(lane: Lane, name: str) -> int:
                before = statements()
                await decided(lane, Use(name, "messages", 1))
                return int(statements() - before)

            shared = [await cost(lane, names[n % 3]) for n in range(30) for lane in (one_lane, other)]
            assert max(shared) > 3  # a decision that failed first
            assert shared[-30:] == [3] * 30  # read under locks, saved, committed
            alone = [await cost(one_lane, names[n % 3]) for n in range(30)]
            assert alone[-15:] == [1] * 15
        assert [await lanes.totals(engine, name) for name in names] == [(30, 30)] * 3


async def test_keys_that_keep_coming_back_are_looked_up_under_locks_at_once(database: str) -> None:
    async with world.tables(database) as engine:
        await world.put(engine, world.entitlements("acct_a", limit=None))
        async with serving(engine, database) as lane:
            costs = []
            for _ in range(20):
                before = statements()
                await decided(lane, Use("acct_a", "messages", 1, "k"))
                costs.append(statements() - before)
            assert costs[-10:] == [3] * 10
        assert await lanes.totals(engine) == (1, 1)


async def test_an_account_that_is_not_known_comes_with_its_rates_in_one_trip(database: str) -> None:
    names = ("acct_a", "acct_b", "acct_c")

    def use(name: str, key: str = "", key_id: str = "key_1") -> Use:
        return Use(name, "messages", 1, key, key_id=key_id)

    def rates(decision: Decision) -> dict[str, int]:
        return {each.name: each.used for each in decision.limits if each.kind is Kind.RATE}

    async with world.tables(database) as engine:
        await world.put(engine, *(world.entitlements(name, limit=None, burst=5, per_key=3) for name in names))
        async with serving(engine, database) as before:
            for name in names:
                assert allowed(await before.decide([use(name, "k0"), use(name, "k1")], 10)) == 2
        async with serving(engine, database) as lane:
            await decided(lane, use("acct_a"))  # from here on it has seen the plan
            sent = statements()
            assert rates(await decided(lane, use("acct_b"))) == {"burst": 3, "per_key": 3}
            assert statements() - sent == 2  # what reads and what saves
            assert not (await decided(lane, use("acct_b"))).allowed
            assert rates(await decided(lane, use("acct_b", key_id="key_2"))) == {"burst": 4, "per_key": 1}
            # A key that comes back: read under locks, which then show the rates too.
            assert (await decided(lane, use("acct_c", "k0"))).replayed
            assert rates(await decided(lane, use("acct_c"))) == {"burst": 3, "per_key": 3}
