"""DESIGN §7 and §11.7 to 9 through kill -9: every committed event has its effect once, whatever dies when."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from tests.crash import tables
from tests.crash.harness import Nats, Postgres, Program, eventually


@dataclass(frozen=True)
class World:
    postgres: Postgres
    nats: Nats
    producer: Program
    consumer: Program
    producer_db: AsyncEngine
    consumer_db: AsyncEngine
    total: int

    async def settle(self, within_s: float = 60) -> tables.Outcome:
        """Waits until everything was made and nothing is missing, and returns what there is then."""

        async def settled() -> bool:
            for program in (self.producer, self.consumer):
                if program.is_dead():
                    program.start()
            if await tables.count(self.producer_db, tables.made) < self.total:
                return False
            now = await tables.outcome(self.producer_db, self.consumer_db, self.nats.url)
            return not (now.missing or now.unpublished or now.unburied_poison)

        await eventually(settled, within_s=within_s, claim="all events were made, published and handled")
        return await tables.outcome(self.producer_db, self.consumer_db, self.nats.url)


@pytest.fixture
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    total = int(request.param)
    with Postgres(tmp_path) as postgres, Nats(tmp_path) as nats:
        producer_dsn, consumer_dsn = postgres.database("producer"), postgres.database("consumer")
        producer_db = create_async_engine(producer_dsn, poolclass=NullPool)
        consumer_db = create_async_engine(consumer_dsn, poolclass=NullPool)
        await tables.create(producer_db)
        await tables.create(consumer_db)
        common = {"NATS_URL": nats.url, "TOTAL": str(total), "PAUSE_S": "0.02"}
        producer = Program("tests.crash.producer", {**common, "DSN": producer_dsn}, tmp_path)
        consumer = Program("tests.crash.consumer", {**common, "DSN": consumer_dsn}, tmp_path)
        with producer, consumer:
            yield World(postgres, nats, producer, consumer, producer_db, consumer_db, total)
        await producer_db.dispose()
        await consumer_db.dispose()


def assert_exactly_once(outcome: tables.Outcome, total: int) -> None:
    assert outcome.made == total
    assert outcome.missing == set()
    assert outcome.doubled == set()
    assert outcome.unpublished == 0
    assert outcome.stray == set()
    # Poison is buried, each once, and nothing else is: an outage never condemns an event.
    assert len(outcome.buried) == total // tables.POISON_EVERY
    assert set(outcome.buried.values()) == {1}


@pytest.mark.parametrize("world", [800], indirect=True)
async def test_every_failpoint_costs_a_delay_and_nothing_else(world: World) -> None:
    points = [
        (world.producer, "uow.flushed"),
        (world.producer, "uow.committed"),
        (world.producer, "outbox.claimed"),
        (world.producer, "outbox.published"),
        (world.producer, "outbox.marked"),
        (world.consumer, f"inbox.{tables.DURABLE}.received"),
        (world.consumer, f"inbox.{tables.DURABLE}.handled"),
        (world.consumer, f"inbox.{tables.DURABLE}.buried"),
    ]
    for program, point in points:
        program.arm(point, passes=2 if point != f"inbox.{tables.DURABLE}.buried" else 0)
        await eventually(lambda: program.has_fired(point), within_s=20, claim=f"{point} was reached")  # noqa: B023
        program.start()
    assert_exactly_once(await world.settle(), world.total)


@pytest.mark.parametrize("world", [1200], indirect=True)
async def test_random_kills_and_stops_of_everything_lose_and_double_nothing(world: World) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    kills = {"producer": 0, "consumer": 0, "nats": 0, "postgres": 0}
    for _ in range(14):
        name = chance.choices(list(kills), weights=[4, 4, 2, 1])[0]
        kills[name] += 1
        victim: Program | Nats | Postgres = getattr(world, name)
        if isinstance(victim, Program) and chance.random() < 0.3:
            # As a rolling deployment does. One that was still importing has no handler yet, and just ends.
            code = victim.stop()
            assert code in {0, -signal.SIGTERM}, f"{name} ended with {code}: {victim.log.read_text()[-2000:]}"
        else:
            victim.kill()
        await asyncio.sleep(chance.uniform(0, 0.4))  # how long it stays away
        victim.start()
        await asyncio.sleep(chance.uniform(0.2, 1.8))  # how long everything may run: the chance is the test
    print(kills)
    outcome = await world.settle(90)
    print(f"{outcome.stream_copies} copies on the stream beyond one each")
    assert_exactly_once(outcome, world.total)
