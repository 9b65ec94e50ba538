"""The lane against a PostgreSQL that misbehaves, and callers that ask too much."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from datetime import date, timedelta

import asyncpg
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit.clock import BusinessClock
from services.kit.errors import TollwayError
from services.quota.domain import Decision, Outcome, Use
from services.quota.errors import Expired, QueueFull, StoreUnavailable
from services.quota.lane import GAP_S, Lane
from services.quota.maintenance import make_days
from services.quota.storage import Plans
from services.quota.store import Store
from tests.integration.quota import proxy as proxies
from tests.integration.quota import world
from tests.integration.quota.lanes import taken
from tests.integration.quota.proxy import Fault


@contextlib.asynccontextmanager
async def serving(engine: AsyncEngine, dsn: str, **options: float) -> AsyncIterator[Lane]:
    lane = Lane(Store(dsn, Plans(), BusinessClock()), make_days=lambda: make_days(engine), **options)  # type: ignore[arg-type]
    running = asyncio.create_task(lane.run())
    try:
        yield lane
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def one(lane: Lane, use: Use, deadline_s: float = 20.0) -> Outcome:
    return (await lane.decide([use], deadline_s))[0]


async def totals(engine: AsyncEngine) -> tuple[int, int]:
    """Units in the counters, units in the ledger."""
    async with engine.connect() as connection:
        counter = await connection.execute(text("SELECT coalesce(sum(used), 0) FROM counter WHERE period = 'month'"))
        ledger = await connection.execute(text("SELECT coalesce(sum(amount), 0) FROM idem"))
        return int(counter.scalar_one()), int(ledger.scalar_one())


def allowed(outcomes: Sequence[Outcome]) -> int:
    return sum(isinstance(outcome, Decision) and outcome.allowed for outcome in outcomes)


@pytest.mark.parametrize("fault", [Fault.CUT_AFTER, Fault.CUT_BEFORE, Fault.SILENCE])
@pytest.mark.parametrize("key", ["key", ""])
@pytest.mark.parametrize("under_locks", [False, True])
async def test_a_lost_answer_to_commit_counts_once_with_a_key_and_without(
    database: str, fault: Fault, key: str, under_locks: bool
) -> None:
    async with world.tables(database) as engine, proxies.before(database) as (proxy, dsn):
        await world.put(engine, world.entitlements("acct_a", limit=100))
        async with serving(engine, dsn, patience_s=15.0) as lane:
            assert allowed([await one(lane, Use("acct_a", "messages", 1))]) == 1
            if under_locks:  # what the lane knows of the account is old now
                await world.put(engine, world.entitlements("acct_a", limit=100, version=2))
            else:
                proxy.at = await _lane_id(engine)
            proxy.fault = fault
            outcomes = await asyncio.gather(
                *(one(lane, Use("acct_a", "messages", 1, f"{key}{n}" if key else "")) for n in range(20))
            )
            assert proxy.struck == 1
            assert allowed(outcomes) == 20
            if key:
                repeated = await one(lane, Use("acct_a", "messages", 1, "key0"))
                assert isinstance(repeated, Decision)
                assert repeated.replayed
        assert await totals(engine) == (21, 21)


async def test_two_lanes_grant_no_more_than_the_rate_in_any_window_and_open_it_again(database: str) -> None:
    async with world.tables(database) as engine:
        await world.put(engine, world.entitlements("acct_a", limit=None, burst=20, per_key=12, window_s=1))
        async with serving(engine, database) as one_lane, serving(engine, database) as other:

            async def ask(lane: Lane, key_id: str) -> None:
                outcome = await one(lane, Use("acct_a", "messages", 1, key_id=key_id))
                assert isinstance(outcome, Decision)
                told.append((outcome.allowed, key_id))

            told: list[tuple[bool, str]] = []
            async with asyncio.timeout(30):
                while sum(allowed for allowed, _ in told) < 70:
                    await asyncio.gather(*(ask(lane, key_id) for lane in (one_lane, other) for key_id in ("a", "b")))
        async with engine.connect() as connection:
            lines = await connection.execute(text("SELECT decide_time, amount FROM idem ORDER BY decide_time"))
            granted = [(at, amount) for at, amount in lines]
        assert sum(amount for _, amount in granted) == sum(allowed for allowed, _ in told)
        fullest = 0
        for begun, _ in granted:
            held = sum(amount for at, amount in granted if begun <= at < begun + timedelta(seconds=1))
            fullest = max(fullest, held)
        assert fullest == 20


async def test_a_decision_is_one_statement_and_a_first_one_reads_before(database: str) -> None:
    async with world.tables(database) as engine:
        await world.put(engine, world.entitlements("acct_a"), world.entitlements("acct_r", burst=5))
        async with serving(engine, database) as lane:
            await one(lane, Use("acct_stranger", "messages", 1))  # connected
            told = []
            for account_id in ("acct_a", "acct_a", "acct_r", "acct_r"):
                before = statements()
                await one(lane, Use(account_id, "messages", 1, key=f"key{len(told)}"))
                told.append(statements() - before)
        # New: the account, its plan, its rates and the decision. Known: the decision, rates or not.
        assert told == [3, 1, 4, 1]


async def test_a_busy_event_loop_is_not_taken_for_one_with_nobody_on_the_way(database: str) -> None:
    use, batches = Use("acct_a", "messages", 1), []
    async with world.tables(database) as engine:
        await world.put(engine, world.entitlements("acct_a", limit=None))
        async with serving(engine, database, linger_s=0.5) as lane:
            loop = asyncio.get_running_loop()
            for _ in range(4):  # so that it has seen how many ask
                await asyncio.gather(*(one(lane, use) for _ in range(32)))
            for _ in range(6):
                others: list[asyncio.Future[list[Outcome]]] = []

                def arrive(rounds: int, others: list[asyncio.Future[list[Outcome]]] = others) -> None:
                    if rounds == 0:
                        others.extend(lane.decide([use], 20) for _ in range(31))
                        return
                    time.sleep(1.1 * GAP_S)  # reading what callers sent, say: timers that fall due come late
                    loop.call_soon(arrive, rounds - 1)

                before = statements()
                first = lane.decide([use], 20)
                loop.call_soon(arrive, 3)
                await first
                await asyncio.gather(*others)
                batches.append(statements() - before)
    assert batches == [1] * 6


async def test_what_others_change_is_seen_by_the_very_next_decision(database: str) -> None:
    async with world.tables(database) as engine:
        await world.put(engine, world.entitlements("acct_a", limit=3))
        async with serving(engine, database) as one_lane, serving(engine, database) as other:
            for lane, expected in ((one_lane, 1), (other, 2), (one_lane, 3)):
                decision = await one(lane, Use("acct_a", "messages", 1))
                assert isinstance(decision, Decision)
                assert decision.limits[0].used == expected
            assert allowed([await one(other, Use("acct_a", "messages", 1))]) == 0
            # A refusal and a dry run write nothing, and yet stand on what is so now.
            await world.put(engine, world.entitlements("acct_a", limit=4, version=2))
            assert allowed([await one(other, Use("acct_a", "messages", 1, dry_run=True))]) == 1
            assert allowed([await one(one_lane, Use("acct_a", "messages", 1))]) == 1
            assert allowed([await one(other, Use("acct_a", "messages", 1))]) == 0
            await world.put(engine, world.entitlements("acct_a", limit=5, version=3))
            assert allowed([await one(one_lane, Use("acct_a", "messages", 1))]) == 1
        assert await totals(engine) == (5, 5)


async def test_a_terminated_backend_loses_no_grant(database: str) -> None:
    async with world.tables(database) as engine:
        await world.put(engine, world.entitlements("acct_a", limit=None))
        async with serving(engine, database, patience_s=15.0) as lane:
            told = 0
            for _ in range(5):
                calls = [asyncio.ensure_future(one(lane, Use("acct_a", "messages", 1))) for _ in range(50)]
                async with engine.connect() as connection:
                    statement = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE :n"
                    await connection.execute(text(statement), {"n": "tollway-quota-lane%"})
                told += allowed(await asyncio.gather(*calls))
        assert told == 250
        assert await totals(engine) == (told, told)


async def test_a_deadlock_is_decided_again(database: str) -> None:
    async with world.tables(database) as engine:
        await world.put(engine, world.entitlements("acct_a"), world.entitlements("acct_b"))
        async with serving(engine, database, patience_s=15.0) as lane, engine.connect() as rude:
            await one(lane, Use("acct_a", "messages", 1))
            # Locks in the other order: b is held, the lane takes a and waits for b, then a is asked for here.
            await rude.execute(text("SELECT FROM account WHERE id = 'acct_b' FOR UPDATE"))
            call = lane.decide([Use("acct_a", "messages", 1), Use("acct_b", "messages", 1)], 15.0)
            waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
            async with engine.connect() as watcher, asyncio.timeout(5):
                while not (await watcher.execute(waiting)).scalar_one():
                    await watcher.rollback()
            with contextlib.suppress(Exception):  # whichever of the two PostgreSQL picks
                await rude.execute(text("SELECT FROM account WHERE id = 'acct_a' FOR UPDATE"))
            await rude.rollback()
            assert allowed(await call) == 2
        assert await totals(engine) == (3, 3)


async def test_one_use_that_cannot_be_stored_fails_alone(database: str) -> None:
    async with world.tables(database) as engine:
        await world.put(engine, world.entitlements("acct_a", limit=None))
        async with engine.begin() as connection:
            # Stands for whatever is wrong with one line: PostgreSQL refuses it, and with it the whole statement.
            trigger = """
            CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN IF NEW.key = 'odd' THEN RAISE EXCEPTION 'odd' USING ERRCODE = '22023'; END IF; RETURN NEW; END $$
            """
            await connection.execute(text(trigger))
            await connection.execute(
                text("CREATE TRIGGER odd BEFORE INSERT ON idem FOR EACH ROW EXECUTE FUNCTION odd()")
            )
        async with serving(engine, database) as lane:
            names = [*(f"k{n}" for n in range(5)), "odd", *(f"k{n}" for n in range(5, 10))]
            outcomes = await lane.decide([Use("acct_a", "messages", 1, name) for name in names], 10.0)
        assert allowed(outcomes) == 10
        bad = outcomes[5]
        assert isinstance(bad, TollwayError)
        assert "odd" not in bad.message
        assert await totals(engine) == (10, 10)


async def test_a_missing_day_of_the_ledger_is_made_on_the_spot(database: str) -> None:
    async with world.tables(database) as engine:
        await world.put(engine, world.entitlements("acct_a"))
        async with engine.begin() as connection:
            names = await connection.execute(text("SELECT relname FROM pg_class WHERE relname ~ '^idem_[0-9]+$'"))
            for (name,) in names.all():
                await connection.execute(text(f'DROP TABLE "{name}"'))
        async with serving(engine, database) as lane:
            assert allowed([await one(lane, Use("acct_a", "messages", 1, "k"))]) == 1


async def test_a_key_of_the_last_48_hours_is_found_and_older_days_are_dropped(database: str) -> None:
    async with world.tables(database) as engine:
        await world.put(engine, world.entitlements("acct_a", limit=None))
        async with serving(engine, database) as lane:
            today = await _scalar(engine, "SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date")
            assert isinstance(today, date)
            for age in (1, 2, 5):
                await one(lane, Use("acct_a", "messages", 1, f"age{age}"))
                day = today - timedelta(days=age)
                async with engine.begin() as connection:
                    if age > 1:
                        bounds = f"FROM ('{day}') TO ('{day + timedelta(days=1)}')"
                        statement = f"CREATE TABLE idem_{day:%Y%m%d} PARTITION OF idem FOR VALUES {bounds}"
                        await connection.execute(text(statement))
                    await connection.execute(
                        text("UPDATE idem SET day = :day WHERE key = :key"), {"day": day, "key": f"age{age}"}
                    )
            for age in (1, 2):
                outcome = await one(lane, Use("acct_a", "messages", 1, f"age{age}"))
                assert isinstance(outcome, Decision)
                assert outcome.replayed
            await make_days(engine)
        assert await _scalar(engine, "SELECT count(*) FROM idem WHERE key = 'age5'") == 0
        assert await _scalar(engine, "SELECT count(*) FROM idem WHERE key IN ('age1', 'age2')") == 2
        assert await _scalar(engine, "SELECT max(relname) FROM pg_class WHERE relname ~ '^idem_[0-9]+$'") == (
            f"idem_{today + timedelta(days=7):%Y%m%d}"
        )


async def test_a_full_queue_refuses_and_expired_callers_are_not_decided(database: str) -> None:
    async with world.tables(database) as engine:
        await world.put(engine, world.entitlements("acct_a"))
        async with serving(engine, database, queue=10, patience_s=0.8) as lane, engine.connect() as holder:
            await one(lane, Use("acct_a", "messages", 1))
            await holder.execute(text("SELECT FROM account FOR UPDATE"))
            stuck = lane.decide([Use("acct_a", "messages", 1)], 15.0)
            await taken(lane)
            hurried = lane.decide([Use("acct_a", "messages", 1)], 0.1)
            patient = lane.decide([Use("acct_a", "messages", 1) for _ in range(9)], 15.0)
            with pytest.raises(QueueFull) as caught:
                lane.decide([Use("acct_a", "messages", 1)], 15.0)
            assert caught.value.retry_after is not None
            assert isinstance((await hurried)[0], (Expired, StoreUnavailable))
            assert all(isinstance(outcome, StoreUnavailable) for outcome in await patient)
            await holder.rollback()
            await stuck
            assert allowed([await one(lane, Use("acct_a", "messages", 1))]) == 1
        counted, written = await totals(engine)
        assert counted == written
        assert counted in (2, 3)  # the stuck one may have been granted before its patience ended


async def test_the_lanes_row_is_entered_again_when_it_was_tidied_away(database: str) -> None:
    async with world.tables(database) as engine:
        await world.put(engine, world.entitlements("acct_a"))
        async with serving(engine, database) as lane:
            await one(lane, Use("acct_a", "messages", 1))
            async with engine.begin() as connection:
                await connection.execute(text("DELETE FROM lane"))
            assert allowed([await one(lane, Use("acct_a", "messages", 1))]) == 1
        assert await totals(engine) == (2, 2)


async def _lane_id(engine: AsyncEngine) -> bytes:
    """Its statement that saves carries it."""
    return str(await _scalar(engine, "SELECT id FROM lane")).encode()


def statements() -> float:
    """How many this process has sent for its decisions, as the metrics tell it."""
    return REGISTRY.get_sample_value("tollway_quota_statements_total") or 0.0


async def _scalar(engine: AsyncEngine, statement: str) -> object:
    async with engine.connect() as connection:
        value: object = (await connection.execute(text(statement))).scalar()
    return value


def test_asyncpg_still_reports_a_broken_connection_as_we_judge_it() -> None:
    assert issubclass(asyncpg.ConnectionDoesNotExistError, asyncpg.PostgresError)
    assert asyncpg.ConnectionDoesNotExistError.sqlstate.startswith("08")
