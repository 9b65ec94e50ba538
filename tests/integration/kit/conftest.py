"""A database with an outbox, an inbox and a table of effects; a NATS without streams; loops that end with the test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import nats
import pytest
from nats.js.errors import NotFoundError
from sqlalchemy import Column, Table, Text, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit.database import UnitOfWork, create_engine, new_metadata
from services.kit.inbox import Received, inbox_table
from services.kit.outbox import Relay, outbox_table
from services.kit.stream import DEAD_LETTERS, NAME, Stream
from tollway.billing.v1.events_pb2 import TierChanged

metadata = new_metadata()
outbox = outbox_table(metadata)
inbox = inbox_table(metadata)
effects = Table("effects", metadata, Column("event_id", Text), Column("account_id", Text))

Start = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


@pytest.fixture
async def engine(database: str) -> AsyncIterator[AsyncEngine]:
    made = create_engine(database, pool_size=8)
    async with made.begin() as connection:
        await connection.run_sync(metadata.create_all)
    yield made
    await made.dispose()


@pytest.fixture
async def empty_nats(nats_url: str) -> str:
    client = await nats.connect(nats_url)
    for name in (NAME, DEAD_LETTERS):
        with contextlib.suppress(NotFoundError):
            await client.jetstream().delete_stream(name)
    await client.close()
    return nats_url


@pytest.fixture
async def stream(empty_nats: str) -> AsyncIterator[Stream]:
    made = Stream(empty_nats, name="test")
    made.start()
    yield made
    await made.close()


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a loop; it is cancelled with the test, before anything that it uses goes."""
    tasks: list[asyncio.Task[None]] = []

    def begin(loop: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        tasks.append(asyncio.create_task(loop))
        return tasks[-1]

    yield begin
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        assert outcome is None or isinstance(outcome, asyncio.CancelledError), outcome


async def announce(engine: AsyncEngine, *accounts: str, relay: Relay | None = None) -> None:
    """One transaction, one event for each account."""
    async with UnitOfWork(engine, relay.wake if relay else lambda: None) as uow:
        for account in accounts:
            uow.outbox.add(TierChanged(account_id=account), account)
        await uow.commit()


async def note(engine: AsyncEngine, event: Received) -> None:
    """The handler as services write it: once by id, in one transaction with the effect."""
    async with UnitOfWork(engine) as uow:
        if await uow.inbox.accept(event):
            await uow.connection.execute(insert(effects).values(event_id=event.id, account_id=event.account_id))
            await uow.commit()


async def noted(engine: AsyncEngine) -> list[str]:
    """The accounts of the effects, sorted; one that took effect twice is there twice."""
    async with engine.connect() as connection:
        return sorted((await connection.execute(select(effects.c.account_id))).scalars())


async def unpublished(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        rows = await connection.execute(select(outbox.c.id).where(outbox.c.publish_time.is_(None)))
        return len(rows.all())


def accounts(count: int, prefix: str = "acct") -> list[str]:
    return [f"{prefix}_{n:04}" for n in range(count)]
