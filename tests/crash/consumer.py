"""A service that only listens: it notes each event once, and cannot handle some of them. Uses only the kit."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit import process, telemetry
from services.kit.database import UnitOfWork, create_engine, is_transient
from services.kit.inbox import Consumer, Received
from services.kit.stream import Stream
from tests.crash.tables import DURABLE, handled, is_poison
from tollway.billing.v1.events_pb2 import TierChanged


class Unmanageable(Exception):
    """What is wrong with a poisoned event is its own fault."""


async def note(event: Received, engine: AsyncEngine) -> None:
    assert isinstance(event.message, TierChanged)
    async with UnitOfWork(engine) as uow:
        if not await uow.inbox.accept(event):
            return
        if is_poison(event.message.version):
            raise Unmanageable(str(event.message.version))
        await uow.connection.execute(insert(handled).values(n=event.message.version, event_id=event.id))
        await uow.commit()


@asynccontextmanager
async def service(tasks: process.Tasks) -> AsyncIterator[None]:
    engine = create_engine(os.environ["DSN"], pool_size=16)
    stream = Stream(os.environ["NATS_URL"], name="consumer")
    consumer = Consumer(
        stream,
        durable=DURABLE,
        handlers={TierChanged: lambda event: note(event, engine)},
        is_transient=is_transient,
        max_tries=3,
        delays_s=(0.1, 0.3, 1.0),
    )
    stream.start()
    tasks.start(consumer.run(), "consumer")
    try:
        yield
    finally:
        await tasks.stop()
        await stream.close()
        await engine.dispose()


if __name__ == "__main__":
    telemetry.configure_logs("consumer")
    process.run(service)
