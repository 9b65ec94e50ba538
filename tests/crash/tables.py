"""The tables of the two small programs, and how to read what became of the events."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import nats
from sqlalchemy import Column, Integer, Table, Text, func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit.database import new_metadata
from services.kit.inbox import inbox_table
from services.kit.outbox import outbox_table
from services.kit.stream import DEAD_LETTERS, NAME

DURABLE = "crash"
POISON_EVERY = 40  # every fortieth event is one that the consumer cannot handle

metadata = new_metadata()
outbox = outbox_table(metadata)
inbox = inbox_table(metadata)
made = Table("made", metadata, Column("n", Integer, primary_key=True))
# Without a unique constraint: an effect that happens twice must show.
handled = Table("handled", metadata, Column("n", Integer), Column("event_id", Text))


def is_poison(n: int) -> bool:
    return n % POISON_EVERY == 0


async def create(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)


@dataclass(frozen=True)
class Outcome:
    made: int
    missing: set[int]
    doubled: set[int]
    unpublished: int
    stray: set[str]  # ids on the stream that no outbox row has
    buried: Counter[str]  # event ids among the dead letters
    unburied_poison: set[int]
    stream_copies: int


async def outcome(producer: AsyncEngine, consumer: AsyncEngine, nats_url: str) -> Outcome:
    """Everything that both databases and the stream say."""
    async with producer.connect() as connection:
        numbers = set((await connection.execute(select(made.c.n))).scalars())
        rows = (await connection.execute(select(outbox.c.id, outbox.c.account_id))).all()
        waiting = select(func.count()).select_from(outbox).where(outbox.c.publish_time.is_(None))
        unpublished = (await connection.execute(waiting)).scalar_one()
    async with consumer.connect() as connection:
        effects = Counter((await connection.execute(select(handled.c.n))).scalars())
    ids = {row.id: int(row.account_id.removeprefix("acct_")) for row in rows}
    on_stream, dead = await _ids_on(nats_url, NAME), await _ids_on(nats_url, DEAD_LETTERS)
    buried_numbers = {ids[event_id] for event_id in dead}
    return Outcome(
        made=len(numbers),
        missing={n for n in numbers if not is_poison(n)} - set(effects),
        doubled={n for n, times in effects.items() if times > 1},
        unpublished=unpublished,
        stray=set(on_stream) - set(ids),
        buried=dead,
        unburied_poison={n for n in numbers if is_poison(n)} - buried_numbers,
        stream_copies=sum(on_stream.values()) - len(on_stream),
    )


async def _ids_on(nats_url: str, stream: str) -> Counter[str]:
    client = await nats.connect(nats_url)
    try:
        jetstream = client.jetstream()
        last = (await jetstream.stream_info(stream)).state.last_seq
        found: Counter[str] = Counter()
        for sequence in range(1, last + 1):
            message = await jetstream.get_msg(stream, sequence)
            found[(message.headers or {})["ce-id"]] += 1
        return found
    finally:
        await client.close()


async def count(engine: AsyncEngine, table: Table) -> int:
    async with engine.connect() as connection:
        return int((await connection.execute(text(f"SELECT count(*) FROM {table.name}"))).scalar_one())
