"""The outbox is the truth: what is committed is published, whatever becomes of relays and of the stream."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nats
import pytest
from nats.js.api import DiscardPolicy, StreamConfig
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit.database import UnitOfWork, is_transient
from services.kit.inbox import Consumer
from services.kit.outbox import Relay
from services.kit.stream import NAME, Stream
from tests.crash.harness import Nats, eventually
from tests.integration.kit.conftest import Start, accounts, announce, note, noted, outbox, unpublished
from tollway.billing.v1.events_pb2 import TierChanged


async def messages_on(stream: Stream) -> int:
    return (await (await stream.jetstream()).stream_info(NAME)).state.messages


async def republish(engine: AsyncEngine, since: datetime | None) -> int:
    """All pages."""
    total, token = 0, ""
    while True:
        async with UnitOfWork(engine) as uow:
            done = await uow.outbox.republish(since, token)
            await uow.commit()
        total, token = total + done.count, done.next_token
        if not token:
            return total


async def test_an_event_of_a_transaction_that_failed_does_not_exist(engine: AsyncEngine, stream: Stream) -> None:
    async with UnitOfWork(engine) as uow:
        uow.outbox.add(TierChanged(), "acct_1")
        await uow.outbox.flush()
    assert await Relay(engine, stream).publish_batch() == 0
    assert await messages_on(stream) == 0


async def test_two_relays_publish_everything_once(engine: AsyncEngine, stream: Stream) -> None:
    await announce(engine, *accounts(1000))
    relays = [Relay(engine, stream), Relay(engine, stream)]
    shares = [0, 0]

    async def drain(index: int) -> None:
        while published := await relays[index].publish_batch():
            shares[index] += published

    await asyncio.gather(drain(0), drain(1))
    assert sum(shares) == 1000
    assert min(shares) > 0  # they did work at the same time
    assert await unpublished(engine) == 0
    assert await messages_on(stream) == 1000


async def test_claims_of_a_living_relay_are_respected_and_those_of_a_dead_one_run_out(
    engine: AsyncEngine, stream: Stream
) -> None:
    await announce(engine, "acct_1", "acct_2")
    relay = Relay(engine, stream)

    async def claim_first(until: timedelta) -> None:
        first = select(func.min(outbox.c.id)).scalar_subquery()
        async with engine.begin() as connection:
            await connection.execute(update(outbox).where(outbox.c.id == first).values(claim_until=func.now() + until))

    await claim_first(timedelta(seconds=5))
    assert await relay.publish_batch() == 1
    assert await relay.publish_batch() == 0
    await claim_first(timedelta(seconds=-1))
    assert await relay.publish_batch() == 1
    assert await unpublished(engine) == 0


async def test_a_relay_that_is_stopped_finishes_its_batch_and_leaves_no_claim(
    engine: AsyncEngine, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    await announce(engine, *accounts(3))
    publish, reached, go_on = stream.publish, asyncio.Event(), asyncio.Event()

    async def slowly(subject: str, data: bytes, headers: dict[str, str]) -> None:
        reached.set()
        await go_on.wait()
        await publish(subject, data, headers)

    monkeypatch.setattr(stream, "publish", slowly)
    running = asyncio.create_task(Relay(engine, stream).run())
    await reached.wait()
    running.cancel()
    await asyncio.sleep(0)  # the cancellation arrives while it publishes
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await unpublished(engine) == 0
    async with engine.connect() as connection:
        published = (await connection.execute(select(outbox.c.publish_time))).scalars().all()
    assert None not in published


async def test_publishing_again_within_the_window_adds_no_message(engine: AsyncEngine, stream: Stream) -> None:
    await announce(engine, *accounts(10))
    relay = Relay(engine, stream)
    await relay.publish_batch()
    assert await republish(engine, datetime.now(UTC) - timedelta(minutes=1)) == 10
    assert await republish(engine, datetime.now(UTC) + timedelta(minutes=1)) == 0
    assert await relay.publish_batch() == 10
    assert await messages_on(stream) == 10


async def test_a_full_stream_leaves_events_in_the_outbox_until_there_is_room(
    engine: AsyncEngine, empty_nats: str, start: Start
) -> None:
    client = await nats.connect(empty_nats)
    jetstream = client.jetstream()
    # An operator's own configuration, which stands.
    await jetstream.add_stream(StreamConfig(name=NAME, subjects=["tollway.>"], max_msgs=4, discard=DiscardPolicy.NEW))
    stream = Stream(empty_nats, name="test")
    stream.start()
    try:
        await announce(engine, *accounts(10))
        with pytest.raises(ConnectionError, match="took 4 of 10"):
            await Relay(engine, stream).publish_batch()
        assert await unpublished(engine) == 6
        relay = Relay(engine, stream)
        start(relay.run())

        async def drained() -> bool:
            await jetstream.purge_stream(NAME)
            return await unpublished(engine) == 0

        await eventually(drained, claim="the rest went out when there was room")
        assert (await jetstream.stream_info(NAME)).config.max_msgs == 4
    finally:
        await client.close()
        await stream.close()


async def test_events_wait_for_a_nats_that_is_away_at_the_start(
    engine: AsyncEngine, tmp_path: Path, start: Start
) -> None:
    server = Nats(tmp_path)
    stream = Stream(server.url, name="test")
    relay = Relay(engine, stream)
    consumer = Consumer(
        stream, durable="late", handlers={TierChanged: lambda event: note(engine, event)}, is_transient=is_transient
    )
    stream.start()
    try:
        start(relay.run())
        start(consumer.run())
        await announce(engine, *accounts(5), relay=relay)
        assert not stream.connected
        async with engine.connect() as connection:
            claimed = select(outbox.c.id).where(outbox.c.claim_until.isnot(None))
            assert (await connection.execute(claimed)).all() == []  # nothing churns while nobody is there
        with server:

            async def all_noted() -> bool:
                return await noted(engine) == accounts(5)

            await eventually(all_noted)
            await stream.close()
    finally:
        await stream.close()


async def test_a_nats_that_lost_its_storage_is_made_whole_again(
    engine: AsyncEngine, tmp_path: Path, start: Start
) -> None:
    began = datetime.now(UTC) - timedelta(seconds=1)
    with Nats(tmp_path) as server:
        stream = Stream(server.url, name="test")
        relay = Relay(engine, stream)
        consumer = Consumer(
            stream, durable="heal", handlers={TierChanged: lambda event: note(engine, event)}, is_transient=is_transient
        )
        stream.start()
        running = [start(relay.run()), start(consumer.run())]
        try:
            await announce(engine, *accounts(5, "before"), relay=relay)

            async def noted_are(*expected: str) -> bool:
                return await noted(engine) == sorted(expected)

            before, after = accounts(5, "before"), accounts(5, "after")
            await eventually(lambda: noted_are(*before))
            server.kill()
            await announce(engine, *after, relay=relay)
            server.lose_storage()
            server.start()
            await eventually(lambda: noted_are(*before, *after), claim="what was not published yet still goes")
            # The stream lacks what it held before; the outbox has it, for whoever needs it.
            await republish(engine, began)
            relay.wake()

            async def refilled() -> bool:
                return await messages_on(stream) == 10 and await unpublished(engine) == 0

            await eventually(refilled)
            # Stopping waits for what is being handled; after it, nothing can take effect any more.
            await asyncio.sleep(0.3)  # gives a second effect, which must not come, the time to come
            assert await noted_are(*before, *after)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await stream.close()


async def test_published_rows_stay_seven_days(engine: AsyncEngine, stream: Stream, start: Start) -> None:
    await announce(engine, "acct_week", "acct_old", "acct_waiting")
    ages = {"acct_week": timedelta(days=7), "acct_old": timedelta(days=9)}
    async with engine.begin() as connection:
        for account, age in ages.items():
            row = update(outbox).where(outbox.c.account_id == account)
            await connection.execute(row.values(publish_time=func.now() - age))
    start(Relay(engine, stream).run())

    async def kept() -> bool:
        async with engine.connect() as connection:
            left = set((await connection.execute(select(outbox.c.account_id))).scalars())
        return left == {"acct_week", "acct_waiting"}

    await eventually(kept)
