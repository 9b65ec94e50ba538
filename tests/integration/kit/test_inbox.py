"""Consumers: once by id, growing delays, dead letters for what cannot be handled, and nobody waits for a neighbour."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import ServiceUnavailableError
from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit import inbox as kit_inbox
from services.kit.database import UnitOfWork, is_transient
from services.kit.inbox import Consumer, Inbox, Received
from services.kit.outbox import Envelope, Relay
from services.kit.stream import DEAD_LETTERS, NAME, Stream
from tests.crash.harness import eventually
from tests.integration.kit.conftest import Start, accounts, announce, inbox, note, noted
from tollway.billing.v1.events_pb2 import TierChanged


async def publish(stream: Stream, *names: str) -> None:
    for name in names:
        event = Envelope.of(TierChanged(account_id=name), name)
        await stream.publish(event.subject, event.data, event.headers())


def consumer(
    stream: Stream, handle: Callable[[Received], Awaitable[None]], *, durable: str = "test", **options: Any
) -> Consumer:
    return Consumer(stream, durable=durable, handlers={TierChanged: handle}, is_transient=is_transient, **options)


async def dead_letters(stream: Stream) -> list[dict[str, str]]:
    jetstream = await stream.jetstream()
    last = (await jetstream.stream_info(DEAD_LETTERS)).state.last_seq
    letters = [await jetstream.get_msg(DEAD_LETTERS, sequence) for sequence in range(1, last + 1)]
    return [{**(letter.headers or {}), "subject": letter.subject or ""} for letter in letters]


async def waiting(stream: Stream, durable: str = "test") -> int:
    info = await (await stream.jetstream()).consumer_info(NAME, durable)
    return (info.num_pending or 0) + (info.num_ack_pending or 0)


async def test_from_commit_to_handled_takes_milliseconds(engine: AsyncEngine, stream: Stream, start: Start) -> None:
    relay = Relay(engine, stream)
    arrived: asyncio.Queue[float] = asyncio.Queue()

    async def handle(event: Received) -> None:
        await note(engine, event)
        arrived.put_nowait(time.perf_counter())

    start(relay.run())
    start(consumer(stream, handle).run())
    took = []
    for account in accounts(120):
        began = time.perf_counter()
        await announce(engine, account, relay=relay)
        committed = time.perf_counter()
        took.append(await arrived.get() - committed)
        assert committed - began < 5
    took = sorted(took[20:])
    p50, p99 = took[len(took) // 2] * 1000, took[int(len(took) * 0.99)] * 1000
    print(f"commit to effect committed: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    assert p50 < 100  # a few milliseconds on a quiet machine


async def test_an_event_delivered_often_takes_effect_once(engine: AsyncEngine, stream: Stream, start: Start) -> None:
    deliveries = 0

    async def handle(event: Received) -> None:
        nonlocal deliveries
        deliveries += 1
        await note(engine, event)
        if deliveries < 4:
            raise ConnectionError("after the commit, before the ack")

    await publish(stream, "acct_1")
    start(consumer(stream, handle).run())
    await eventually(lambda: deliveries == 4)
    assert await noted(engine) == ["acct_1"]


async def test_the_inbox_waits_for_whoever_holds_the_same_id_and_believes_the_outcome(engine: AsyncEngine) -> None:
    def received(event_id: str) -> Received:
        return Received(event_id, "t", "acct_1", datetime.now(UTC), TierChanged())

    async def second(event_id: str) -> bool:
        async with UnitOfWork(engine) as uow:
            accepted = await uow.inbox.accept(received(event_id))
            await uow.commit()
            return accepted

    for event_id, commits in (("evt_1", True), ("evt_2", False)):
        async with UnitOfWork(engine) as first:
            assert await first.inbox.accept(received(event_id))
            rival = asyncio.create_task(second(event_id))
            done, _ = await asyncio.wait({rival}, timeout=0.2)
            assert not done
            if commits:
                await first.commit()
        assert await rival is not commits


async def test_poison_goes_to_the_dead_letters_while_others_flow(
    engine: AsyncEngine, stream: Stream, start: Start
) -> None:
    tries: Counter[str] = Counter()

    async def handle(event: Received) -> None:
        tries[event.account_id] += 1
        if event.account_id.startswith("poison"):
            raise ValueError("secret details stay here")
        await note(engine, event)

    await publish(stream, *accounts(5, "poison"), *accounts(50))
    start(consumer(stream, handle, workers=2, max_tries=3, delays_s=(0.2, 5.0)).run())

    async def others_noted() -> bool:
        return await noted(engine) == accounts(50)

    await eventually(others_noted)
    assert max(tries[name] for name in accounts(5, "poison")) < 3  # they are not through yet

    async def buried() -> bool:
        return len(await dead_letters(stream)) == 5 and await waiting(stream) == 0

    await eventually(buried)
    assert [tries[name] for name in accounts(5, "poison")] == [3] * 5
    for letter in await dead_letters(stream):
        assert letter["Tollway-Consumer"] == "test"
        assert letter["Tollway-Error"] == "ValueError"
        assert letter["ce-type"] == "tollway.billing.v1.TierChanged"
        assert letter["subject"].startswith("tollway_dead.test.billing.TierChanged.poison_")
        assert "secret details" not in repr(letter)


async def test_what_cannot_be_decoded_is_poison(stream: Stream, start: Start, engine: AsyncEngine) -> None:
    event = Envelope.of(TierChanged(account_id="acct_1"), "acct_1")
    broken = [
        (b"\xff\xff\xff", {**event.headers(), "Nats-Msg-Id": "a"}),
        (event.data, {**event.headers(), "Nats-Msg-Id": "b", "ce-type": "tollway.billing.v1.Unknown"}),
        (event.data, {"Nats-Msg-Id": "c"}),
    ]
    for data, headers in broken:
        await stream.publish(event.subject, data, headers)
    await publish(stream, "acct_2")
    start(consumer(stream, lambda event: note(engine, event), max_tries=2, delays_s=(0.05,)).run())

    async def sorted_out() -> bool:
        return len(await dead_letters(stream)) == 3 and await noted(engine) == ["acct_2"]

    await eventually(sorted_out)


async def test_failures_that_pass_never_condemn_an_event_and_their_delays_grow(stream: Stream, start: Start) -> None:
    times: list[float] = []

    async def handle(_: Received) -> None:
        times.append(time.monotonic())
        if len(times) <= 6:
            raise ConnectionRefusedError("the database is away")
        if len(times) <= 8:
            raise ValueError("and then, twice, its own fault")

    await publish(stream, "acct_1")
    start(consumer(stream, handle, max_tries=3, delays_s=(0.05, 0.15, 0.3, 0.6)).run())
    await eventually(lambda: len(times) == 9)
    gaps = [after - before for before, after in pairwise(times)]
    # The sixth wait is the last of the outage; the event's own faults begin again at the first delay.
    for gap, delay in zip(gaps, (0.05, 0.15, 0.3, 0.6, 0.6, 0.6, 0.05, 0.15), strict=True):
        assert delay <= gap < delay + 1.0

    async def done() -> bool:
        return await waiting(stream) == 0

    await eventually(done)
    assert await dead_letters(stream) == []


async def test_a_slow_event_holds_up_one_worker_only_and_is_delivered_once(
    stream: Stream, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kit_inbox, "ACK_WAIT_S", 0.6)
    calls: Counter[str] = Counter()
    finish = asyncio.Event()

    async def handle(event: Received) -> None:
        calls[event.account_id] += 1
        if event.account_id == "slow_0000":
            await finish.wait()

    await publish(stream, "slow_0000", *accounts(40))
    start(consumer(stream, handle, workers=2).run())
    await eventually(lambda: len(calls) == 41, within_s=5)
    await asyncio.sleep(1.5)  # more than twice ack_wait: a second delivery, which must not come, would have come
    finish.set()

    async def done() -> bool:
        return await waiting(stream) == 0

    await eventually(done)
    assert calls["slow_0000"] == 1


async def test_a_handler_that_hangs_is_cut_off_and_tried_again(
    stream: Stream, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kit_inbox, "HANDLING_S", 0.2)
    calls = 0

    async def handle(_: Received) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            await asyncio.Event().wait()

    await publish(stream, "acct_1")
    start(consumer(stream, handle, workers=1).run())
    await eventually(lambda: calls == 2, within_s=5)


async def test_a_consumer_that_is_stopped_hands_back_what_it_holds(stream: Stream, start: Start) -> None:
    reached, again = asyncio.Event(), asyncio.Event()

    async def hang(_: Received) -> None:
        reached.set()
        await asyncio.Event().wait()

    async def finish(_: Received) -> None:
        again.set()

    await publish(stream, "acct_1")
    # Many with nothing to do: what is handed back must not go to one of them, who leaves too.
    first = asyncio.create_task(consumer(stream, hang, workers=100).run())
    await reached.wait()

    async def all_ask() -> bool:
        return ((await (await stream.jetstream()).consumer_info(NAME, "test")).num_waiting or 0) >= 99

    await eventually(all_ask)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    stopped = time.monotonic()
    start(consumer(stream, finish).run())
    await asyncio.wait_for(again.wait(), 10)
    assert time.monotonic() - stopped < kit_inbox.ACK_WAIT_S / 2


async def test_a_consumer_under_load_can_always_be_stopped(stream: Stream, start: Start) -> None:
    busy = True

    async def load() -> None:
        while busy:  # not until cancelled: this cancellation, too, may be swallowed
            with contextlib.suppress(ServiceUnavailableError):  # the server is busy: as a relay does, once more
                await publish(stream, "acct_1")

    async def handle(_: Received) -> None:
        pass

    for _ in range(3):
        start(load())
    try:
        for turn in range(25):  # a cancellation that was swallowed used to hang one stop in five
            running = asyncio.create_task(consumer(stream, handle).run())
            await asyncio.sleep(0.1 + turn / 250)  # the moment of the stop, ever another one
            running.cancel()
            done, _ = await asyncio.wait({running}, timeout=10)
            assert done
    finally:
        busy = False


async def test_a_consumer_that_was_deleted_is_made_again(engine: AsyncEngine, stream: Stream, start: Start) -> None:
    async def are_noted(*expected: str) -> bool:
        return await noted(engine) == sorted(expected)

    start(consumer(stream, lambda event: note(engine, event)).run())
    await publish(stream, "acct_1")
    await eventually(lambda: are_noted("acct_1"))
    await (await stream.jetstream()).delete_consumer(NAME, "test")
    await publish(stream, "acct_2")
    await eventually(lambda: are_noted("acct_1", "acct_2"))


async def test_a_newer_release_updates_the_consumer_that_is_there(stream: Stream, start: Start) -> None:
    jetstream = await stream.jetstream()
    old = ConsumerConfig(
        durable_name="test", ack_policy=AckPolicy.EXPLICIT, ack_wait=30, filter_subjects=["tollway.billing.Older.*"]
    )
    await jetstream.add_consumer(NAME, old)
    handled = asyncio.Event()

    async def handle(_: Received) -> None:
        handled.set()

    start(consumer(stream, handle).run())
    await publish(stream, "acct_1")
    await asyncio.wait_for(handled.wait(), 10)
    config = (await jetstream.consumer_info(NAME, "test")).config
    assert config.filter_subjects == ["tollway.billing.TierChanged.*"]
    assert config.ack_wait == kit_inbox.ACK_WAIT_S


async def test_ids_are_forgotten_only_after_the_stream_has_forgotten_the_event(engine: AsyncEngine) -> None:
    ages = {"evt_young": timedelta(days=31), "evt_old": timedelta(days=41)}
    async with engine.begin() as connection:
        for event_id, age in ages.items():
            await connection.execute(insert(inbox).values(id=event_id, type="t", receive_time=func.now() - age))
    Inbox._next_prune = 0.0
    await note(engine, Received("evt_new", "t", "acct_1", datetime.now(UTC), TierChanged()))
    async with engine.connect() as connection:
        left = set((await connection.execute(select(inbox.c.id))).scalars())
    assert left == {"evt_young", "evt_new"}


async def test_a_unit_of_work_is_for_one_task_at_a_time(engine: AsyncEngine) -> None:
    uow = UnitOfWork(engine)
    async with uow:
        with pytest.raises(RuntimeError, match="in use"):
            await uow.__aenter__()
    async with uow:
        await announce(engine, "acct_1")
