"""A service that only announces: one row and one event per transaction, until `TOTAL` are there. Uses only the kit."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import func, insert, select

from services.kit import process, telemetry
from services.kit.database import UnitOfWork, create_engine, is_transient
from services.kit.outbox import Relay
from services.kit.stream import Stream
from tests.crash.tables import made
from tollway.billing.v1.events_pb2 import TierChanged


async def produce(uow: UnitOfWork, total: int, pause_s: float) -> None:
    n = 0
    while n < total:
        try:
            async with uow:
                # The counter is in the database: a crash between commit and the next turn repeats nothing.
                n = ((await uow.connection.execute(select(func.max(made.c.n)))).scalar_one() or 0) + 1
                if n <= total:
                    await uow.connection.execute(insert(made).values(n=n))
                    uow.outbox.add(TierChanged(account_id=f"acct_{n}", version=n), f"acct_{n}")
                    await uow.commit()
        except Exception as error:
            if not is_transient(error):
                raise
        await asyncio.sleep(pause_s)  # the pace of the load
    await asyncio.Event().wait()


@asynccontextmanager
async def service(tasks: process.Tasks) -> AsyncIterator[None]:
    engine = create_engine(os.environ["DSN"], pool_size=4)
    stream = Stream(os.environ["NATS_URL"], name="producer")
    relay = Relay(engine, stream)
    stream.start()
    tasks.start(relay.run(), "relay")
    uow = UnitOfWork(engine, relay.wake)
    tasks.start(produce(uow, int(os.environ["TOTAL"]), float(os.environ["PAUSE_S"])), "produce")
    try:
        yield
    finally:
        await tasks.stop()
        await stream.close()
        await engine.dispose()


if __name__ == "__main__":
    telemetry.configure_logs("producer")
    process.run(service)
